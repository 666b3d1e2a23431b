"""The datasets to learn from, as a user names them: one, a union of several, or another one for each target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.errors import BenchError
from bench.tools.spec import Spec, parse_spec, split_list

ANY = "*"  # stands for every target that is not named


@dataclass(frozen=True)
class Sources:
    """The datasets to learn from.

    Attributes:
        by_target: name of a target dataset, or ``*`` for any other -> the datasets to learn from, as one.
    """

    by_target: Mapping[str, tuple[Spec, ...]]

    def of(self, target: str) -> tuple[Spec, ...]:
        """Datasets to learn from where the dataset ``target`` is tested on.

        Raises:
            BenchError: nothing is named for it.
        """
        found = self.by_target.get(target) or self.by_target.get(ANY)
        if not found:
            known = ", ".join(self.by_target)
            raise BenchError(
                f"no dataset to learn from is named for {target} (only for {known}); add {target}=NAME, or *=NAME"
            )
        return found

    @property
    def all(self) -> tuple[Spec, ...]:
        """Every dataset that is learned from, each once."""
        return tuple({str(spec): spec for specs in self.by_target.values() for spec in specs}.values())

    def __str__(self) -> str:
        written = {target: "+".join(map(str, specs)) for target, specs in self.by_target.items()}
        if written.keys() == {ANY}:
            return written[ANY]
        return ",".join(f"{target}={specs}" for target, specs in written.items())


def parse_sources(text: str) -> Sources:
    """Sources as they are typed: ``visa``, ``visa+clinicdb``, or ``mvtec=visa,*=mvtec``.

    Raises:
        BenchError: malformed, or a target is named twice.
    """
    by_target: dict[str, tuple[Spec, ...]] = {}
    for item in split_list(text):
        # An equals sign in brackets belongs to an option.
        target, equals, specs = item.partition("=")
        if not equals or "[" in target:
            target, specs = ANY, item
        target = target.strip()
        if target in by_target:
            what = f"for {target} twice" if target != ANY else "twice; datasets to learn from together: A+B"
            raise BenchError(f"--train-dataset {text}: a dataset to learn from is named {what}")
        parsed = tuple(map(parse_spec, split_list(specs, "+")))
        if not parsed:
            raise BenchError(f"--train-dataset {text}: name a dataset behind {target}=")
        by_target[target] = parsed
    if not by_target:
        raise BenchError("--train-dataset names no dataset")
    return Sources(by_target)
