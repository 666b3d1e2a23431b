"""The figures of ``bench figure``, from records and stored scores.

* :mod:`~bench.report.figures.maps`: images, masks and anomaly maps side by side.
* :mod:`~bench.report.figures.tsne`: test images in the methods' feature spaces.
* :mod:`~bench.report.figures.categories`: bars and boxes per category.
* :mod:`~bench.report.figures.critical`: the critical-difference diagram.
* :mod:`~bench.report.figures.curves`: ROC, precision-recall and per-region-overlap curves.

Each draws plain values and knows no store; :mod:`~bench.report.figures.trials` finds the values, and
:func:`bench.report.figures.critical.save_figure` writes the files. Importing this package imports nothing.
"""
