"""Files of a finished store that are changed by hand: found, put aside, told of, run again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from drivers import STUDY, Driver, Left, place_of
from faults import Faults


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def a_digit(path: Path) -> int:
    """The place of a digit of a metric."""
    name = b'"image_auroc": '
    return path.read_bytes().index(name) + len(name)


RECORD: dict[str, Callable[[Path], object]] = {
    "record truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "record emptied": lambda path: path.write_bytes(b""),
    "bit of a metric flipped in a record": lambda path: flip(path, a_digit(path)),
    "record of another trial": lambda path: path.write_bytes(min(path.parent.parent.rglob("*.json")).read_bytes()),
    "record overwritten with zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}
SCORES: dict[str, Callable[[Path], object]] = {
    "scores missing": Path.unlink,
    "scores truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "bit flipped in scores": lambda path: flip(path, -1),
    "bit flipped in the names of the scored images": lambda path: flip(path, 60),
}


def test_what_is_damaged_is_found_put_aside_and_run_again(
    driver: Driver, undisturbed: tuple[Driver, Left], faults: Faults
) -> None:
    sound, reference = undisturbed
    shutil.copytree(sound.store, driver.store)
    journaled = sorted(k for k, r in reference.records.items() if r["trial"]["method"]["name"] == "toy-journal")
    chosen = dict(
        zip([*RECORD, *SCORES], random.Random(1).sample(journaled[1:], len(RECORD) + len(SCORES)), strict=True)
    )
    for what, key in chosen.items():
        if what in RECORD:
            RECORD[what](driver.store / f"records/{key[:2]}/{key}.json")
        else:
            SCORES[what](driver.store / f"scores/{key[:2]}/{key}.safetensors")
    code, _, said = driver.call(driver.start("rescore", "--metric-protocol", "grid200"))
    assert code == 1 and "Traceback" not in said
    damaged = len(chosen) - 1  # a file that is missing cannot be put aside
    assert said.count("was damaged; it is put aside as") == damaged
    assert f"not measured: {len(SCORES)} trial" not in said  # each names its own
    assert sum("not measured: 1 trial: scores of trial" in line for line in said.splitlines()) == len(SCORES)
    before = driver.left()
    code, _, said = driver.run(*STUDY)
    assert code == 0, said
    assert f"{len(reference.records)} trials, {len(reference.records) - len(chosen)} done" in said
    again, left = driver.carried_out(), driver.left()
    places = {what: place_of(reference.records[key]) for what, key in chosen.items()}
    for what, key in chosen.items():
        same = left.records.get(key) == reference.records[key] and left.scores.get(key) == reference.scores[key]
        noticed = again[places[what]]
        faults.add(what, 1, int(same), int(key not in left.records), int(not noticed), max(0, noticed - 1))
    assert left.records.keys() == reference.records.keys() and left.scores == reference.scores
    assert again == dict.fromkeys(places.values(), 1)
    assert len(list(driver.store.rglob("*.corrupt"))) == damaged
    others = before.files.keys() - set(chosen.values())
    assert left.torn == left.twice == 0 and len(others) == len(reference.records) - len(chosen)
    assert all(left.files[key] == before.files[key] for key in others)


def test_a_damaged_study_is_no_wrong_table(
    driver: Driver, undisturbed: tuple[Driver, Left], faults: Faults
) -> None:
    shutil.copytree(undisturbed[0].store, driver.store)
    (study,) = driver.store.glob("studies/*.json")
    flip(study, study.read_bytes().index(b'"keys"') + 20)  # one trial more would be missing from every mean
    code, output, said = driver.call(driver.start("table"))
    assert code == 2 and output == "" and "was damaged; it is put aside" in said
    code, _, _ = driver.run(*STUDY)
    left = driver.left()
    survived = code == 0 and left == undisturbed[0].left() and not driver.carried_out()
    faults.add("bit flipped in a study's list of trials", 1, int(survived))
    assert survived
