"""A check in print: terminal, Markdown for a pull request, and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.report.check.verdicts import Check, Result, counts
from bench.tools.groups import group

_MOST_LINES = 50


def render(check: Check) -> str:
    """The check in lines of text: counts per reference and method, then everything that fails."""
    lines = []
    for (against, method), own in _groups(check.results).items():
        lines.append(f"{against}: {method}: {counts(own)}")
        lines += [f"  not comparable: {reason} ({len(same)})" for reason, same in _not_compared(own).items()]
    if check.failures:
        lines.append(f"{len(check.failures)} of {len(check.results)} fail:")
        lines += _cut([f"  {_line(result)}" for result in check.failures])
    lines += [f"note: {note}" for note in check.notes]
    lines.append(_verdict(check))
    return "\n".join(lines) + "\n"


def markdown(check: Check) -> str:
    """A summary for a pull request: a table of counts, and what fails."""
    lines = [f"### bench check: {check.study}", "", _verdict(check), ""]
    lines += ["| against | method | result |", "| :-- | :-- | :-- |"]
    for (against, method), own in _groups(check.results).items():
        lines.append(f"| {_escape(against)} | `{_escape(method)}` | {counts(own)} |")
    if check.failures:
        lines += [
            "",
            "| | number | expected | measured | difference | why |",
            "| :-- | :-- | --: | --: | --: | :-- |",
        ]
        lines += _cut(map(_row, check.failures))
    lines += ["", *(f"- {_escape(note)}" for note in check.notes)] if check.notes else []
    return "\n".join(lines) + "\n"


def as_dict(check: Check) -> dict[str, Any]:
    """Every result, for JSON."""
    return {
        "study": check.study,
        "exit_code": check.exit_code,
        "notes": list(check.notes),
        "results": [
            {
                "against": each.against,
                "dataset": each.dataset,
                "method": each.method,
                "category": each.category,
                "shots": each.shots,
                "seed": each.seed,
                "metric": each.metric,
                "metric_protocol": each.metric_protocol,
                "verdict": each.verdict,
                "fails": each.fails,
                "expected": each.expected,
                "measured": each.measured,
                "difference": each.difference,
                "reason": each.reason,
            }
            for each in check.results
        ],
    }


def _verdict(check: Check) -> str:
    said = {0: "passed", 1: "failed", 3: "nothing was compared"}[check.exit_code]
    return f"{said}: {counts(check.results)}" if check.results else said


def _groups(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    return group(results, lambda r: (r.against, r.method))


def _not_compared(results: Iterable[Result]) -> dict[str, list[Result]]:
    return group((r for r in results if r.verdict == "not comparable"), lambda r: r.reason)


def _line(result: Result) -> str:
    numbers = "" if result.expected is None else f": {result.expected:.4f} expected"
    numbers += "" if result.measured is None else f" {result.measured:.4f} measured"
    numbers += "" if result.difference is None else f" ({result.difference:+.4f})"
    return f"{result.verdict}: {result.against}: {result.title}{numbers}; {result.reason}"


def _row(result: Result) -> str:
    def digits(value: float | None, form: str = ".4f") -> str:
        return "" if value is None else f"{value:{form}}"

    cells = [
        f"**{result.verdict}**",
        _escape(f"{result.against}: {result.title}"),
        digits(result.expected),
        digits(result.measured),
        digits(result.difference, "+.4f"),
        _escape(result.reason),
    ]
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _cut(lines: Iterable[str]) -> Iterator[str]:
    every: Sequence[str] = list(lines)
    yield from every[:_MOST_LINES]
    if len(every) > _MOST_LINES:
        yield f"... and {len(every) - _MOST_LINES} more (--json has all)"
