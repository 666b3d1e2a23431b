from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pages import trial
from PIL import Image
from studies import keep

from bench.cli.main import COMMANDS, main
from bench.metrics.registry import METRICS
from bench.store.store import Store


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def refused(*words: str) -> str:
    """The message of a call that must end as a user's error."""
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr


@pytest.fixture
def store(tmp_path: Path) -> list[str]:
    return ["--store", str(tmp_path / "store")]


def test_unknown_names_suggest_the_nearest(store: list[str]) -> None:
    assert "Did you mean 'promptad'" in refused("run", "--methods", "promtad", *store)
    assert "Did you mean 'pocket'" in refused("run", "--dataset", "poket", *store)
    assert "Did you mean 'cmi'" in refused("run", "--methods", "promptad[cmii=off]", *store)
    assert "Did you mean 'image_auroc'" in refused("run", "--metrics", "image_auc", *store)
    assert "Did you mean 'quick'" in refused("run", "--study", "quik", *store)
    assert "Did you mean 'transfer'" in refused("run", "--protocol", "transfr", *store)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "mvtec"], "add --data-root DIR"),
        (["--dataset", "mvtec", "--data-root", "/nonexistent"], "is not a folder"),
        (["--shots", "one"], "expected whole numbers"),
        (["--seeds", "-3,"], "none negative"),
        (["--shots", "1,1"], "is given twice"),
        (["--methods", "clip[variant"], "write NAME"),
        (["--protocol", "transfer"], "--train-dataset"),
        (["--train-dataset", "pocket"], "--protocol auxiliary or transfer"),
        (["--weights", "other=/nonexistent.safetensors", "--methods", "clip"], "unknown weights"),
        (["--weights", "/nonexistent", "--methods", "clip", "--dataset", "pocket"], "say for which, --weights"),
        (["--categories", "nothing"], "unknown category"),
        (["--prompts", "/nonexistent.yaml"], "nonexistent.yaml"),
        (["--device", "tpu"], "unknown device"),
        (["--seeds", " "], "expected whole numbers"),
        (["--methods", "promptad[lr=nan]"], "not a finite number"),
        (["--methods", "devnet", "--encoder", "pocket/clip"], "none of the methods uses the encoder pocket/clip"),
        (
            ["--methods", "clip", "--backbone", "pocket/resnet"],
            "uses the backbone pocket/resnet; leave --backbone",
        ),
        (["--methods", "clip[encoder=pocket/clip]", "--encoder", "openai/ViT-B-16"], "leave --encoder out"),
        (["--methods", "devnet", "--prompts", str(Path(__file__))], "none of the methods uses prompts"),
        (["--data-root", "a", "--data-root", "b"], "the folder of pocket is given already, a"),
        (["--data-root", "a", "--data-root", "pocket=b"], "--data-root pocket=b: the folder of pocket is given"),
        (["--weights", "x/y=a", "--weights", "x/y=b"], "--weights x/y=b: those of x/y are given already, a"),
        (["--weights", "a", "--weights", "b"], "--weights b: a file without a name is given already, a"),
        (["--protocol", "oneclass[k=4]", "--methods", "clip"], "oneclass has no options"),
    ],
)
def test_mistakes_get_one_clear_line(words: list[str], message: str, store: list[str]) -> None:
    assert message in refused("run", *words, *store)


def test_every_faulty_file_is_named_before_anything_runs(toy_root: Path, store: list[str]) -> None:
    (toy_root / "bolt/test/good/001.png").write_bytes(b"not an image")
    Image.new("L", (5, 5), 255).save(toy_root / "cloth/ground_truth/dent/002_mask.png")
    Image.new("L", (32, 32), 0).save(toy_root / "cloth/ground_truth/dent/003_mask.png")
    (toy_root / "plate/ground_truth/stain/000_mask.png").rename(toy_root / "plate/ground_truth/stain/999_mask.png")
    message = refused(
        "run", "--methods", "clip", "--dataset", "folder", "--data-root", str(toy_root),
        "--encoder", "pocket/clip", *store,
    )  # fmt: skip
    check = call("data", "check", "folder", "--data-root", str(toy_root))
    assert check.exit_code == 1
    for text in (message, check.output):
        assert "bolt/test/good/001" in text
        assert "cannot be read as an image" in text
        assert "5x5 pixels, its image 32x32" in text
        assert "marks no pixel" in text
        assert "plate" in text
    assert "nothing was run" in message


def test_data_check_counts_and_fingerprints(toy_root: Path) -> None:
    result = call("data", "check", "folder", "--data-root", str(toy_root))
    assert result.exit_code == 0
    assert "bolt: 4 train, 3 test normal, 15 test anomalous of 2 types" in result.stdout
    assert "fingerprint" in result.stdout


def test_split_prints_the_manifest(toy_root: Path) -> None:
    import json

    words = [
        "split",
        "--dataset",
        "folder",
        "--data-root",
        str(toy_root),
        "--category",
        "bolt",
        "--shots",
        "10",
    ]
    short = call(*words).stdout
    assert "8 normal, 20 anomalous" in short
    whole = json.loads(call(*words, "--json").stdout)
    assert whole["hash"] in short
    assert len(whole["test"]) == 18


def test_prompts_can_be_printed_edited_and_given_back(tmp_path: Path) -> None:
    import yaml

    content = yaml.safe_load(call("prompts", "mvtec").stdout)
    assert content["mvtec"]["metal_nut"]["label"] == "metal nut"
    assert len(content["mvtec"]) == 15


def test_table_without_a_study_says_how_to_start(store: list[str]) -> None:
    assert "start with: bench run" in refused("table", *store)


def test_a_study_file_with_a_wrong_field_is_refused(tmp_path: Path, store: list[str]) -> None:
    file = tmp_path / "mine.yaml"
    for text, message in (
        ("methods: [clip\n", "not valid YAML"),
        ("- clip\n", "expected name, methods, datasets"),
        ("method: [clip]\n", "Did you mean 'methods'"),
        ("methods: [clip]\nshots: [few]\n", "shots, item 1: expected a whole number, found the text 'few'"),
        ("methods: [clip]\nseeds: '10'\n", "expected a whole number or a list, found the text '10'"),
        ("methods: [clip]\nencoder:\n", "encoder: expected text, found nothing"),
        ("methods: [clip]\nlayout: tabel1\n", "Did you mean 'table1'"),
        ("methods: [clip]\nprotocols: []\ndatasets: [pocket]\n", "names no protocol"),
        ("methods: [clip]\n", "add --dataset NAME"),
    ):
        file.write_text(text)
        assert message in refused("run", "--study", str(file), *store)


def test_a_mistyped_category_in_a_prompt_file_is_named(tmp_path: Path, store: list[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("gearr: {label: gear, normality: a gear, descriptions: {crack: crack}}\n")
    message = refused("run", "--methods", "clip", "--categories", "gear", "--prompts", str(file), *store)
    assert "Did you mean 'gear'" in message


def test_a_table_that_cannot_be_written_is_one_clear_line(
    toy_root: Path, tmp_path: Path, store: list[str]
) -> None:
    own = ["--dataset", "folder", "--data-root", str(toy_root), "--encoder", "pocket/clip", "--workers", "0"]
    assert call("run", "--methods", "clip", "--categories", "bolt", *own, *store).exit_code == 0
    target = str(tmp_path / "missing" / "t.tex")
    assert "missing" in refused("table", "--format", "latex", "--output", target, *store)


def test_dry_run_lists_trials_and_runs_none(toy_root: Path, tmp_path: Path, store: list[str]) -> None:
    result = call(
        "run", "--methods", "clip", "--dataset", "folder", "--data-root", str(toy_root),
        "--encoder", "pocket/clip", "--dry-run", *store,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.count("to run") == 3
    assert not (tmp_path / "store" / "records").exists()


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A command line in which ``bench`` is this installation's."""
    bench = f"{shlex.quote(sys.executable)} -P -m bench"
    own = {**os.environ, **environment}
    return subprocess.run(
        command.replace("bench", bench, 1), shell=True, capture_output=True, env=own, timeout=120
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_the_output_cannot_encode_is_replaced(tmp_path: Path, store: list[str], encoding: str) -> None:
    # A record whose reason and category no Western code page has.
    records = [trial("clip", "螺丝", 1, None, 0.5), trial("clip", "mesh", 1, None, 0.25)]
    keep(Store(tmp_path / "store"), records)
    done = shell(f"bench table --store {tmp_path / 'store'}", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"mesh" in done.stdout and b"??" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("words", ["--help", "list methods", "audit"])
def test_a_full_disk_behind_the_output_is_one_line(words: str) -> None:
    done = shell(f"bench {words} > /dev/full")
    assert done.returncode == 2
    assert done.stderr.decode() == "Error: the output cannot be written: No space left on device\n"


def test_output_that_nobody_reads_to_its_end_is_no_error() -> None:
    done = shell("bench audit --columns | head -n 1")
    assert done.returncode == 0
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_one_seed_is_asked_for_by_itself(store: list[str]) -> None:
    words = ["run", "--methods", "devnet", "--categories", "wood", "--shots", "1", "--dry-run", *store]
    for seed in (["--seed", "7"], ["--seeds", "7,"]):
        result = call(*words, *seed)
        assert result.exit_code == 0, result.output
        assert "1 trial, 0 done, 1 to run" in result.stderr
        assert "seed 7" in result.stdout
    assert "exclude each other" in refused(*words, "--seed", "7", "--seeds", "3")


def test_names_that_are_unknown_come_before_their_place(store: list[str]) -> None:
    assert "unknown category 'foo' of pocket. Known: biscuit" in refused("run", "--categories", "foo", *store)
    assert "unknown option 'foo' of method promptad. Known: " in refused(
        "run", "--methods", "promptad[foo=1]", *store
    )
    assert "Did you mean" not in refused("run", "--dataset", "nope", *store)


def test_help_of_every_command_fits(tmp_path: Path) -> None:
    for name in ("", *COMMANDS):
        result = call(*([name] if name else []), "--help")
        assert result.exit_code == 0
        assert max(map(len, result.output.splitlines())) <= 100


def test_list_shows_protocols_and_metrics() -> None:
    protocols = call("list", "protocols").output
    assert protocols.startswith("protocols\n")
    assert "NOT zero-shot" in protocols and "needs --train-dataset" in protocols
    for name in ("loo", "transfer", "oneclass", "auxiliary"):
        assert f"\n  {name}" in protocols
    metrics = call("list", "metrics").output.splitlines()
    assert any(line.split()[0] == "image_auroc" and line.endswith(": image") for line in metrics[1:] if line)
    assert len([line for line in metrics[1:] if line]) == len(METRICS)
