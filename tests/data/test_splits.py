from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.contracts import SplitProtocol
from bench.data.catalogue import Catalogue, open_catalogue
from bench.data.splits import Manifest, ProtocolConfig, check_leakage, check_source, draw, load_protocol, split
from bench.errors import BenchError
from bench.tools.spec import Spec, parse_spec


def catalogue(root: Path) -> Catalogue:
    return open_catalogue(Spec("folder"), root)


def of(protocol: str, **options: Any) -> SplitProtocol:
    return load_protocol(Spec(protocol, {name: str(value) for name, value in options.items()}))


def make(
    target: Catalogue,
    category: str = "bolt",
    shots: int | None = 1,
    seed: int = 0,
    *,
    normals: bool = False,
    protocol: str = "loo",
    **options: Any,
) -> Manifest:
    return split(
        of(protocol, **options),
        target=target,
        source=target,
        category=category,
        shots=shots,
        seed=seed,
        normals=normals,
    )


def test_a_manifest_as_plain_values(toy_root: Path) -> None:
    manifest = make(catalogue(toy_root), shots=2)
    plain = manifest.as_dict()
    assert plain == dataclasses.asdict(manifest)
    assert json.loads(json.dumps(plain))["anomalous"]["cloth"]["ids"] == list(manifest.anomalous["cloth"].ids)


def test_the_target_stays_out_of_training_and_is_tested_whole(toy_root: Path) -> None:
    manifest = make(catalogue(toy_root), shots=10)
    assert len(manifest.normal) == 8
    assert not any(id_.startswith("bolt/") for id_ in manifest.train)
    assert len(manifest.test) == 3 + 12 + 3
    assert all(id_.startswith("bolt/test/") for id_ in manifest.test)
    assert {c: len(d.ids) for c, d in manifest.anomalous.items()} == {"cloth": 10, "plate": 10}
    assert all(len(d.types) == 1 for d in manifest.anomalous.values())


def test_draws_do_not_depend_on_the_target_and_ten_shots_contain_the_one(toy_root: Path) -> None:
    data = catalogue(toy_root)
    for seed in range(5):
        by_target = [make(data, c, 10, seed).anomalous["plate"] for c in ("bolt", "cloth")]
        assert by_target[0] == by_target[1]
        assert make(data, "bolt", 1, seed).anomalous["plate"].ids == by_target[0].ids[:1]


def test_seeds_differ_and_repeat(toy_root: Path) -> None:
    data = catalogue(toy_root)
    firsts = {make(data, seed=seed).anomalous["plate"].ids for seed in range(8)}
    assert len(firsts) > 1
    assert make(data, seed=3).hash == make(catalogue(toy_root), seed=3).hash
    assert make(data, seed=3).hash != make(data, seed=4).hash


def test_types_with_too_few_images_are_dropped_padded_or_pooled(toy_root: Path) -> None:
    data = catalogue(toy_root)
    for seed in range(6):  # "stain" has three images only
        assert draw(data, "plate", 10, seed, ProtocolConfig()).types == ("dent",)
    padded = [draw(data, "plate", 10, seed, ProtocolConfig(short="pad")) for seed in range(12)]
    assert {d.types for d in padded} == {("dent",), ("dent", "stain")}
    assert all(len(set(d.ids)) == 10 for d in padded)
    pooled = draw(data, "plate", 15, 0, ProtocolConfig(types="all"))
    assert len(set(pooled.ids)) == 15
    assert pooled.types == ("dent", "stain")


def test_a_category_with_fewer_anomalies_than_shots_gives_all_of_a_type_and_says_so(toy_root: Path) -> None:
    for number in range(3, 12):
        (toy_root / "plate/test/dent" / f"{number:03}.png").unlink()
        (toy_root / "plate/ground_truth/dent" / f"{number:03}_mask.png").unlink()
    data = catalogue(toy_root)
    drawn = [draw(data, "plate", 10, seed, ProtocolConfig()) for seed in range(12)]
    assert {d.types for d in drawn} == {("dent",), ("stain",)}  # equals: the seed chooses
    assert all(len(d.ids) == 3 and "3 labelled anomalies instead of 10" in d.note for d in drawn)
    assert "3 labelled anomalies" in make(data, "bolt", 10).notes[0]


def test_a_seen_category_without_anomalies_is_noted(toy_root: Path) -> None:
    shutil.rmtree(toy_root / "plate/test/dent")
    shutil.rmtree(toy_root / "plate/test/stain")
    shutil.rmtree(toy_root / "plate/ground_truth")
    manifest = make(catalogue(toy_root), shots=10)
    assert manifest.anomalous["plate"].ids == ()
    assert "plate: no anomalous image" in manifest.notes[0]


def test_methods_that_do_not_learn_get_no_training_images(toy_root: Path) -> None:
    manifest = make(catalogue(toy_root), shots=None)
    assert manifest.train == ()
    assert len(manifest.test) == 18


def test_a_single_seen_category(toy_root: Path) -> None:
    data = catalogue(toy_root)
    chosen = [tuple(make(data, seed=seed, seen="single").anomalous) for seed in range(8)]
    assert all(len(names) == 1 for names in chosen)
    assert set(itertools.chain(*chosen)) == {"cloth", "plate"}


def test_support_images_nest_and_leave_the_test_set_if_they_come_from_it(toy_root: Path) -> None:
    data = catalogue(toy_root)
    two, three = (make(data, k=k).support for k in (2, 3))
    assert three[:2] == two
    assert all(id_.startswith("bolt/train/good/") for id_ in three)
    assert len(make(data, k=2).test) == 18
    removed = make(data, k=2, k_source="test_good")
    assert len(removed.test) == 16
    assert not set(removed.support) & set(removed.test)
    with pytest.raises(BenchError, match="5 normal images are asked for, but train has 4"):
        make(data, k=5)


def test_transfer_learns_from_every_category_of_the_other_dataset(toy_root: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_root / "bolt", tmp_path / "other" / "bolt")
    source, target = catalogue(toy_root), catalogue(tmp_path / "other")
    manifest = split(of("transfer"), target=target, source=source, category="bolt", shots=1, seed=0)
    assert set(manifest.anomalous) == {"bolt", "cloth", "plate"}
    with pytest.raises(BenchError, match="no category but 'bolt'") as caught:
        make(target)
    for way_out in ("--protocol auxiliary", "--protocol transfer", "--methods clip,winclip", "bench predict"):
        assert way_out in str(caught.value)
    leaky = [
        split(of("transfer"), target=target, source=source, category="bolt", shots=1, seed=seed)
        for seed in range(3)
    ]
    for each in leaky:  # this "bolt" is a copy, and its labelled anomaly is among the test images
        with pytest.raises(BenchError, match="leakage"):
            check_leakage(each, target=target, source=source)


def test_normals_without_labelled_anomalies(toy_root: Path) -> None:
    data = catalogue(toy_root)
    manifest = make(data, shots=None, normals=True)
    assert manifest.normal == make(data, shots=1).normal
    assert manifest.anomalous == {}
    assert (manifest.shots, manifest.seed) == (None, 0)


def test_one_class_gives_all_training_normals_of_the_target_and_nothing_else(toy_root: Path) -> None:
    data = catalogue(toy_root)
    for shots, normals in ((None, False), (10, True)):
        manifest = make(data, shots=shots, normals=normals, protocol="oneclass")
        assert manifest.support == tuple(f"bolt/train/good/{number:03}" for number in range(4))
        assert manifest.train == ()
        assert len(manifest.test) == 18
    with pytest.raises(BenchError, match="oneclass has no options"):
        make(data, protocol="oneclass", k=2)
    shutil.copy(toy_root / "bolt/test/good/000.png", toy_root / "bolt/train/good/900.png")
    leaky = catalogue(toy_root)
    with pytest.raises(BenchError, match=r"leakage.*bolt/test/good/000"):
        check_leakage(make(leaky, shots=None, protocol="oneclass"), target=leaky, source=leaky)


def test_leakage_by_a_byte_identical_copy_is_found(toy_root: Path) -> None:
    shutil.copy(toy_root / "bolt/test/good/000.png", toy_root / "cloth/train/good/900.png")
    data = catalogue(toy_root)
    with pytest.raises(BenchError, match=r"leakage.*bolt/test/good/000.*cloth/train/good/900"):
        check_leakage(make(data), target=data, source=data)
    check_leakage(make(data, "plate"), target=data, source=data)


def test_leakage_by_a_tile_of_the_same_photograph_is_found(toy_root: Path) -> None:
    import dataclasses

    data = catalogue(toy_root)
    manifest = make(data)
    for id_ in (manifest.normal[0], manifest.test[0]):
        data.samples[id_] = dataclasses.replace(data.samples[id_], group="strip 7")
    with pytest.raises(BenchError, match="part of the same photograph"):
        check_leakage(manifest, target=data, source=data)


def test_neutral_order_does_not_follow_the_labels(toy_root: Path) -> None:
    data = catalogue(toy_root)
    manifest = make(data)
    labels = data.labels(data.in_neutral_order(manifest.test)).tolist()
    assert labels not in (sorted(labels), sorted(labels, reverse=True))


PINNED = {
    "transfer": "6244f3c235169a12251f1af233039e09675834b68486eaf2ae75ebc69e5109ac",
    "transfer[types=all]": "fea622d7e760a5e61222e379aca22da3eab4fcb17bb274f3291d14037bfc20fd",
    "transfer[seen=single]": "254652372a99fcb5a5e5f157e444941e7e3faf288f7ee92e8587209a752e578e",
    "transfer[k=4]": "08c14731a545abc9504f29a782a1008132f8595bd2cc657c79d7e5169f620931",
}


@pytest.mark.parametrize("label", PINNED)
def test_the_splits_of_transfer_stay_what_they_are(label: str) -> None:
    """What earlier versions drew; the split alone, which may be made of one dataset twice."""
    pocket = open_catalogue(Spec("pocket"), None)
    protocol = load_protocol(parse_spec(label))
    manifest = split(protocol, target=pocket, source=pocket, category="wood", shots=10, seed=3)
    assert manifest.hash == PINNED[label]


def test_training_normals_of_the_target_are_not_to_be_found_in_a_seen_category(toy_root: Path) -> None:
    """Neither as a copy in another category of the dataset nor in the dataset learned from."""
    shutil.copy(toy_root / "bolt/train/good/000.png", toy_root / "cloth/train/good/900.png")
    data = catalogue(toy_root)
    with pytest.raises(BenchError, match=r"leakage.*target category's image bolt/train/good/000.*cloth/train"):
        check_leakage(make(data, shots=None, normals=True), target=data, source=data)
    check_leakage(make(data, "plate"), target=data, source=data)


@pytest.mark.parametrize("part", ["train/good", "test/good", "test/dent"])
def test_a_source_must_hold_no_image_of_the_target_category(part: str, toy_root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "thing"
    shutil.copytree(toy_root / "cloth", other)
    target, clean = catalogue(toy_root), catalogue(other.parent)
    check_source("transfer", clean, target, ["bolt", "plate"])
    with pytest.raises(BenchError, match="images of cloth in folder are in folder"):
        check_source("transfer", clean, target, ["bolt", "cloth"])
    shutil.copy(toy_root / "bolt" / part / "001.png", other / "train/good/900.png")
    with pytest.raises(BenchError, match=rf"leakage: .*bolt/{part}/001 is thing/train/good/900.*--categories"):
        check_source("transfer", catalogue(other.parent), target, ["bolt", "plate"])
    check_source("transfer", catalogue(other.parent), target, ["plate"])
