"""Progress of a run: a bar with the time left on a terminal; elsewhere a line for each trial that ends.

Elsewhere is a log file, a pipe, or a notebook, where the lines are output like any other.
"""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from bench.errors import printable
from bench.metrics.registry import METRICS
from bench.store.record import Record
from bench.study.estimate import Durations, can_share, durations_of, in_words, sizes_of_splits
from bench.study.task import Fit, Job, Task

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from bench.store.store import Store
    from bench.study.plan import Plan

PAUSE = 30.0  # seconds between two lines on one trial, at least
PART = 0.1  # of its steps, at least, unless it takes longer than SILENCE
SILENCE = 600.0
SHOWN = "image_auroc"  # metric on a finished trial's line


def say(text: str) -> None:
    """Print a line for the user: on standard error, or on standard output in a notebook, where errors are red."""
    # IPython puts get_ipython among the builtins; its shell has a kernel in a notebook, and none on a terminal.
    shell = getattr(builtins, "get_ipython", lambda: None)()
    print(text, file=sys.stdout if hasattr(shell, "kernel") else sys.stderr, flush=True)


def shown_progress(
    plan: Plan, todo: Sequence[Task], store: Store, records: Iterable[Record], *, quiet: bool = False
) -> ProgressListener:
    """Progress of a study's trials on standard error.

    Args:
        plan: the whole study.
        todo: its trials that are not done.
        store: where the records of those that finish are looked up.
        records: of finished trials, for the time left.
        quiet: show nothing at all.
    """
    durations = durations_of(todo, records, plan.study.device, sizes_of_splits(store, plan.manifests))
    # The bar counts all trials, the engine runs those that are left.
    before = len(plan.tasks) - len(todo)
    return ProgressListener(
        terminal(), len(plan.tasks), before, todo=todo, durations=durations, record=store.record, quiet=quiet
    )


def terminal() -> Console:
    """Standard error to draw on, if it is a terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


class ProgressListener:
    """A bar over trials and a line for each that is running; without a terminal, lines of text (:func:`say`).

    Args:
        console: where to draw.
        total: trials of the study.
        done: trials done before.
        todo: the trials that are to be run, for the time left.
        durations: what is known of how long they take; this adds those that finish.
        record: looks up the record of a finished trial.
        quiet: show nothing at all.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        done: int,
        *,
        todo: Sequence[Task] = (),
        durations: Durations | None = None,
        record: Callable[[str], Record | None] = lambda _: None,
        quiet: bool = False,
    ) -> None:
        self._console, self._record, self._quiet = console, record, quiet
        self._total, self._done = total, done
        self._left = TimeLeft(todo, durations)
        self._drawn = console.is_terminal and not quiet
        self._progress = _bars(console, disable=not self._drawn)
        self._all = self._progress.add_task("trials", total=total, completed=done, left=None)
        self._lines: dict[str, TaskID] = {}
        self._told: dict[str, _Told] = {}
        self._waits = 0

    def __enter__(self) -> ProgressListener:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    # ------------------------------------------------------------ events, see bench.executors.engine.Listener

    def report(self, job: Job, description: str, count: int, total: int) -> None:
        self._left.runs(job, count / total if total else 0.0)
        if self._drawn:
            self._draw(job, description, count, total)
        else:
            self._tell(job, description, count, total)

    def finished(self, task: Task, status: str, reason: str | None) -> None:
        record = self._record(task.key) if status == "ok" else None
        started = self._left.ended(task, record)
        self._done += 1
        self._remove(task)
        self._progress.update(self._all, completed=self._done, left=self._left.seconds())
        if self._drawn:
            if status != "ok":
                self._print_drawn(task, status, reason)
            return
        # Of what ended in another process no time is known here but that of its record.
        parts = [status if reason is None else f"{status}: {' '.join(reason.split())}"]
        if record is not None and "total" in record.seconds:
            parts.append(in_words(record.seconds["total"]))
        elif started is not None:
            parts.append(in_words(time.monotonic() - started))
        if record is not None and (value := record.value(SHOWN)) is not None:
            parts.append(f"{METRICS[SHOWN].title} {value:.3f}")
        left = self._left.seconds()
        if left is not None and self._done < self._total:
            parts.append(f"{'about' if left[1] else 'more than'} {in_words(left[0])} left")
        self._echo(f"{self._done}/{self._total} {task.title}: {', '.join(parts)}")

    def fitted(self, fit: Fit, status: str, reason: str | None) -> None:
        self._left.fitted(fit)
        self._remove(fit)
        if self._drawn:
            if status == "failed":
                self._print_drawn(fit, status, reason)
        else:
            self._echo(f"{fit.title}: {status if reason is None else f'{status}: {reason}'}")

    def waiting(self, number: int) -> None:
        text = f"waiting for {number} trials of another process"
        self._progress.update(self._all, description=text)
        if number != self._waits and not self._drawn:
            self._echo(text)
        self._waits = number

    # ------------------------------------------------------------ on a terminal

    def _draw(self, job: Job, description: str, count: int, total: int) -> None:
        if job.key not in self._lines:
            self._lines[job.key] = self._progress.add_task("", total=None)
        # The options come last: where there is no room for all of it, they are what can be missed.
        task = job.task if isinstance(job, Fit) else job
        name, _, options = task.method.partition("[")
        title = job.title.replace(task.method, name, 1)
        options = f" [{options}" if options else ""
        self._progress.update(
            self._lines[job.key],
            description=f"  [dim]{_escape(f'{title}: {description}{options}')}[/]",
            completed=count,
            total=total or None,
        )
        self._progress.update(self._all, left=self._left.seconds())

    def _print_drawn(self, job: Job, status: str, reason: str | None) -> None:
        colour = "red" if status == "failed" else "yellow"
        self._console.print(f"[{colour}]{status}[/] {_escape(job.title)}: {_escape(reason or '')}")

    def _remove(self, job: Job) -> None:
        self._told.pop(job.key, None)
        line = self._lines.pop(job.key, None)
        if line is not None:
            self._progress.remove_task(line)

    # ------------------------------------------------------------ elsewhere

    def _tell(self, job: Job, description: str, count: int, total: int) -> None:
        """Say how far a trial has come: not too often, and not at all of a short one."""
        now, part = time.monotonic(), count / total if total else 0.0
        last = self._told.setdefault(job.key, _Told(now))
        if description != last.description:
            last.description, last.part, last.began = description, 0.0, now
        silent = now - last.at
        if silent < PAUSE or (part - last.part < PART and silent < SILENCE):
            return
        last.at, last.part = now, part
        text = f"{job.title}: {description}"
        if total:
            text += f" {count}/{total}"
            if part:
                text += f", about {in_words((now - last.began) * (1 - part) / part)} left of it"
        self._echo(text)

    def _echo(self, text: str) -> None:
        if not self._quiet:
            say(printable(" ".join(text.split())))


@dataclass
class _Told:
    """The last line on a trial: when it was, what it was doing, since when, and how much of that was done."""

    at: float
    description: str = ""
    began: float = 0.0
    part: float = 0.0


# ------------------------------------------------------------ the time left


@dataclass
class _Running:
    """A job under way: since when, and the part of its steps that is done."""

    began: float
    part: float = 0.0


class TimeLeft:
    """The time that the trials of a run still need, as far as it is known.

    Each counts with its own expected duration; one that is under way without what has passed of it. As many run
    side by side as did so far.

    Args:
        todo: the trials to be run.
        durations: of trials like them; None if nothing is known.
    """

    def __init__(self, todo: Iterable[Task], durations: Durations | None) -> None:
        self._todo = {task.key: task for task in todo}
        self._durations = durations
        self._running: dict[str, _Running] = {}
        self._fits: set[str] = set()  # that are trained
        self._workers = 1

    def runs(self, job: Job, part: float) -> None:
        """A job is under way, and has done a part of its steps."""
        self._running.setdefault(job.key, _Running(time.monotonic())).part = part
        self._workers = max(self._workers, len(self._running))

    def ended(self, task: Task, record: Record | None) -> float | None:
        """A trial has ended; the time when it began, if that was here."""
        self._todo.pop(task.key, None)
        if self._durations is not None and record is not None:
            self._durations.add(record)
        running = self._running.pop(task.key, None)
        return None if running is None else running.began

    def fitted(self, fit: Fit) -> None:
        """A fit has ended."""
        self._running.pop(fit.key, None)
        self._fits.add(fit.key)

    def seconds(self, now: float | None = None) -> tuple[float, bool] | None:
        """The time left, and whether that is all of it: trials may be left of which nothing is known.

        None if nothing is known of any.
        """
        now = time.monotonic() if now is None else now
        needs, fits, complete = [], set(self._fits), True
        for task in self._todo.values():
            expected = None if self._durations is None else self._durations.of(task)
            need = None if expected is None else expected.seconds
            if expected is not None and can_share(task):
                need = expected.rest if task.fit_key in fits else expected.seconds
                fits.add(task.fit_key)
            need = self._remaining(task, need, now)
            if need is None:
                complete = False
            else:
                needs.append(need)
        if not needs and not complete:
            return None
        return max(sum(needs) / self._workers, max(needs, default=0.0)), complete

    def _remaining(self, task: Task, need: float | None, now: float) -> float | None:
        """Seconds of ``need`` that a trial still needs, if it is under way."""
        running = self._running.get(task.key)
        if running is None:
            return need
        passed = now - running.began
        if running.part >= PART:  # its own steps tell more than other trials
            return passed * (1 - running.part) / running.part
        return None if need is None else max(need - passed, 0.0)


# ------------------------------------------------------------ drawing


def _bars(console: Console, disable: bool) -> Progress:
    """A row for each job: what it is, a bar, how many of how many, and the time left.

    Only the words are cut where there is no room; the others are what one looks for.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Task as Row
    from rich.table import Column
    from rich.text import Text

    class Remaining(ProgressColumn):
        """The time left: of all trials as :class:`TimeLeft` has it, of one by its own steps."""

        max_refresh = 0.5
        steps = TimeRemainingColumn(elapsed_when_finished=True)

        def render(self, task: Row) -> Text:
            if "left" not in task.fields:
                return self.steps.render(task)
            left = task.fields["left"]
            if left is None:
                return Text("-:--:--", style="progress.remaining")
            minutes, seconds = divmod(round(left[0]), 60)
            hours, minutes = divmod(minutes, 60)
            more = "" if left[1] else ">"
            return Text(f"{more}{hours}:{minutes:02}:{seconds:02}", style="progress.remaining")

    words = Column(ratio=3, no_wrap=True, overflow="ellipsis")
    fixed = Column(no_wrap=True)
    return Progress(
        TextColumn("{task.description}", table_column=words),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
        MofNCompleteColumn(table_column=fixed),
        Remaining(table_column=fixed.copy()),
        console=console,
        expand=True,
        transient=True,
        disable=disable,
    )


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
