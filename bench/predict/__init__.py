"""Detectors that are kept and used on anybody's pictures: ``bench.fit``, ``bench.load``, ``bench predict``."""
