"""The figures of ``bench figure``, from records and stored scores.

* :mod:`~bench.figures.maps`: images, masks and anomaly maps side by side.
* :mod:`~bench.figures.tsne`: test images in the methods' feature spaces.
* :mod:`~bench.figures.categories`: bars and boxes per category.
* :mod:`~bench.figures.curves`: ROC, precision-recall and per-region-overlap curves.

Each draws plain values and knows no store; :mod:`~bench.figures.trials` finds the values, and
:func:`bench.statistics.diagram.save_figure` writes the files. Importing this package imports nothing.
"""
