"""Measured trials beside pinned ones.

On one kind of CPU a trial gives the same bits every time, whatever the order, the number of workers or the
executor; there ``exact=True`` holds every number to the six decimals of the pins. Another kind of CPU (or another
build of a library) rounds the last bits otherwise. A method that learns nothing passes that on as it is; a
training multiplies it, step by step. So by default the question is twofold:

* **each trial** must be within a tolerance that no difference in rounding was seen to exceed: ``UNTRAINED`` or
  ``TRAINED``;
* **the trials of a method together**, for each metric: the paired differences to the pins must show, by two
  one-sided t tests at 5 %, that their mean is within ``MARGIN`` of zero (a single trial: that it is within
  ``MARGIN``). A changed method fails this even where it is no worse on average: what scatters widely shows no
  equivalence. On the same CPU all differences are zero and the test cannot fail.

A metric, or a metric protocol, that was never pinned is no part of the comparison: :func:`never_pinned` names it.

Trials that differ in what was pinned of them (a method's version or options, the data, the split, weights,
prompts, how a metric is taken) are not comparable, and a trial on one side only is missing; both fail, for
nothing must pass unseen. An option that came later, at its default, is no difference: the numbers will tell. After
a change that is meant, ``bench pin`` shows it and makes the new numbers the pinned ones.

The constants were chosen on ``results/pinned/README.md``'s measurements: no difference seen there reached three
quarters of them.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Container, Iterator, Mapping, Sequence

from bench.errors import BenchError
from bench.metrics.registry import sign
from bench.report.check.pins import DECIMALS, Pin, PinKey, Pins, changes
from bench.report.check.verdicts import Result, Verdict, turned
from bench.report.tables.naming import flat
from bench.tools.groups import group

UNTRAINED = 0.005
TRAINED = 0.15
MARGIN = 0.05
TOGETHER = "all trials"

_AGAINST = "pinned"
_EXACT = 1.5 * 10**-DECIMALS  # both numbers are rounded


def compare(pins: Pins, measured: Pins, metrics: Container[str], *, exact: bool = False) -> list[Result]:
    """Set a study's trials beside its pins; see the module's head.

    Args:
        pins: from the pinned file.
        measured: of the study's records.
        metrics: to be compared.
        exact: every number must be the pinned one.

    Returns:
        A result per trial, metric protocol and metric, in the order of the pins; one per trial that is missing
        or not comparable as a whole; and, unless ``exact``, one per method and metric for all trials together.

    Raises:
        BenchError: the pins are those of another study.
    """
    if pins.study != measured.study:
        raise BenchError(f"the pinned numbers are those of study {pins.study}, not of {measured.study}")
    results: list[Result] = []
    pinned = _names(pins)
    for key in dict.fromkeys(itertools.chain(pins.pins, measured.pins)):
        results += _trial(key, pins.pins.get(key), measured.pins.get(key), pinned, metrics, exact)
    return results if exact else [*results, *_together(results)]


def _trial(
    key: PinKey,
    pin: Pin | None,
    now: Pin | None,
    pinned: Mapping[str, set[str]],
    metrics: Container[str],
    exact: bool,
) -> Iterator[Result]:
    if pin is None:
        yield _result(key, "missing", "not pinned yet (bench pin)")
        return
    if now is None:
        yield _result(key, "missing", "pinned, but not in the study")
        return
    if now.status not in ("ok", "skipped"):
        yield _result(key, "missing", f"{now.status}: {now.reason}" if now.reason else now.status)
        return
    different = _changed(pin.identity, now.identity)
    if pin.status != now.status:
        different.append(f"status: {pin.status} -> {now.status}")
    if different:
        yield _result(key, "not comparable", f"since it was pinned: {'; '.join(different)}")
        return
    if pin.status == "skipped":
        yield _result(key, "reproduced", "skipped, as pinned")
        return
    for protocol in sorted({*pin.values, *now.values} & pinned.keys()):
        yield from _block(key, protocol, pin, now, pinned[protocol], metrics, exact)


def _changed(pinned: Mapping[str, str | None], measured: Mapping[str, str | None]) -> list[str]:
    """The differences from the pinned identity, in all that was recorded when it was pinned."""
    return changes(pinned, {name: measured.get(name) for name in pinned})


def _block(
    key: PinKey,
    protocol: str,
    pin: Pin,
    now: Pin,
    pinned: set[str],
    metrics: Container[str],
    exact: bool,
) -> Iterator[Result]:
    """The numbers of one trial under one metric protocol."""
    if protocol not in pin.values or protocol not in now.values:
        where = "not pinned" if protocol not in pin.values else "pinned, but not measured"
        yield _result(key, "missing", f"metric protocol {protocol}: {where}")
        return
    taken = _changed(flat(pin.setting["metrics"][protocol]), flat(now.setting["metrics"][protocol]))
    if taken:
        reason = f"metric protocol {protocol}, since it was pinned: {'; '.join(taken)}"
        yield _result(key, "not comparable", reason)
        return
    if exact:
        tolerance = _EXACT
    else:
        tolerance = UNTRAINED if key.shots is None else TRAINED
    before, after = pin.values[protocol], now.values[protocol]
    for metric in sorted({*before, *after} & pinned):
        if metric in metrics:
            verdict, reason = _judge(before.get(metric), after.get(metric), tolerance, sign(metric))
            numbers = (before.get(metric), after.get(metric))
            yield _result(key, verdict, reason, metric=metric, protocol=protocol, numbers=numbers)


def _judge(
    expected: float | None, measured: float | None, tolerance: float, direction: int
) -> tuple[Verdict, str]:
    if expected is None and measured is None:
        return "reproduced", "no value, as pinned"
    if expected is None:
        return "not comparable", "had no value when it was pinned"
    if measured is None:
        return "missing", "has no value any more"
    difference = measured - expected
    if abs(difference) <= tolerance:
        return "reproduced", f"tolerance {tolerance:g}"
    return "better" if direction * difference > 0 else "worse", f"tolerance {tolerance:g}"


def _together(results: Sequence[Result]) -> Iterator[Result]:
    """The trials of a method that learns, metric by metric."""
    paired = [each for each in results if each.difference is not None and each.shots is not None]
    keys = group(paired, lambda r: (r.dataset, r.method, r.metric_protocol, r.metric))
    for own in keys.values():
        differences = [each.difference for each in own if each.difference is not None]
        first = own[0]
        verdict, reason = _equivalent(differences, sign(first.metric))
        yield Result(
            against=_AGAINST,
            dataset=first.dataset,
            method=first.method,
            category=TOGETHER,
            shots=None,
            seed=None,
            metric=first.metric,
            metric_protocol=first.metric_protocol,
            verdict=verdict,
            fails=verdict != "reproduced",
            expected=statistics.fmean(each.expected or 0.0 for each in own),
            measured=statistics.fmean(each.measured or 0.0 for each in own),
            reason=reason,
        )


def _equivalent(differences: Sequence[float], direction: int) -> tuple[Verdict, str]:
    """The verdict on whether the mean difference is zero to within the margin."""
    if len(differences) == 1:
        verdict, _ = _judge(0.0, differences[0], MARGIN, direction)
        return verdict, f"one trial, so no test: tolerance {MARGIN:g}"
    from bench.report.statistics.equivalence import equivalence

    found = equivalence(differences, 0.0, MARGIN)
    largest = max(differences, key=abs)
    said = f"TOST of {len(differences)} paired differences within {MARGIN:g}: p = {found.p:.2g}"
    return turned(found.outcome, direction), f"{said}; largest {largest:+.3f}"


def never_pinned(pins: Pins, measured: Pins) -> list[str]:
    """Notes on metric protocols and metrics that were measured but never pinned: nothing to compare with."""
    pinned = _names(pins)
    notes = []
    for protocol, names in sorted(_names(measured).items()):
        if protocol not in pinned:
            notes.append(f"metric protocol {protocol}: not pinned, so not compared (bench pin)")
        elif new := names - pinned[protocol]:
            notes.append(f"{', '.join(sorted(new))} ({protocol}): not pinned, so not compared (bench pin)")
    return notes


def _names(pins: Pins) -> dict[str, set[str]]:
    """The metrics of all trials, by metric protocol."""
    names: dict[str, set[str]] = {}
    for pin in pins.pins.values():
        for protocol, values in pin.values.items():
            names.setdefault(protocol, set()).update(values)
    return names


def _result(
    key: PinKey,
    verdict: Verdict,
    reason: str,
    *,
    metric: str = "",
    protocol: str = "",
    numbers: tuple[float | None, float | None] = (None, None),
) -> Result:
    return Result(
        against=_AGAINST,
        dataset=key.dataset,
        method=key.method,
        category=key.category,
        shots=key.shots,
        seed=key.seed,
        metric=metric,
        metric_protocol=protocol,
        verdict=verdict,
        fails=verdict != "reproduced",
        expected=numbers[0],
        measured=numbers[1],
        reason=reason,
    )
