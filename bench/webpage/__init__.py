"""One self-contained HTML page of a study, for ``bench report``.

* :mod:`~bench.webpage.trials`: what a page shows of one record, and the environments that records share.
* :mod:`~bench.webpage.speed`: time and memory per method.
* :mod:`~bench.webpage.gallery`: the images that a method ranks worst and best, with their maps.
* :mod:`~bench.webpage.content`: all of it and the tables, in the order of the page.
* :mod:`~bench.webpage.page`: the HTML, from ``templates/`` and ``assets/``.

The numbers are those of :mod:`bench.report` and :mod:`bench.statistics`; none is computed here a second time.
"""
