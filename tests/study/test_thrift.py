"""What must not be done once per trial, or over and over: counted, not timed."""

from __future__ import annotations

import dataclasses
import gc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from trial_records import record

import bench.study.expansion
import bench.tools.spec
from bench.cli.main import main
from bench.data.catalogue import open_catalogue
from bench.report.tables.records import read
from bench.report.tables.study import uncollected
from bench.store.store import Store
from bench.study.plan import prepare
from bench.study.study import Study
from bench.tools.spec import Spec, build_config, parse_spec


def counted(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> Counter[Any]:
    """How often a function is called, by its last argument or, if there are named ones, by those."""
    calls: Counter[Any] = Counter()
    original = getattr(place, name)

    def call(*arguments: Any, **named: Any) -> Any:
        calls[tuple(named.values()) or arguments[-1]] += 1
        return original(*arguments, **named)

    monkeypatch.setattr(place, name, call)
    return calls


@pytest.mark.usefixtures("plugin")
def test_methods_share_their_splits(toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = ("toy-learner", "toy-learner[steps=1]", "toy-reader", "toy-normals", "toy-brightness")

    def keys(chosen: tuple[str, ...]) -> set[str]:
        study = Study(
            "s",
            tuple(map(parse_spec, chosen)),
            (parse_spec("folder"),),
            seeds=(0, 1),
            roots={"folder": toy_root},
        )
        return {task.key for task in prepare(study, Store(tmp_path)).tasks}

    alone = set().union(*(keys((method,)) for method in methods))
    splits = counted(monkeypatch, bench.study.expansion, "split")
    assert keys(methods) == alone
    # 3 categories: at 2 shots and 2 seeds, of normals alone at 2 seeds, and of nothing
    assert splits.total() == len(splits) == 3 * (2 * 2 + 2 + 1)


def test_a_category_is_looked_up_without_looking_at_the_others(toy_root: Path) -> None:
    catalogue = open_catalogue(Spec("folder"), toy_root)
    for category in catalogue.categories:
        for split in ("train", "test", "nowhere"):
            own = [s for s in catalogue.samples.values() if (s.category, s.split) == (category, split)]
            assert list(catalogue.select(category, split)) == own
            for anomalous in (False, True):
                expected = tuple(s for s in own if s.anomalous == anomalous)
                assert catalogue.select(category, split, anomalous=anomalous) == expected


@pytest.mark.usefixtures("plugin")
def test_a_study_that_is_done_is_read_once_and_then_shown(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "--methods", "toy-brightness", "--dataset", "folder", "--data-root", str(toy_root)]
    words += ["--store", str(tmp_path), "--workers", "0"]
    first = CliRunner().invoke(main, words)
    reads = counted(monkeypatch, Store, "document")
    second = CliRunner().invoke(main, words)
    assert second.stdout == first.stdout
    assert [*reads.values()] == [2, 2, 2]  # is it done, and the table


def test_what_many_records_say_is_kept_once() -> None:
    records = [record("promptad", category, 1, seed) for category in ("mesh", "wood") for seed in range(5)]
    entries = read([*records, record("promptad", "mesh", 1, 0, version="2")])
    assert len({id(entry.method) for entry in entries}) == 2
    assert len({id(entry.dataset) for entry in entries}) == 1
    assert len({id(entry.protocol) for entry in entries}) == 1
    assert [entry.method for entry in read(records[:1])] == [entries[0].method]


def test_garbage_is_collected_again_after_a_table() -> None:
    assert gc.isenabled()
    with uncollected():
        assert not gc.isenabled()
        with uncollected():  # a page makes tables
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), uncollected():
        raise KeyError
    assert gc.isenabled()


def test_the_types_of_options_are_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Config:
        rate: float = 0.5
        steps: tuple[int, ...] = ()

    lookups = counted(monkeypatch, bench.tools.spec.typing, "get_type_hints")
    for number in range(5):
        config = build_config(Config, Spec("thing", {"rate": f"0.{number}", "steps": "1+2"}))
        assert (config.rate, config.steps) == (number / 10, (1, 2))
    assert lookups[Config] == 1
