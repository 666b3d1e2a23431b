"""The commands of ``bench``, one module each; see :mod:`bench.cli`."""
