"""What a run shows while it goes on: on a terminal of any width, and where there is none."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console
from trial_records import record

from bench.api import progress
from bench.api.progress import PAUSE, SILENCE, ProgressListener, TimeLeft
from bench.cli.main import main
from bench.store.record import Record
from bench.study.estimate import Duration

METHOD = "promptad[encoder=pocket/clip,ffn=64,iters=20]"


def task(key: str = "a", method: str = METHOD) -> Any:
    return SimpleNamespace(key=key, method=method, title=f"{method} · wood · 10-shot · seed 0", fit_key="")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that is set by hand: its only item."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "can_share", lambda task: False)
    return now


def known(**seconds: float) -> Any:
    """Durations by key; trials that finish add nothing."""
    found = {key: Duration(0.0, value, False, frozenset()) for key, value in seconds.items()}
    return SimpleNamespace(of=lambda task: found.get(task.key), add=lambda record: None)


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


# ------------------------------------------------------------ on a terminal


@pytest.mark.parametrize("width", [50, 80, 130])
def test_bar_count_and_time_left_survive_at_any_width(width: int, clock: list[float]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    listener = ProgressListener(console, 45, 30, todo=[task()], durations=known(a=400.0))
    listener.report(task(), "train", 0, 2000)
    clock[0] += 1490
    listener.report(task(), "train", 1490, 2000)
    with console.capture() as captured:
        console.print(listener._progress.get_renderable())
    overall, row = captured.get().splitlines()
    assert len(overall) <= width >= len(row)
    assert re.search(r"━{4,}.* 30/45 +0:08:30 *$", overall)
    assert re.search(r"━{4,}.* 1490/2000 +-:--:-- *$", row)
    assert "promptad" in row and "wood" in row  # the options are cut first
    assert ("iters=20" in row) == (width == 130)


# ------------------------------------------------------------ elsewhere


def test_a_line_for_each_trial_that_ends(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    made = record("clip", value=0.6917)
    made["provenance"] = {"seconds": {"total": 12.4}}
    todo = [task("a", "clip"), task("b"), task("c")]
    listener = ProgressListener(
        plain(), 10, 7, todo=todo, durations=known(a=9, b=200.0), record=lambda _: Record.of(made)
    )
    with listener:
        for each in todo:
            listener.report(each, "starts", 0, 0)
        listener.finished(todo[0], "ok", None)
        listener.finished(todo[2], "failed", "ran out\x1b[31m\nof paper")
        clock[0] += 20
        listener.finished(todo[1], "skipped", "no anomaly")
    shown = capsys.readouterr()
    assert shown.out == ""
    title = "wood · 10-shot · seed 0"
    assert shown.err.splitlines() == [
        f"8/10 clip · {title}: ok, 12 s, image AUROC 0.692, more than 3 min left",
        f"9/10 {METHOD} · {title}: failed: ran out\\x1b[31m of paper, 1 s, about 3 min left",
        f"10/10 {METHOD} · {title}: skipped: no anomaly, 20 s",
    ]


def test_a_long_trial_is_heard_of_now_and_then(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    listener = ProgressListener(plain(), 1, 0)
    for count in range(2000):  # a step a second
        listener.report(task(), "train", count, 2000)
        clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 9  # one for each 10 %
    assert lines[0] == f"{task().title}: train 200/2000, about 30 min left of it"
    for count in range(8):  # steps of 5 minutes
        listener.report(task("slow"), "train", count, 2000)
        clock[0] += SILENCE / 2
    assert len(capsys.readouterr().err.splitlines()) == 3
    for count in range(40):  # a short one
        listener.report(task("short"), "train", count, 40)
        clock[0] += PAUSE / 50
    assert capsys.readouterr().err == ""


def test_quiet_shows_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal)
        with ProgressListener(console, 1, 0, quiet=True) as listener:
            listener.report(task(), "train", 1, 2)
            listener.waiting(3)
            listener.finished(task(), "failed", "no paper")
        assert console.file.getvalue() == "" == capsys.readouterr().err  # type: ignore[attr-defined]


def test_a_run_without_a_terminal(tmp_path: Any) -> None:
    words = ["run", "--methods", "clip", "--dataset", "pocket", "--categories", "wood,chip", "--workers", "0"]
    result = CliRunner().invoke(main, [*words, "--store", str(tmp_path / "loud")])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if re.match(r"\d/2 ", line)]
    pattern = (
        r"[12]/2 clip\[encoder=pocket/clip\] · (wood|chip): ok, \d+ s, image AUROC 0\.\d{3}(, about \d+ s left)?"
    )
    assert len(lines) == 2
    assert all(re.fullmatch(pattern, line) for line in lines)
    assert "left" in lines[0]  # the second is like the first
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", result.stderr)
    quiet = CliRunner().invoke(main, [*words, "--store", str(tmp_path / "quiet"), "--quiet"])
    assert "1/2" not in quiet.stderr
    assert quiet.stdout == result.stdout


# ------------------------------------------------------------ the time left


def test_the_time_left_weighs_trials_by_what_they_take(clock: list[float]) -> None:
    short, long_, unknown = task("short"), task("long"), task("unknown")
    left = TimeLeft([short, long_], known(short=10.0, long=900.0))
    assert left.seconds() == (910.0, True)
    left.runs(short, 0.0)
    left.runs(long_, 0.0)
    clock[0] += 9
    assert left.seconds() == (891.0, True)  # side by side, and one trial cannot be divided
    left.ended(short, None)
    clock[0] += 91
    left.runs(long_, 0.5)  # half of its steps in 100 seconds
    assert left.seconds() == (100.0, True)
    assert TimeLeft([short, unknown], known(short=10.0)).seconds() == (10.0, False)
    assert TimeLeft([unknown], known()).seconds() is None
    assert TimeLeft([unknown], None).seconds() is None
    assert TimeLeft([], None).seconds() == (0.0, True)
