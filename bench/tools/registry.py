"""Plugins by name, each loaded when it is asked for.

A plugin is an entry point of one of the groups ``bench.methods``, ``bench.datasets``, ``bench.protocols``,
``bench.encoders`` or ``bench.executors``, ours and third parties' alike. Listing names imports nothing; loading
one imports that one. A plugin that cannot be imported is reported where it is asked for and breaks nothing else.
"""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bench.contracts import MethodSource
from bench.errors import BenchError, unknown


class Registry:
    """The plugins of one entry-point group.

    Args:
        group: the entry-point group.
        kind: the word for one of them in messages.
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group = group
        self.kind = kind

    @functools.cached_property
    def _entries(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=self.group):
            if entry not in found.setdefault(entry.name, []):
                found[entry.name].append(entry)
        return found

    def names(self) -> list[str]:
        """All registered names, sorted; imports nothing."""
        return sorted(self._entries)

    def origin(self, name: str) -> str:
        """The distribution that registers ``name``, with its version."""
        distribution = self._entry(name).dist
        return f"{distribution.name} {distribution.version}" if distribution else "unknown"

    def load(self, name: str) -> Any:
        """The plugin called ``name``.

        Raises:
            BenchError: no such name (with the nearest one), two distributions claim it, or it cannot be
                imported.
        """
        entry = self._entry(name)
        try:
            return entry.load()
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            raise BenchError(
                f"{self.kind} {name!r} from {self.origin(name)} cannot be loaded ({reason}); "
                "repair or uninstall that package"
            ) from error

    def _entry(self, name: str) -> EntryPoint:
        if name not in self._entries:
            raise unknown(self.kind, name, self.names())
        claims = self._entries[name]
        if len({claim.value for claim in claims}) > 1:
            owners = ", ".join(sorted({claim.dist.name for claim in claims if claim.dist}))
            raise BenchError(f"{self.kind} {name!r} is registered twice, by {owners}; uninstall one of them")
        return claims[0]


class MethodRegistry(Registry):
    """Methods; an entry may be a :class:`~bench.contracts.MethodSource`, whose methods are ``NAME/MODEL``."""

    def load(self, name: str) -> Any:
        """The method's class called ``name``; errors as for any plugin, and those of its source."""
        own, slash, model = name.partition("/")
        plugin = self.plugin(own)
        if not isinstance(plugin, MethodSource):
            if slash:
                raise unknown(self.kind, name, self.names())
            return plugin
        if not model:
            raise BenchError(f"{own} stands for many methods; write {own}/MODEL (bench list methods names them)")
        return plugin.method(model)

    def plugin(self, name: str) -> Any:
        """The plugin registered under ``name``: a method, or a source of methods, built."""
        plugin = super().load(name)
        many = isinstance(plugin, MethodSource)
        return plugin() if many else plugin


METHODS = MethodRegistry("bench.methods", "method")
DATASETS = Registry("bench.datasets", "dataset")
PROTOCOLS = Registry("bench.protocols", "protocol")
ENCODERS = Registry("bench.encoders", "encoder")
EXECUTORS = Registry("bench.executors", "executor")
