"""A real LaTeX, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

Latex = Callable[..., Path]  # the body of a document, and its class; gives the PDF

PACKAGES = ("amssymb", "booktabs", "graphicx", "siunitx")


def missing() -> str:
    """Why no table can be compiled here; empty if it can."""
    if shutil.which("pdflatex") is None:
        return "pdflatex is not installed"
    for package in PACKAGES:
        if not subprocess.run(["kpsewhich", f"{package}.sty"], capture_output=True).stdout.strip():
            return f"the LaTeX package {package} is not installed"
    return ""


def compile_pdf(folder: Path, body: str, head: str = r"\documentclass{article}") -> Path:
    """The PDF of a document with ``body``; fails on errors, boxes too wide and missing characters."""
    packages = f"\\usepackage{{{','.join(PACKAGES)}}}"
    source = f"{head}\n{packages}\n\\begin{{document}}\n{body}\\end{{document}}\n"
    (folder / "tables.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    log = (folder / "tables.log").read_text(errors="replace")
    assert done.returncode == 0, done.stdout[-3000:]
    for fault in ("Overfull", "Missing character", "siunitx Warning", "deprecated"):
        assert fault not in log, log[log.index(fault) :][:300]
    return folder / "tables.pdf"
