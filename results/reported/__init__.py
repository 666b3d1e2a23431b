"""Numbers that papers report: read, checked, audited.

>>> import bench.reported
>>> table = [row for row in bench.reported.load() if row.table == "promptad-1"]
>>> next(row.value for row in table if row.method == "PromptAD" and row.category == "average" and row.shots == 1)
0.908

The numbers lie in ``results/reported/`` as CSV, whose README describes the columns. Importing this package is
cheap: no NumPy, no pandas.
"""

from __future__ import annotations

from bench.reported.loading import DATASET_AVERAGE, REPORTED_PROTOCOLS, Fault, Reported, load, read

__all__ = ["DATASET_AVERAGE", "REPORTED_PROTOCOLS", "Fault", "Reported", "load", "read"]
