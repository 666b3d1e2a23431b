"""Measured numbers beside those that were expected: our own pinned ones, and papers'.

* :mod:`~bench.report.check.pins`: the pinned file of a study, and its difference to a new one.
* :mod:`~bench.report.check.pinned`: trial by trial against the pins.
* :mod:`~bench.report.check.papers`: cell by cell against what papers report, and
  :mod:`~bench.report.check.comparable`: why a cell is not comparable.
* :mod:`~bench.report.check.verdicts`: what comes out, and when a check fails.
* :mod:`~bench.report.check.output`: terminal, Markdown, JSON; :mod:`~bench.report.check.junit`: JUnit XML.
"""
