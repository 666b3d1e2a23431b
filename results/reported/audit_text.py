"""An audit in print and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.reported.audit import Audit, Average, Verdict, title
from bench.reported.loading import Reported
from bench.tools.groups import group

_WORDS: dict[Verdict, str] = {
    "rounded": "rounded",
    "truncated": "truncated",
    "within": "within the rows' own rounding",
    "off": "off",
    "no rows": "without rows",
}


def render(audit: Audit, *, columns: bool = False) -> str:
    """The audit in lines of text.

    Args:
        columns: list every printed average that has rows, not only those that are off.
    """
    return "\n".join(_lines(audit, columns)) + "\n"


def _lines(audit: Audit, columns: bool) -> Iterator[str]:
    papers = {row.paper for row in audit.numbers}
    yield f"{len(audit.numbers)} numbers from {len(papers)} papers and repositories"
    yield from _section("faulty rows", [str(fault) for fault in audit.faults])
    checked = [average for average in audit.averages if average.verdict != "no rows"]
    yield f"printed averages beside the means of their rows: {_counts(audit.averages)}"
    for name, own in group(checked, lambda a: a.printed.table).items():
        yield f"  {name}: {len(own)} columns: {_counts(own)}"
        if columns:
            yield from (f"    {_WORDS[each.verdict]}: {_average(each)}" for each in own)
    lines = []
    for each in audit.off:
        lines.append(f"{_place(each.printed)}: {_average(each)}")
        lines += [f"  the printed number equals {grouping}" for grouping in each.groupings]
    yield from _section("averages that are not the means of their rows", lines)
    yield from _section("contradictions within one paper", map(_values, audit.contradictions))
    yield from _section("numbers that are given twice", map(_values, audit.repeated))
    shown = [same for same in audit.different if same[0].average]
    rest = len(audit.different) - len(shown)
    yield from _section(
        f"reported differently by several papers (no error), and {rest} quantities of single categories",
        map(_values, shown),
    )
    yield "all checks passed" if audit.sound else "some checks failed"


def _section(head: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield f"{head}:"
        yield from (f"  {line}" for line in found)


def _counts(averages: Sequence[Average]) -> str:
    counts = Counter(average.verdict for average in averages)
    return ", ".join(f"{counts[verdict]} {words}" for verdict, words in _WORDS.items() if counts[verdict])


def _average(average: Average) -> str:
    printed, mean = average.printed, average.mean or 0.0
    return (
        f"{title(printed)}: printed {_digits(printed)}, mean of {len(average.rows)} rows {mean:.4f} "
        f"({mean - printed.value:+.4f})"
    )


def _place(row: Reported) -> str:
    return f"{row.paper} {row.place}"


def _digits(row: Reported) -> str:
    return f"{row.value:.{row.decimals}f}"


def _values(rows: Sequence[Reported]) -> str:
    """The quantity, and each value with the tables that have it."""
    category = "" if rows[0].average else f", {rows[0].category}"
    tables = group(rows, _digits)
    values = "; ".join(f"{value} ({', '.join(row.table for row in own)})" for value, own in tables.items())
    return f"{title(rows[0])}{category}: {values}"


def as_dict(audit: Audit) -> dict[str, Any]:
    """All findings, for JSON."""
    return {
        "numbers": len(audit.numbers),
        "sound": audit.sound,
        "faults": [{"file": f.file, "row": f.row, "message": f.message} for f in audit.faults],
        "averages": [
            {
                **_facts(each.printed),
                "verdict": each.verdict,
                "rows": len(each.rows),
                "mean": each.mean,
                "groupings": list(each.groupings),
            }
            for each in audit.averages
        ],
        "contradictions": [list(map(_facts, same)) for same in audit.contradictions],
        "repeated": [list(map(_facts, same)) for same in audit.repeated],
        "different": [list(map(_facts, same)) for same in audit.different],
    }


def _facts(row: Reported) -> dict[str, Any]:
    return {
        "paper": row.paper,
        "table": row.table,
        "method": row.method,
        "dataset": row.dataset,
        "category": row.category,
        "shots": row.shots,
        "k": row.k,
        "protocol": row.protocol,
        "metric": row.metric,
        "value": row.value,
        "file": row.file,
        "row": row.row,
    }
