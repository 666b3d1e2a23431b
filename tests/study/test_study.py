"""The shipped studies of the paper's tables, and what shortens and changes them."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench.cli.main import main
from bench.data.splits import ProtocolConfig
from bench.errors import BenchError
from bench.report.tables.paper import LAYOUTS
from bench.store.store import Store
from bench.study.files import load_study, shipped_studies, study_schema
from bench.study.plan import prepare
from bench.study.sources import parse_sources
from bench.study.study import Study, set_options
from bench.tools.registry import METHODS
from bench.tools.spec import build_config, label, parse_spec

PAPER = ("table1", "table2", "table3", "table4")


def study(name: str, **changes: object) -> Study:
    fields = {"datasets": (parse_spec("pocket"),), "categories": ("wood",), "seeds": (0,), **changes}
    return Study(**load_study(name) | fields)


def call(*words: str) -> Result:
    return CliRunner().invoke(main, ["run", *words])


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_studies_have_its_seeds_shots_and_full_training(name: str) -> None:
    assert name in shipped_studies()
    fields = load_study(name)
    assert fields["layout"] == name
    assert fields["seeds"] == tuple(range(10))
    assert fields["shots"] == (1, 10)
    assert "datasets" not in fields
    lengths = ("iters", "epochs", "steps_per_epoch", "iterations")
    for spec in fields["methods"]:
        cls = METHODS.load(spec.name)
        config = build_config(cls.Config, spec)
        assert all(getattr(config, field, None) == getattr(cls.Config(), field, None) for field in lengths)


def test_cross_learns_on_visa_for_mvtec_and_on_mvtec_for_the_rest() -> None:
    fields = load_study("cross")
    learned_from = {spec.name: str(*fields["source"].of(spec.name)) for spec in fields["datasets"]}
    assert learned_from.pop("mvtec") == "visa"
    assert {*learned_from.values()} == {"mvtec"} and "visa" in learned_from
    assert [str(spec) for spec in fields["protocols"]] == ["auxiliary"]
    assert fields["layout"] == "cross"


def test_table_3_gives_k_normals_from_both_parts(tmp_path: Path) -> None:
    plan = prepare(study("table3", shots=(1,)), Store(tmp_path))
    given = {(m.options["k"], m.options["k_source"]) for m in plan.manifests.values()}
    assert given == {(k, part) for k in (2, 4, 8) for part in ("train_good", "test_good")}
    assert len(plan.tasks) == 6 * 5
    for manifest in plan.manifests.values():
        assert len(manifest.support) == manifest.options["k"]
        assert not {*manifest.support} & {*manifest.test}
    few_shot = {task.method.partition("[")[0]: task.method for task in plan.tasks}
    assert "few_shot=both" in few_shot["clip"]
    assert "ref_source=target" in few_shot["dra"]
    assert "few_shot=on" in few_shot["winclip"]


PINNED = {
    ("clip", "loo"): "08e92084d641685fe8832063bfd4d69953734850b3d698a9467e6894bc91b082",
    ("devnet", "loo"): "bdde918ea249237e926d2bca9cfed18d241594320b1e38f16b208161fa558fdb",
    ("clip", "loo[types=all]"): "26ffbd17cf1db841a5c50fb81cfb379d65c199379523ce65d106c0415651940a",
    ("devnet", "loo[types=all]"): "6ca307037d124a123b92754386c22f313dc657023f776168ed1c47f491be5ba1",
    ("devnet", "loo[seen=single]"): "05363689461cc3148986203f36c4c5066b9408d6e8c073cf3a50325f6591aaf1",
    ("devnet", "loo[short=pad]"): "0cbef791518a32e5562d92de9a6b7672708232b64c5933398536a4e25fb27c79",
    ("clip", "loo[k=4]"): "fe6f7f2ab7d7b1ff1a6a08dd0bc5d11ddc1428cbcc6df8dccff4e825c7fc93cc",
    ("devnet", "loo[k=2,k_source=test_good]"): "6cc7327999f53feac1f54717676e8708992c4f613a72e06852a6b6bce5004e11",
    ("clip", "oneclass"): "6f16c19a3be1a880b12fd826417becf3dec8ae7f4ddda79dfc022090ece72c99",
    ("devnet", "oneclass"): "af1c9bc8ad9df63f24301a787c36095f9c1e238ab50b05a3b20b218a83349267",
}


@pytest.mark.parametrize(("method", "protocol"), PINNED)
def test_keys_of_trials_stay_what_they_are(method: str, protocol: str, tmp_path: Path) -> None:
    """A store of an earlier version goes on being used: its trials are found under the same keys."""
    chosen = Study(
        "s",
        (parse_spec(method),),
        (parse_spec("pocket"),),
        (parse_spec(protocol),),
        shots=(10,),
        seeds=(3,),
        categories=("wood",),
    )
    (task,) = prepare(chosen, Store(tmp_path)).tasks
    assert task.key == PINNED[method, protocol]


def test_every_trials_command_names_its_own_protocol(tmp_path: Path) -> None:
    for task in prepare(study("table3", shots=(1,)), Store(tmp_path)).tasks:
        words = shlex.split(task.command)
        assert words[words.index("--protocol") + 1] == task.protocol
        spec = parse_spec(task.protocol)
        assert label(spec.name, build_config(ProtocolConfig, spec, "protocol")) == task.protocol


def test_a_dataset_to_learn_from_concerns_transfer_alone(toy_root: Path, tmp_path: Path) -> None:
    both = (parse_spec("loo"), parse_spec("transfer"))
    changes = {"protocols": both, "source": parse_sources("folder"), "methods": (parse_spec("devnet"),)}
    changes["roots"] = {"train:folder": toy_root}
    plan = prepare(study("table1", shots=(1,), **changes), Store(tmp_path))
    loo, transfer = plan.tasks
    assert (loo.protocol, loo.source, transfer.protocol, transfer.source) == ("loo", None, "transfer", "folder")
    assert "--train-dataset" not in loo.command
    assert "--train-dataset folder" in transfer.command
    with pytest.raises(BenchError, match="--protocol auxiliary or transfer"):
        prepare(dataclasses.replace(plan.study, protocols=both[:1]), Store(tmp_path))


def test_table_4_switches_components_on_one_after_the_other() -> None:
    on = []
    for spec in load_study("table4")["methods"]:
        config = build_config(METHODS.load("promptad").Config, spec)
        on.append([part for part in ("abn", "nor", "ccl", "cmi") if getattr(config, part)])
    assert on == [["abn"], ["nor"], ["abn", "nor"], ["abn", "nor", "ccl"], ["abn", "nor", "ccl", "cmi"]]


# ---------------------------------------------------------------- the schema of a study file


def test_the_schema_describes_every_field() -> None:
    schema = study_schema()["$defs"]["StudyFile"]
    own = {field.name for field in dataclasses.fields(Study)} - {"roots", "weights", "device", "precision"}
    assert set(schema["properties"]) == own
    assert not schema["additionalProperties"]
    assert all(len(field["description"]) > 20 for field in schema["properties"].values())
    assert schema["properties"]["layout"]["enum"] == sorted(LAYOUTS)
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in guide for name in own)


def test_help_and_lists_validate_nothing() -> None:
    code = "import sys; from bench.cli.main import main\ntry: main(['list', 'studies'])\nexcept SystemExit: pass\n"
    code += "print(*{'msgspec', 'yaml'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "table4" in done.stdout
    assert done.stdout.splitlines()[-1] == ""


# ---------------------------------------------------------------- options of all methods at once


def test_options_are_set_in_every_method_that_has_them() -> None:
    methods = [parse_spec(text) for text in ("clip", "dra[epochs=9]", "mlep", "promptad[cmi=off]")]
    changed = set_options(methods, ["epochs=2", "promptad.iters=60", "dra.n_ref=3"])
    assert [str(spec) for spec in changed] == [
        "clip",
        "dra[epochs=2,n_ref=3]",
        "mlep[epochs=2]",
        "promptad[cmi=off,iters=60]",
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("itres=2", r"no option 'itres' in clip, promptad; did you mean 'iters'\?"),
        ("promtad.iters=2", "Did you mean 'promptad'"),
        ("clip.iters=2", "no option 'iters' in clip"),
        ("iters", "write option=value"),
        ("iters=", "write option=value"),
        ("=2", "write option=value"),
    ],
)
def test_settings_that_concern_nothing_are_refused(setting: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        set_options([parse_spec("clip"), parse_spec("promptad")], [setting])


# ---------------------------------------------------------------- from the command line


def test_a_paper_study_takes_its_dataset_and_changes_from_the_command_line(tmp_path: Path) -> None:
    own = ["--dry-run", "--store", str(tmp_path)]
    missing = call("--study", "table1", *own)
    assert missing.exit_code == 2
    assert "add --dataset NAME" in missing.stderr
    changes = ["--dataset", "pocket", "--seeds", "1", "--shots", "10", "--categories", "wood,mesh"]
    result = call("--study", "table1", *changes, "--set", "iters=60,epochs=2", *own)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 2 * 5
    assert "promptad[encoder=pocket/clip,iters=60] · wood · 10-shot · seed 0" in result.stdout
    assert "study table1-pocket-" in result.stderr
    several = call("--study", "table3", *changes, "--protocol", "loo[k=2],loo[k=1,k_source=test_good]", *own)
    assert len(several.stdout.splitlines()) == 2 * 2 * 5


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_studies_run_and_end_in_their_tables(name: str, toy_root: Path, tmp_path: Path) -> None:
    short = "iters=2,ffn=32" if name == "table4" else "iters=2,ffn=32,epochs=1,steps_per_epoch=2,batch_size=6"
    words = ["--study", name, "--dataset", "folder", "--data-root", str(toy_root), "--categories", "bolt"]
    words += ["--encoder", "pocket/clip", "--seeds", "1", "--shots", "1"]
    words += ["--backbone", "pocket/resnet"] if name != "table4" else []  # PromptAD alone, which has none
    words += ["--protocol", "loo[k=2],loo[k=1,k_source=test_good]"] if name == "table3" else []
    result = call(*words, "--set", short, "--workers", "0", "--store", str(tmp_path / "store"))
    assert result.exit_code == 0, result.output
    records = [*Store(tmp_path / "store").documents()]
    assert len(records) == (10 if name == "table3" else 5)
    assert {record["status"] for record in records} == {"ok"}
    assert "Non-default options:" in result.stdout
    first = {"table1": "Category", "table2": "Method", "table3": "K", "table4": "ABN"}[name]
    assert any(line.startswith(first) for line in result.stdout.splitlines())
    assert "missing" in result.stdout  # the 10-shot trials of the paper
