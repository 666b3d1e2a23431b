"""The ``bench`` command: :mod:`bench.cli.main`, and a module for each of its commands."""

from bench.cli.main import main

__all__ = ["main"]
