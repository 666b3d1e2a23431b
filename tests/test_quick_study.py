"""The first command of the README, as typed: no data, no network, a table within minutes, the pinned numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

PINNED = Path(__file__).parents[1] / "results" / "pinned"
NO_NETWORK = """
import socket

def refuse(*_, **__):
    raise OSError("this test has no network")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
"""


def test_bench_run_ends_in_a_table_without_network(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(textwrap.dedent(NO_NETWORK))
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "bench", "run"]
    begin = time.monotonic()
    first = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    seconds = time.monotonic() - begin
    assert first.returncode == 0, first.stderr
    for word in ("CLIP", "DevNet", "PromptAD", "Average", "10-shot", "pocket"):
        assert word in first.stdout
    assert "says nothing" in first.stdout or "say nothing" in first.stdout  # pocket is not MVTec, on every table
    print(f"bench run took {seconds:.0f} s")

    records = [json.loads(file.read_text()) for file in (tmp_path / "results/runs/records").rglob("*.json")]
    assert {record["status"] for record in records} == {"ok"}
    assert len(records) == 6 + 2 * 6 * 2
    for record in records:
        value = record["metrics"]["exact"]["values"]["image_auroc"]
        assert 0.0 <= value <= 1.0

    second = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert second.returncode == 0
    assert "nothing to do" in second.stderr
    assert second.stdout == first.stdout

    # If a change of the numbers is meant: bench run && bench pin, in the repository's root.
    words = ["check", "--against", "pinned", "--pins", str(PINNED)]
    check = subprocess.run([*command[:-1], *words], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert check.returncode == 0, check.stdout + check.stderr
    print(check.stdout)
