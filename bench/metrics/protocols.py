"""Named metric protocols: the ways in which the field's papers take metrics of the same maps, each as a value.

``exact`` is the definition; the others compute what published evaluation code computes, so that a number can be
set beside the paper's own. They differ in the grid, in how masks are brought to it, in smoothing, in what the
image score is, and most of all in which thresholds the overlap curve is drawn through and whether its axis is
rescaled. Metrics that a protocol does not have are told by the registry (``Metric.protocols``). The facts are
those of the repositories named in ``sources``, at the paths given there.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bench.errors import BenchError, shorten, unknown
from bench.tools.spec import build_config, parse_spec

MaskRule: TypeAlias = Literal["nearest", "antialias", "any", "nearest-1024"]
Thresholds: TypeAlias = Literal["all", "rising", "falling", "ranks", "bins", "none"]


@dataclass(frozen=True)
class MetricProtocol:
    """One way to turn maps, masks and image scores into metrics.

    Maps are enlarged bilinearly with aligned pixel centres in all of them.

    Attributes:
        name: by which it is asked for.
        differs: one line: how it departs from ``exact``.
        sources: repository and path of the published code, or the paper.
        eval_size: side of the evaluation grid in pixels; None for each mask's own size.
        mask_resize: ``nearest``: the pixel at the centre (Pillow's ``NEAREST``); ``antialias``: Pillow's
            ``BILINEAR``, above one half (torchvision's ``Resize``); ``any``: OpenCV's linear interpolation,
            above 0; ``nearest-1024``: OpenCV's ``INTER_NEAREST`` to 1024 pixels and from there.
        sigma: deviation, in pixels of the grid, of the Gaussian that smooths the enlarged map; 0 for none.
        image_score: ``given``: the method's own, or the maximum of its map; ``map``: the maximum of the
            enlarged and smoothed map, whatever else the method gives.
        pool: side of the window over which the map is averaged before its maximum is taken; 0 for none.
        labels: ``given``, or ``masks``: anomalous if the resized mask has an anomalous pixel.
        per_image: the pixel AUROC is the mean over the anomalous images instead of that of all pixels.
        thresholds: of the overlap curve. ``all``: every score; ``rising``: ``steps`` equal steps from the
            lowest score up; ``falling``: from the highest down; ``ranks``: the normal pixels at ``steps``
            equally spaced ranks; ``bins``: ``steps`` equal bins, which serve AUROC and AP too; ``none``.
        steps: see ``thresholds``.
        rescale: whether the false positive rates kept are stretched to [0, 1], instead of dividing the area
            by the limit.
        fill_holes: whether the holes of a region count as found with it (but not towards its size).
        fpr_limit: largest false positive rate of the overlap curve.
    """

    name: str
    differs: str
    sources: tuple[str, ...]
    eval_size: int | None = 256
    mask_resize: MaskRule = "nearest"
    sigma: float = 0.0
    image_score: Literal["given", "map"] = "given"
    pool: int = 0
    labels: Literal["given", "masks"] = "given"
    per_image: bool = False
    thresholds: Thresholds = "all"
    steps: int = 0
    rescale: bool = False
    fill_holes: bool = False
    fpr_limit: float = 0.3

    @property
    def grid(self) -> str:
        """The evaluation grid in words."""
        return "the masks' own size" if self.eval_size is None else f"{self.eval_size}x{self.eval_size}"


_ALL = (
    MetricProtocol(
        name="exact",
        differs="every threshold counts; AUPRO integrated to FPR 0.3 and divided by it",
        sources=(
            "Bergmann et al., IJCV 129, 2021 (AUPRO)",
            "scikit-learn: roc_auc_score, average_precision_score, precision_recall_curve",
        ),
    ),
    MetricProtocol(
        name="grid200",
        differs="AUPRO from 200 equal steps of the score, FPR < 0.3 stretched to [0, 1]: changes when scores "
        "are rescaled",
        sources=(
            "ByChelsea/VAND-APRIL-GAN test.py (cal_pro_score; no smoothing)",
            "zqhang/AnomalyCLIP metrics.py, test.py (the same with sigma 4), dataset.py, utils.py (masks)",
        ),
        eval_size=518,
        mask_resize="antialias",
        thresholds="rising",
        steps=200,
        rescale=True,
    ),
    MetricProtocol(
        name="ader50",
        differs="pixel AUROC, AP and AUPRO from 50 equal bins of the score, F1 at 21 thresholds: all change "
        "when scores are rescaled; image score: maximum of the 16x16-averaged map",
        sources=(
            "zhangzjn/ADer util/metric.py (use_adeval, nstrips=50), configs/__base__/cfg_common.py",
            "zhangzjn/ADer trainer/vitad_trainer.py (sigma 4)",
            "winggan/adeval adeval/iterative.py, adeval/cuda_mem_effic.py, adeval/mem_effic.py",
        ),
        mask_resize="antialias",
        sigma=4.0,
        image_score="map",
        pool=16,
        labels="masks",
        thresholds="bins",
        steps=50,
    ),
    MetricProtocol(
        name="openiad",
        differs="AUPRO through 100 thresholds at equal ranks of the normal pixels; no F1",
        sources=(
            "M-3LAB/open-iad metric/cal_metric.py, metric/mvtec3d/au_pro.py",
            "M-3LAB/open-iad arch/reverse.py (sigma 4), augmentation/type.py (masks)",
        ),
        mask_resize="antialias",
        sigma=4.0,
        thresholds="ranks",
        steps=100,
    ),
    MetricProtocol(
        name="devnet-perimage",
        differs="pixel AUROC is the mean of the anomalous images' own: normal images and the ranking between "
        "images do not count; no other pixel metric",
        sources=("Choubo/deviation-network-image localization.py, utils.py",),
        eval_size=448,
        mask_resize="any",
        sigma=4.0,
        per_image=True,
        thresholds="none",
    ),
    MetricProtocol(
        name="winclip-cy",
        differs="image score: maximum of the map; PRO from 200 equal steps down from the highest score, "
        "FPR <= 0.3 stretched to [0, 1], holes of regions count as found (it can exceed 1); no AP",
        sources=(
            "caoyunkang/WinClip utils/metrics.py, utils/eval_utils.py, eval_WinCLIP.py, datasets/dataset.py",
        ),
        eval_size=400,
        mask_resize="nearest-1024",
        image_score="map",
        thresholds="falling",
        steps=200,
        rescale=True,
        fill_holes=True,
    ),
)

MAX_SIDE = 8192  # of an evaluation grid: 256 MiB for each map

METRIC_PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


@dataclass(frozen=True)
class Options:
    """Options behind a protocol's name, as in ``grid200[sigma=4,eval_size=224]``.

    Attributes:
        eval_size: side of the grid, or ``own`` for each mask's own size.
        sigma: smoothing.
        mask_resize: see ``MetricProtocol``.
    """

    eval_size: str = ""
    sigma: float | None = None
    mask_resize: MaskRule | None = None

    def __post_init__(self) -> None:
        if self.sigma is not None and not 0 <= self.sigma < 1000:
            raise ValueError(f"sigma is a number of pixels, not {self.sigma}")
        own = self.eval_size in ("", "own")
        if not own and not (self.eval_size.isdecimal() and 1 <= int(self.eval_size) <= MAX_SIDE):
            size = shorten(self.eval_size)
            raise ValueError(f"eval_size is a number of pixels or own, and at most {MAX_SIDE}, not {size!r}")


def resolve(text: str, eval_size: int | str | None = None) -> MetricProtocol:
    """Return a protocol by name, with options: ``exact``, ``grid200[sigma=4]``.

    Args:
        text: the name, and options in brackets.
        eval_size: the grid where the text does not say; a number of pixels, ``own``, or None for the
            protocol's. The protocol that comes back is called by what was changed.

    Raises:
        BenchError: no such protocol or option, or a value that makes no sense.
    """
    spec = parse_spec(text)
    if spec.name not in METRIC_PROTOCOLS:
        raise unknown("metric protocol", spec.name, METRIC_PROTOCOLS)
    if eval_size is not None:
        spec = spec.with_options(eval_size=str(eval_size))
    base, options = METRIC_PROTOCOLS[spec.name], build_config(Options, spec, "metric protocol")
    changed = base
    if options.eval_size:
        size = None if options.eval_size == "own" else int(options.eval_size)
        changed = dataclasses.replace(changed, eval_size=size)
    if options.sigma is not None:
        changed = dataclasses.replace(changed, sigma=options.sigma)
    if options.mask_resize is not None:
        changed = dataclasses.replace(changed, mask_resize=options.mask_resize)
    if changed.thresholds == "all" and (changed.sigma or changed.mask_resize != "nearest"):
        raise BenchError(f"{text}: the exact protocol smooths nothing and takes masks as they are")
    return dataclasses.replace(changed, name=str(spec)) if changed != base else base


def resolve_own(text: str, eval_size: int | str | None = None) -> MetricProtocol:
    """Return a protocol for somebody's own arrays: ``exact`` takes each mask's own size unless a size is asked
    for.

    Protocols of published code keep the grid that is part of them. Arguments and errors as in :func:`resolve`.
    """
    protocol = resolve(text, eval_size)
    if eval_size is None and protocol == METRIC_PROTOCOLS["exact"] and not parse_spec(text).options:
        return dataclasses.replace(protocol, eval_size=None)
    return protocol


_MASKS: dict[MaskRule, str] = {
    "nearest": "masks by the nearest pixel",
    "antialias": "masks antialiased, above one half",
    "any": "masks interpolated, above zero",
    "nearest-1024": "masks by the nearest pixel, by way of 1024x1024",
}


def describe(protocol: MetricProtocol) -> str:
    """One line: the grid, the masks, smoothing, and how it departs from ``exact``."""
    parts = [protocol.grid, _MASKS[protocol.mask_resize]]
    if protocol.sigma:
        parts.append(f"maps smoothed with sigma {protocol.sigma:g}")
    return f"{', '.join(parts)}; {protocol.differs}"
