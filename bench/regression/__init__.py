"""Measured numbers beside those that were expected: our own pinned ones, and papers'.

* :mod:`~bench.regression.pins`: the pinned file of a study, and its difference to a new one.
* :mod:`~bench.regression.pinned`: trial by trial against the pins.
* :mod:`~bench.regression.papers`: cell by cell against what papers report, and
  :mod:`~bench.regression.comparable`: why a cell is not comparable.
* :mod:`~bench.regression.verdicts`: what comes out, and when a check fails.
* :mod:`~bench.regression.output`: terminal, Markdown, JSON; :mod:`~bench.regression.junit`: JUnit XML.
"""
