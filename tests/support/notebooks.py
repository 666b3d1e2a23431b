"""Notebooks that are executed by this very Python, and cleaned of what differs between machines.

    python tests/support/notebooks.py examples/quickstart.ipynb

executes a notebook in an empty folder and writes it back with its new outputs.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ARGV = [sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}"]


class ThisPython(KernelSpecManager):
    """Finds one kernel, whatever others are installed: the interpreter that runs this."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(argv=ARGV, display_name="Python 3", language="python")


def execute(path: Path, folder: Path) -> Any:
    """The notebook with the outputs that it has when it is run in a folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    manager = AsyncKernelManager(
        kernel_spec_manager=ThisPython(), connection_file=str(folder / ".kernel" / "connection.json")
    )
    client = NotebookClient(
        notebook,
        km=manager,
        resources={"metadata": {"path": str(folder)}},
        timeout=300,
        record_timing=False,
        coalesce_streams=True,
    )
    (folder / ".kernel").mkdir()
    # Settings, histories and caches of the user have no say; tqdm asks for widgets that nothing here needs.
    own = {"IPYTHONDIR": str(folder / ".kernel"), "MPLCONFIGDIR": str(folder / ".kernel")}
    own["PYTHONWARNINGS"] = "ignore:IProgress not found"
    client.execute(env=os.environ | own)
    return notebook


def clean(notebook: Any) -> None:
    """Take out metadata, and leave cells, outputs and the language."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = {}


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, Path(folder))
        clean(notebook)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
