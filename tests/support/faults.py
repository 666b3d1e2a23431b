"""What the fault tests survived: counted where it was done, and the table of all of it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version

HEAD = """\
# What the fault tests survived

Each row counts what its test did to real `bench` processes, or in their midst, and what came of it. *Survived*:
afterwards, or after the same command was given again, the study held the records of an undisturbed run: the same
keys, the same content but for provenance, the same scores to the last bit. *Lost*: records that were finished and
then were not there. *Torn*: files under a final name that were not whole, or were changed and not noticed.
*Twice*: trials carried out again though their record was finished, by a journal that the method keeps, or two
records of one trial. A dash: not counted there.

Made by `{command}`
(`tox -e faults` does it with 100 and 10000)
with {versions}. One row is repeated by its test's name instead of `tests/faults`.

"""
COMMAND = "python -m pytest tests/faults --faults-kills {kills} --faults-trials {trials} --faults {file}"


@dataclass
class Row:
    """One kind of fault.

    Attributes:
        injected: how often.
        survived: of those.
        lost, torn, twice: records; see :data:`HEAD`. None where nobody counts.
        beside: what else was measured, in words.
        test: the test's id.
    """

    injected: int
    survived: int
    lost: int | None
    torn: int | None
    twice: int | None
    beside: str
    test: str

    def __str__(self) -> str:
        counts = (self.injected, self.survived, self.lost, self.torn, self.twice)
        return " | ".join("-" if count is None else str(count) for count in counts)


@dataclass(frozen=True)
class Faults:
    """Keeps the rows of one test run; a row is added before its test asserts anything of it."""

    rows: dict[str, Row]
    test: str

    def add(
        self,
        what: str,
        injected: int = 1,
        survived: int = 1,
        lost: int | None = None,
        torn: int | None = None,
        twice: int | None = None,
        beside: str = "",
    ) -> None:
        self.rows[what] = Row(injected, survived, lost, torn, twice, beside, self.test)


def table(rows: dict[str, Row], file: str, kills: int, trials: int) -> str:
    """The table of :data:`HEAD`, in Markdown."""
    packages = [f"{name} {version(name)}" for name in ("torch", "numpy", "filelock", "safetensors")]
    versions = f"Python {platform.python_version()}, {', '.join(packages)}, on {platform.system()}"
    versions += f" ({platform.machine()}, {os.cpu_count()} cores)"
    head = HEAD.format(command=COMMAND.format(kills=kills, trials=trials, file=file), versions=versions)
    lines = [
        "| what | injected | survived | lost | torn | twice | beside | test |",
        "|---|---:|---:|---:|---:|---:|---|---|",
    ]
    lines += [f"| {what} | {row} | {row.beside} | `{row.test}` |" for what, row in rows.items()]
    names = ("injected", "survived", "lost", "torn", "twice")
    total = Row(*(sum(getattr(row, name) or 0 for row in rows.values()) for name in names), "", "")
    lines.append(f"| **all** | {total} | | |")
    return head + "\n".join(lines) + "\n"
