"""One self-contained HTML page of a study, for ``bench report``.

* :mod:`~bench.report.page.trials`: what a page shows of one record, and the environments that records share.
* :mod:`~bench.report.page.speed`: time and memory per method.
* :mod:`~bench.report.page.gallery`: the images that a method ranks worst and best, with their maps.
* :mod:`~bench.report.page.content`: all of it and the tables, in the order of the page.
* :mod:`~bench.report.page.page`: the HTML, from ``templates/`` and ``assets/``.

The numbers are those of :mod:`bench.report.tables` and :mod:`bench.report.statistics`; none is computed here
a second time.
"""
