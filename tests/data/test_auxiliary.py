"""The protocol auxiliary: what is learned from which datasets, and what they may not share with the target."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from toy_data import write_toy_data

from bench.cli.main import main
from bench.data.catalogue import Catalogue, open_catalogue
from bench.data.splits import load_protocol, split
from bench.data.union import UnionCatalogue
from bench.errors import BenchError
from bench.store.store import Store
from bench.study.sources import parse_sources
from bench.tools.hashes import hash_json
from bench.tools.spec import Spec, config_dict, parse_spec


@pytest.fixture
def source(tmp_path: Path) -> Catalogue:
    write_toy_data(tmp_path / "source", first_seed=1000)
    return open_catalogue(parse_spec("folder"), tmp_path / "source")


@pytest.fixture
def target(toy_root: Path) -> Catalogue:
    return open_catalogue(parse_spec("folder"), toy_root)


def learned(protocol: str, source: Catalogue, target: Catalogue, category: str = "bolt", **more: Any) -> Any:
    rules = load_protocol(parse_spec(protocol))
    options = {"shots": None, "seed": 0, "normals": True, **more}
    return split(rules, target=target, source=source, category=category, **options)


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


# ---------------------------------------------------------------- images


def test_all_of_the_test_part_is_learned_from(source: Catalogue, target: Catalogue) -> None:
    manifest = learned("auxiliary", source, target)
    expected = {s.id for s in source.samples.values() if s.split == "test"}
    assert set(manifest.train) == expected
    assert len(manifest.train) == 3 * (3 + 12 + 3)
    assert {category: draw.types for category, draw in manifest.anomalous.items()} == dict.fromkeys(
        source.categories, ("dent", "stain")
    )
    assert set(manifest.test) == {s.id for s in target.select("bolt", "test")}
    # the same is learned whatever the target and the seed
    others = [learned("auxiliary", source, target, "plate", seed=7), learned("auxiliary", source, target, "cloth")]
    assert {other.learned_hash for other in others} == {manifest.learned_hash}


def test_the_part_and_the_number_of_anomalies_are_options(source: Catalogue, target: Catalogue) -> None:
    training = learned("auxiliary[part=train]", source, target)
    assert not training.anomalous
    assert len(training.train) == 3 * 4
    everything = learned("auxiliary[part=all]", source, target)
    assert set(everything.train) == set(source.samples)
    one = learned("auxiliary[anomalies=1]", source, target)
    assert [len(draw.ids) for draw in one.anomalous.values()] == [1, 1, 1]
    assert len(one.normal) == 3 * 3
    drawn = [learned("auxiliary[anomalies=5]", source, target, seed=seed).train for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    five = learned("auxiliary[anomalies=5]", source, target)
    assert set(one.train) < set(five.train)  # fewer are the beginning of more
    none = learned("auxiliary", source, target, anomalies=False)
    assert not none.anomalous
    assert len(none.normal) == 3 * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("anomalies=-1", "must not be negative"),
        ("seen=single", "all categories of the other datasets"),
        ("anomalies=2,part=train", "drawn from the test part"),
    ],
)
def test_options_that_mean_nothing(options: str, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        load_protocol(parse_spec(f"auxiliary[{options}]"))


# ---------------------------------------------------------------- several datasets


def test_several_datasets_are_learned_from_as_one(source: Catalogue) -> None:
    pocket = open_catalogue(parse_spec("pocket[categories=gear+wood]"), None)
    union = UnionCatalogue([pocket, source], None)
    assert union.label == "pocket[categories=gear+wood]+folder"
    assert union.categories == ("folder/bolt", "folder/cloth", "folder/plate", "pocket/gear", "pocket/wood")
    assert len(union.samples) == len(pocket.samples) + len(source.samples)
    gear = union.select("pocket/gear", "test", anomalous=True)[0]
    own = pocket.samples[gear.id.removeprefix("pocket/")]
    train = union.training_set([gear.id], union.dataset.prompts(), 0)
    assert train.images.prompts["pocket/gear"].label == "gear"
    np.testing.assert_array_equal(train.mask(0), pocket.masks([own.id])[0])
    assert union.keys[gear.id] == pocket.keys[own.id]
    assert UnionCatalogue([pocket, source], None).fingerprint == union.fingerprint
    assert UnionCatalogue([source, pocket], None).fingerprint == union.fingerprint
    with pytest.raises(BenchError, match="named twice"):
        UnionCatalogue([pocket, open_catalogue(parse_spec("pocket"), None)], None)


def test_datasets_learned_from_together_share_no_image(source: Catalogue, tmp_path: Path) -> None:
    pocket = tmp_path / "pocket"
    shutil.copytree(source.dataset.root, pocket)
    twin = open_catalogue(parse_spec("pocket"), pocket)
    with pytest.raises(BenchError, match=r"folder/bolt/\S+ is pocket/bolt/\S+: .* share no image"):
        UnionCatalogue([twin, source], None)


def test_what_users_type() -> None:
    assert parse_sources("visa").of("mvtec") == (Spec("visa", {}),)
    both = parse_sources("visa+pocket[categories=a+b,x=1]")
    assert [spec.name for spec in both.of("mvtec")] == ["visa", "pocket"]
    assert both.all[1].options["categories"] == "a+b"
    by_target = parse_sources("mvtec=visa+clinicdb, *=mvtec")
    assert [spec.name for spec in by_target.of("mvtec")] == ["visa", "clinicdb"]
    assert [spec.name for spec in by_target.of("btad")] == ["mvtec"]
    for text in ("visa", "visa+pocket[categories=a+b,x=1]", "mvtec=visa+clinicdb,*=mvtec"):
        assert str(parse_sources(text)) == text
    with pytest.raises(BenchError, match=r"no dataset to learn from is named for btad \(only for mvtec\)"):
        parse_sources("mvtec=visa").of("btad")
    with pytest.raises(BenchError, match=r"twice; datasets to learn from together: A[+]B"):
        parse_sources("visa,mvtec")
    with pytest.raises(BenchError, match="for mvtec twice"):
        parse_sources("mvtec=a,mvtec=b")


# ---------------------------------------------------------------- studies


def test_a_study_learns_once_for_all_targets_and_its_table_says_from_what(tmp_path: Path) -> None:
    words = ["run", "--protocol", "auxiliary", "--train-dataset", "pocket[categories=fabric+wood]"]
    words += ["--dataset", "pocket[categories=gear+washer]", "--methods", "clip[variant=probe,iterations=3]"]
    words += ["--workers", "0", "--store", str(tmp_path / "store"), "--keep-detectors"]
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert "auxiliary from" in " ".join(result.stdout.split())
    assert "learned from all labelled anomalies and normal images of the test part" in " ".join(
        result.stdout.split()
    )
    assert "-shot" not in result.stdout
    store = Store(tmp_path / "store")
    records = list(store.records())
    assert [record.shots for record in records] == [None, None]
    assert {record.category for record in records} == {"gear", "washer"}
    assert len(store.detectors()) == 1
    again = call(*words[:1], "--protocol", "auxiliary[anomalies=1]", *words[3:])
    assert "learned from 1 anomaly per seen category" in " ".join(again.stdout.split())
    # the command in a record repeats its trial
    command = records[0].document["provenance"]["command"]
    assert "--train-dataset 'pocket[categories=fabric+wood]'" in command


def test_source_and_target_share_no_image_of_any_category(tmp_path: Path) -> None:
    words = ["--protocol", "auxiliary", "--train-dataset", "pocket[categories=fabric+wood]"]
    words += ["--dataset", "pocket[categories=gear+wood]", "--categories", "gear"]
    run = call("run", *words, "--methods", "clip[variant=probe]", "--store", tmp_path / "store")
    assert run.exit_code == 2
    assert "leakage: auxiliary would learn from images of the category" in run.output
    assert "images of wood" in run.output
    one = call("split", *words[:-2], "--category", "gear")
    assert one.exit_code == 2
    assert "leakage" in one.output


def test_a_study_file_names_sources_by_target(tmp_path: Path) -> None:
    file = tmp_path / "cross.yaml"
    file.write_text(
        "methods: clip[variant=probe,iterations=2]\nprotocols: auxiliary\n"
        "datasets: ['pocket[categories=gear+washer]']\n"
        "source: {pocket: 'pocket[categories=wood+mesh]', '*': mvtec}\n"
    )
    result = call("run", "--study", file, "--workers", "0", "--store", tmp_path / "store")
    assert result.exit_code == 0, result.output
    (learned_from,) = {r.protocol.source.label for r in Store(tmp_path / "store").records() if r.protocol.source}
    assert learned_from == "pocket[categories=wood+mesh]"


def test_a_union_runs_in_workers_and_its_records_can_be_repeated(toy_root: Path, tmp_path: Path) -> None:
    words = ["run", "--protocol", "auxiliary", "--train-dataset", "folder+pocket[categories=wood+mesh]"]
    write_toy_data(tmp_path / "source", first_seed=1000)
    words += ["--train-root", f"folder={tmp_path / 'source'}", "--dataset", "pocket[categories=gear+washer]"]
    words += ["--methods", "clip[variant=probe,iterations=2]", "--store", str(tmp_path / "store")]
    result = call(*words, "--workers", "1")
    assert result.exit_code == 0, result.output
    record = next(iter(Store(tmp_path / "store").records()))
    source = record.protocol.source
    assert source is not None
    assert source.name == "folder+pocket"
    assert [part["name"] for part in source.config["parts"]] == ["folder", "pocket"]
    assert record.inputs.sources == {"folder": tmp_path / "source", "pocket": None}
    drawn = call(
        "figure", "tsne", "--store", tmp_path / "store", "--output", tmp_path / "t.pdf", "--categories", "gear"
    )
    assert drawn.exit_code == 0, drawn.output


def test_bench_split_shows_it() -> None:
    words = ["--protocol", "auxiliary", "--train-dataset", "pocket[categories=fabric+wood]", "--category", "gear"]
    result = call("split", *words, "--dataset", "pocket[categories=gear]", "--json")
    assert result.exit_code == 0, result.output
    manifest = json.loads(result.stdout)
    assert manifest["shots"] is None
    assert set(manifest["anomalous"]) == {"fabric", "wood"}
    text = call("split", *words, "--dataset", "pocket[categories=gear]").stdout
    assert text.startswith("auxiliary · pocket[categories=gear] · gear · seed 0")


# ---------------------------------------------------------------- pocket's categories


def test_the_option_leaves_the_keys_of_plain_pocket_alone() -> None:
    plain = open_catalogue(parse_spec("pocket"), None)
    assert config_dict(plain.dataset.config) == {}
    assert hash_json(config_dict(plain.dataset.config)) == hash_json({})
    some = open_catalogue(parse_spec("pocket[categories=wood+gear]"), None)
    assert config_dict(some.dataset.config) == {"categories": ["wood", "gear"]}
    assert some.categories == ("gear", "wood")
    assert some.fingerprint != plain.fingerprint
    with pytest.raises(BenchError, match=r"unknown category 'gaer' of pocket\. Did you mean 'gear'"):
        open_catalogue(parse_spec("pocket[categories=gaer]"), None).samples  # noqa: B018


def test_the_halves_are_pocket_and_share_nothing() -> None:
    halves = [open_catalogue(parse_spec(f"pocket[half={half}]"), None) for half in "ab"]
    whole = open_catalogue(parse_spec("pocket"), None)
    assert config_dict(halves[0].dataset.config) == {"half": "a"}  # as it was asked for, since a record repeats it
    assert sorted([*halves[0].categories, *halves[1].categories]) == list(whole.categories)
    assert {**halves[0].keys, **halves[1].keys} == whole.keys
    some = open_catalogue(parse_spec("pocket[half=a,categories=wood]"), None)
    assert some.categories == ("wood",)
    with pytest.raises(BenchError, match=r"unknown category 'gear' of pocket"):
        open_catalogue(parse_spec("pocket[half=a,categories=gear]"), None).samples  # noqa: B018
    with pytest.raises(BenchError, match=r"unknown half 'c' of pocket\. Known: a, b"):
        open_catalogue(parse_spec("pocket[half=c]"), None)
