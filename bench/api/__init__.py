"""The Python interface: studies that are run and shown from a program or a notebook.

* :mod:`~bench.api.run`: from a study to its records; ``bench run`` is the same with options.
* :mod:`~bench.api.results`: a study's tables, figures and page.
* :mod:`~bench.api.progress`: a bar on a terminal, lines elsewhere.

:mod:`bench` itself has their public names; importing this package imports nothing.
"""
