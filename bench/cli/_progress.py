"""Progress of a run: a bar with the time left on a terminal, nothing elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from bench.study.task import Fit, Job, Task

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID


class ProgressListener:
    """A bar over trials, and a line for each trial that is running.

    Args:
        console: where to draw; nothing is drawn if it is not a terminal.
        total: trials of the study.
        done: trials done before.
    """

    def __init__(self, console: Console, total: int, done: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all = self._progress.add_task("trials", total=total - done)
        self._lines: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressListener:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def report(self, task: Job, description: str, count: int, total: int) -> None:
        if task.key not in self._lines:
            self._lines[task.key] = self._progress.add_task("", total=None)
        self._progress.update(
            self._lines[task.key],
            description=f"  [dim]{_escape(task.title)}: {description}[/]",
            completed=count,
            total=total or None,
        )

    def finished(self, task: Task, status: str, reason: str | None) -> None:
        line = self._lines.pop(task.key, None)
        if line is not None:
            self._progress.remove_task(line)
        self._progress.advance(self._all)
        if status != "ok":
            colour = "red" if status == "failed" else "yellow"
            self._console.print(f"[{colour}]{status}[/] {_escape(task.title)}: {_escape(reason or '')}")

    def fitted(self, fit: Fit, status: str, reason: str | None) -> None:
        line = self._lines.pop(fit.key, None)
        if line is not None:
            self._progress.remove_task(line)
        if status == "failed":
            self._console.print(f"[red]failed[/] {_escape(fit.title)}: {_escape(reason or '')}")

    def waiting(self, number: int) -> None:
        self._progress.update(self._all, description=f"waiting for {number} trials of another process")


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
