"""``bench.run`` and ``bench.Results``: a study from Python, and what a notebook shows of it."""

from __future__ import annotations

import builtins
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from rich.console import Console

import bench
from bench.api import progress
from bench.cli.main import main
from bench.errors import BenchError
from bench.report.tables.formats import render

RUN = Callable[..., bench.Results]
METHODS = ["toy-brightness", "toy-learner"]


@pytest.fixture
def run(toy_root: Path, tmp_path: Path, plugin: Path) -> RUN:
    """``bench.run`` in this process, on the toy data."""

    def call(methods: Any = METHODS, **options: Any) -> bench.Results:
        options = {"shots": 1, "workers": 0, "store": tmp_path / "store", **options}
        return bench.run(methods=methods, dataset="folder", data_root=toy_root, **options)

    return call


class Events:
    """A listener that writes down what it is told."""

    def __init__(self, stop_after: int = 1000) -> None:
        self.steps, self.ended, self.stop_after = 0, list[str](), stop_after

    def report(self, job: Any, description: str, count: int, total: int) -> None:
        self.steps += 1

    def finished(self, task: Any, status: str, reason: str | None) -> None:
        self.ended.append(f"{status} {task.title}")
        if len(self.ended) == self.stop_after:
            raise KeyboardInterrupt

    def fitted(self, fit: Any, status: str, reason: str | None) -> None: ...

    def waiting(self, number: int) -> None: ...


def test_a_study_from_python_is_the_one_of_the_command_line(run: RUN, toy_root: Path, tmp_path: Path) -> None:
    results = run(seeds=2, categories=["bolt", "cloth"])
    words = ["--dataset", "folder", "--data-root", str(toy_root), "--store", str(tmp_path / "other")]
    words += ["--methods", ",".join(METHODS), "--categories", "bolt,cloth", "--shots", "1", "--seeds", "2"]
    done = CliRunner().invoke(main, ["run", *words, "--workers", "0"])
    assert done.exit_code == 0, done.output
    other = bench.Results(store=tmp_path / "other")
    assert other.name == results.name
    ours = {record.key: record.value("image_auroc") for record in results.records}
    assert ours == {record.key: record.value("image_auroc") for record in other.records}
    assert len(ours) == 2 * (1 + 2)
    assert render(results.table("image_auroc"), "terminal", width=80) in done.stdout


def test_tables_figures_frame_and_page(run: RUN, tmp_path: Path) -> None:
    results = run(name="mine", seeds=2)
    assert repr(results) == "<study mine: 9 trials: 9 done>"
    table = results.table("image_auroc")
    assert [column.head for column in table.columns] == ["Brightness", "Learner"]
    assert [column.head for column in results.table(methods="toy-learner").columns] == ["Learner"]
    assert [each.metric for each in results.tables(["image_ap", "pixel_auroc"])] == ["image_ap", "pixel_auroc"]
    frame = results.frame()
    assert len(frame) == 9
    assert frame.equals(bench.results("mine", store=tmp_path / "store"))
    for kind in ("maps", "categories", "curves"):
        figure = results.figure(kind)  # type: ignore[arg-type]
        assert isinstance(figure, Figure)
        # What a notebook asks an object for; pyplot, which teaches it to draw figures, was never imported.
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert isinstance(results.figure("tsne", methods=["toy-learner"], categories="bolt", workers=0), Figure)
    page = results.save_page(tmp_path / "study.html", images=0)
    assert "<title>" in page.read_text()


def test_what_a_notebook_shows(run: RUN) -> None:
    results = run([*METHODS, "toy-faulty[how=raise]"], name="a&b", seeds=2)
    table = results.table("image_auroc", methods=METHODS)
    html = table._repr_html_()
    assert html.count("<tr") == 2 + 3 + 1  # heads, categories, average
    cell = table.rows[0].cells[0]
    assert f"{cell.mean:.3f}" in html
    assert "1-shot" in html and "image AUROC" in html.partition("<table")[0]
    assert "<small>±" in html
    assert "<b>" in html.partition("<tbody>")[2]
    whole = results._repr_html_()
    assert "study a&amp;b: 12 trials: 9 done, 3 failed" in whole
    assert whole.count("boom at layer 3") == 3 + whole.split("<table", 1)[1].count("boom at layer 3")
    assert whole.count("<table") == 2


def test_trials_that_fail_are_told_and_the_rest_goes_on(run: RUN, capsys: pytest.CaptureFixture[str]) -> None:
    results = run(["toy-faulty[how=raise]", "toy-brightness"], categories="bolt")
    (failure,) = results.failures
    assert failure.method.name == "toy-faulty"
    assert "boom at layer 3" in failure.reason
    assert results.counts == {"done": 1, "failed": 1}
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert any(line.startswith("1/2 toy-faulty") and "failed: " in line and "boom" in line for line in lines)
    assert any(line.startswith("2/2 toy-brightness · bolt: ok, ") for line in lines)


def test_lines_of_a_notebook_are_output_and_not_errors(
    run: RUN, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "get_ipython", lambda: SimpleNamespace(kernel=None), raising=False)
    run(["toy-brightness"])
    said = capsys.readouterr()
    assert "3/3 toy-brightness · " in said.out
    assert said.err == ""


def test_a_bar_is_drawn_on_a_terminal(
    run: RUN, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(progress, "terminal", lambda: console)
    run(["toy-brightness"])
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "━" in drawn and "3/3" in drawn
    assert "toy-brightness · bolt" not in capsys.readouterr().err  # no lines beside the bar


def test_a_listener_is_told_of_everything(run: RUN, capsys: pytest.CaptureFixture[str]) -> None:
    events = Events()
    run(listener=events, seeds=[3])
    assert len(events.ended) == 6
    assert "ok toy-learner · bolt · 1-shot · seed 3" in events.ended
    assert events.steps > 6
    assert "3/6" not in capsys.readouterr().err


def test_an_interrupted_run_goes_on_where_it_was(run: RUN, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="4 of 6 trials left"):
        run(listener=Events(stop_after=2))
    results = bench.Results(store=tmp_path / "store")
    assert results.counts == {"done": 2, "missing": 4}
    assert results.frame()["status"].value_counts().to_dict() == {"missing": 4, "ok": 2}
    events = Events()
    assert run(listener=events).counts == {"done": 6}
    assert len(events.ended) == 4


def test_options_have_pythons_types(run: RUN, tmp_path: Path) -> None:
    results = run(
        "toy-learner", settings={"steps": 1}, seeds=np.array([0, 7]), shots=[1, 10], categories=("bolt",)
    )
    assert {(record.shots, record.seed) for record in results.records} == {(1, 0), (1, 7), (10, 0), (10, 7)}
    assert {record.method.label for record in results.records} == {"toy-learner[steps=1]"}
    study = tmp_path / "own.yaml"
    study.write_text("methods: toy-brightness\ndatasets: folder\ncategories: cloth\n")
    again = bench.run(study, data_root={"folder": tmp_path / "toy"}, store=tmp_path / "store", workers=0)
    assert again.name == "own"
    assert [record.category for record in again.records] == ["cloth"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["toy-lerner"]}, "Did you mean 'toy-learner'"),
        ({"categories": ["bold"]}, "Did you mean 'bolt'"),
        ({"shots": ["one"]}, "expected whole numbers"),
        ({"seeds": []}, "expected whole numbers"),
        ({"executor": "locla"}, "Did you mean 'local'"),
        ({"precision": "hihg"}, "Did you mean 'high'"),
        ({"workers": -1}, "-1 workers"),
        ({"together": 0}, "fits each alone"),
        ({"device": "tpu"}, "unknown device"),
        ({"name": "../x"}, "cannot be called"),
        ({"data_root": {"mvtec": "x"}}, "unknown dataset 'mvtec' of the study"),
        ({"train_root": "x"}, "goes with"),
    ],
)
def test_mistakes_are_users_errors(
    run: RUN, toy_root: Path, tmp_path: Path, plugin: Path, options: dict[str, Any], message: str
) -> None:
    given = {"methods": ["toy-learner"], "dataset": "folder", "data_root": toy_root, **options}
    with pytest.raises(BenchError, match=message):
        bench.run(**given, store=tmp_path / "store")


def test_mistakes_about_results_are_users_errors(run: RUN, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no study was run"):
        bench.Results(store=tmp_path / "none")
    results = run(["toy-brightness"])
    with pytest.raises(BenchError, match="unknown study"):
        bench.Results("another", store=tmp_path / "store")
    with pytest.raises(BenchError, match="Did you mean 'image_auroc'"):
        results.table("image_auroq")
    with pytest.raises(BenchError, match="no such table among: folder under loo"):
        results.table(dataset="mvtec")
    with pytest.raises(BenchError, match="Did you mean 'maps'"):
        results.figure("mpas")  # type: ignore[arg-type]
    with pytest.raises(BenchError, match="leave metric out"):
        results.figure("maps", metric="image_auroc")


def test_a_script_that_does_not_ask_for_its_name_runs_once(toy_root: Path, tmp_path: Path, plugin: Path) -> None:
    """Workers are spawned: they must not run the script that has started them."""
    script = tmp_path / "study.py"
    script.write_text(
        "import bench\nprint('script')\n"
        f"r = bench.run(methods='toy-brightness', dataset='folder', data_root={str(toy_root)!r}, "
        f"store={str(tmp_path / 'store')!r}, workers=1)\nprint(r.counts['done'])\n"
    )
    done = subprocess.run([sys.executable, "-P", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["script", "3"]


def test_importing_bench_stays_free_of_what_it_does_not_need() -> None:
    code = (
        "import sys, bench\n"
        "assert not {'numpy', 'pandas', 'torch', 'rich', 'click'} & {*sys.modules}\n"
        "bench.run; bench.Results\n"
        "assert not {'torch', 'matplotlib', 'pandas', 'click'} & {*sys.modules}\n"
        "assert {'run', 'Results', 'results', 'evaluate'} <= {*dir(bench)}\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=60)
