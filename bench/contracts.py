"""The contracts between the engine and its plugins: datasets, methods, protocols, encoders.

A plugin needs nothing but this module and :mod:`bench.errors`. One that runs a frozen encoder of its own, or
trains on a device, may also use :mod:`bench.encoders.features`, where features are shared between trials, and
:mod:`bench.tools.devices`. Importing this module is cheap: no torch.

The rule that everything here serves: **a method cannot see what it must not know**. Test images reach
a method as an :class:`ImageSet`, which has pixels, categories and prompts, and neither label, mask nor
file name; its images are ordered by content hash, so that not even the order tells. Labels and masks
exist in :class:`TrainingSet` alone, which holds seen categories only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError, NotApplicable

if TYPE_CHECKING:
    import torch

GOOD = "good"  # the name of "no anomaly" in MVTec's layout, and so in the whole field

T = TypeVar("T")


# ---------------------------------------------------------------- what datasets give to the engine


@dataclass(frozen=True, order=True)
class Sample:
    """One image of a dataset, as the engine knows it (a method never sees one).

    An anomalous image may lack its mask. It then counts in image metrics alone and is left out of pixel metrics,
    since its pixels are neither known to be normal nor known to be anomalous; tables say on how many images these
    were taken. Where no anomalous image tested has a mask there are no pixel metrics. Methods that learn from
    masks are told by :meth:`TrainingSet.has_mask`.

    Attributes:
        id: stable and unique in its dataset, e.g. ``bottle/test/broken_large/000``.
        category: e.g. ``bottle``.
        split: the dataset's own ``train`` or ``test`` part.
        type: ``good`` or the anomaly type, e.g. ``broken_large``.
        image: the image file.
        masks: ground-truth mask files, united; empty for good images, and for anomalous ones that lack a mask.
        box: the part of the file that is the image, ``(left, upper, right, lower)`` in pixels, or None
            for all of it; it applies to the masks too.
        group: what was photographed; tiles cut from one strip share it. Images of one group never
            stand on both sides of a split.
        mask_threshold: mask pixels above this value (0..255) are anomalous.
        types: the anomaly types on the image, where there are several; ``type`` then names them together.
        mask_ids: the masks hold numbers of defects instead of shades: a palette's indices count, not its colours.
    """

    id: str
    category: str
    split: Literal["train", "test"]
    type: str
    image: Path
    masks: tuple[Path, ...] = ()
    box: tuple[int, int, int, int] | None = None
    group: str = ""
    mask_threshold: int = 0
    types: tuple[str, ...] = ()
    mask_ids: bool = False

    @property
    def anomalous(self) -> bool:
        return self.type != GOOD

    @property
    def all_types(self) -> tuple[str, ...]:
        """The anomaly types on the image: none of a good one, one of most, or several."""
        return (self.types or (self.type,)) if self.anomalous else ()

    @property
    def lacks_mask(self) -> bool:
        """True for an anomalous image without any mask that shows where the anomaly is."""
        return self.anomalous and not self.masks


@dataclass(frozen=True)
class Finding:
    """One thing that a data check found: an ``error`` stops a study, a ``note`` is known and handled."""

    level: Literal["error", "note"]
    path: str
    message: str


class Counts(NamedTuple):
    """Official numbers of images of one category, as the release has them.

    Attributes:
        train: normal training images.
        normal: normal test images; all normal images, where the release has no parts.
        types: anomaly type -> anomalous test images. The type ``""`` stands for all of them, where the release
            does not say how many there are of each.
        train_anomalous: anomalous images of the training part.
    """

    train: int
    normal: int
    types: Mapping[str, int]
    train_anomalous: int = 0

    @property
    def anomalous(self) -> int:
        """Anomalous test images of all types."""
        return sum(self.types.values())


@dataclass(frozen=True)
class Archive:
    """A file of a dataset that anybody may download, without a form or an account.

    Attributes:
        url: its address.
        hash: ``sha256:...`` or ``md5:...``, as :mod:`pooch` writes it; empty if it is not known.
    """

    url: str
    hash: str = ""


@dataclass(frozen=True)
class DatasetTraits:
    """Properties of a dataset that the engine and the tables need.

    Attributes:
        title: as printed, e.g. ``MVTec AD``.
        source: paper or page that defines it.
        eval_size: side in pixels of the grid on which pixel metrics are taken.
        needs_root: the user must say where the files are.
        encoder: text-image encoder used when the user names none ("": the method's own).
        backbone: trainable backbone used when the user names none ("": the method's own).
        note: a sentence that every table made from this dataset shows.
        all_masked: every anomalous image has a mask. False for a dataset some or all of whose anomalies may lack
            one, which are then measured as :class:`Sample` says; :func:`bench.testing.check_dataset` refuses
            anomalies without masks in a dataset that does not say so.
        licence: of the images, in short: ``CC BY-NC-SA 4.0``; empty if it is not known.
        citation: the paper to cite, in one line.
        page: address of the page to get it from.
        released: version or date of the release that ``counts`` are of.
        counts: category -> official numbers of images; empty if they are not known.
        files: kind -> official number of files, for a dataset whose images are cut from them: ``{"masks": 107}``.
        remark: a sentence on what is not certain, or easily mistaken, about the release.
        archives: files to download; empty for a set behind a form, or whose addresses are not known.
        folders: usual names of its folder, the archive's own first, under which a folder of many datasets has it.
    """

    title: str
    source: str
    eval_size: int = 256
    needs_root: bool = True
    encoder: str = ""
    backbone: str = ""
    note: str = ""
    all_masked: bool = True
    licence: str = ""
    citation: str = ""
    page: str = ""
    released: str = ""
    counts: Mapping[str, Counts] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    remark: str = ""
    archives: tuple[Archive, ...] = ()
    folders: tuple[str, ...] = ()


@runtime_checkable
class Dataset(Protocol):
    """A dataset plugin: a class built as ``cls(root, config)`` with ``config`` an instance of ``cls.Config``.

    ``Config`` is a frozen dataclass of options (``aitex[classes=one]``). Building is cheap and reads no
    file; ``samples`` lists the files and raises :class:`~bench.errors.BenchError` saying what was
    expected and what was found when the root is not this dataset.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    traits: ClassVar[DatasetTraits]
    Config: ClassVar[type[Any]]
    config: Any
    root: Path

    def samples(self) -> tuple[Sample, ...]:
        """All images, sorted by id."""
        ...

    def check(self) -> list[Finding]:
        """Findings about the files' layout: missing, misplaced or superfluous files.

        Reading each image and mask is not its work: the engine does that for every dataset alike.
        """
        ...

    def prompts(self) -> Mapping[str, Prompts]:
        """The prompts that ship for this dataset, by category; may be empty (the user gives a file)."""
        ...


# ---------------------------------------------------------------- what methods see


@dataclass(frozen=True)
class Prompts:
    """The two views of a category in words (PromptAD section 4.1).

    Attributes:
        label: the category's name in a sentence, e.g. ``metal nut``.
        normality: how the object should look.
        abnormality: what may be wrong with it.
        descriptions: anomaly type -> phrase; what ``abnormality`` was built from.
    """

    label: str
    normality: str
    abnormality: str
    descriptions: Mapping[str, str] = field(default_factory=dict)


class ImageSet:
    """Images in a fixed order that tells nothing: pixels, content keys, categories and prompts.

    ``images[i]`` decodes image *i* as ``(H, W, 3)`` uint8 RGB at its native size. ``images.keys[i]`` is the
    SHA-256 of its content, under which features are cached.
    """

    __slots__ = ("_read", "categories", "keys", "prompts")

    def __init__(
        self,
        keys: Sequence[str],
        categories: Sequence[str],
        prompts: Mapping[str, Prompts],
        read: Callable[[str], NDArray[np.uint8]],
    ) -> None:
        if len(keys) != len(categories):
            raise ValueError(f"{len(keys)} keys but {len(categories)} categories")
        self.keys = tuple(keys)
        self.categories = tuple(categories)
        self.prompts = dict(prompts)
        self._read = read

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self._read(self.keys[index])

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[i] for i in range(len(self)))

    def subset(self, indices: Iterable[int]) -> ImageSet:
        """The images at ``indices``, in that order."""
        chosen = [int(i) for i in indices]
        return ImageSet(
            [self.keys[i] for i in chosen], [self.categories[i] for i in chosen], self.prompts, self._read
        )

    @classmethod
    def union(cls, sets: Sequence[ImageSet]) -> ImageSet:
        """The images of several sets, each content once, in the order in which they first come."""
        if len(sets) == 1 and len(set(sets[0].keys)) == len(sets[0]):
            return sets[0]
        readers: dict[str, Callable[[str], NDArray[np.uint8]]] = {}
        categories: dict[str, str] = {}
        prompts: dict[str, Prompts] = {}
        for images in sets:
            prompts |= images.prompts
            for key, category in zip(images.keys, images.categories, strict=True):
                readers.setdefault(key, images._read)
                categories.setdefault(key, category)
        return cls(list(readers), list(categories.values()), prompts, lambda key: readers[key](key))


class TrainingSet:
    """Images of seen categories with their labels and masks.

    Args:
        read_mask: content key of an image -> its mask, ``(H, W)`` bool.
        unmasked: content keys of the anomalous images that lack a mask.

    Attributes:
        images: the images (:class:`ImageSet`).
        labels: ``(N,)`` int8, 1 = anomalous.
        types: per image ``good`` or the anomaly type.
        shots: how many labelled anomalies per seen category the protocol gave.
    """

    def __init__(
        self,
        images: ImageSet,
        labels: Sequence[int] | NDArray[np.int8],
        types: Sequence[str],
        read_mask: Callable[[str], NDArray[np.bool_]],
        shots: int,
        unmasked: Collection[str] = (),
    ) -> None:
        self.images = images
        self.labels = np.asarray(labels, dtype=np.int8)
        self.types = tuple(types)
        self.shots = shots
        self._read_mask = read_mask
        self._unmasked = frozenset(unmasked)
        if not len(images) == len(self.labels) == len(self.types):
            raise ValueError("images, labels and types differ in number")

    def __len__(self) -> int:
        return len(self.images)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """The anomalous pixels of image ``index``: ``(H, W)`` bool at its native size; all False if good.

        Raises:
            NotApplicable: the image is anomalous and has no mask. A method that can do without asks
                :meth:`has_mask` first.
        """
        if not self.has_mask(index):
            category = self.images.categories[index]
            raise NotApplicable(f"the method learns from masks, and an anomalous image of {category} has none")
        return self._read_mask(self.images.keys[index])

    def has_mask(self, index: int) -> bool:
        """True if it is known which pixels of image ``index`` are anomalous; so it is for every good image."""
        return self.images.keys[index] not in self._unmasked

    @property
    def categories(self) -> tuple[str, ...]:
        """The seen categories, sorted."""
        return tuple(sorted(set(self.images.categories)))


@dataclass(frozen=True)
class Scores:
    """Scores of a method. Higher is more anomalous; any real range; nothing normalised per image.

    Attributes:
        image: ``(N,)`` image scores.
        maps: ``(N, h, w)`` anomaly maps at the method's own grid, or None.
        extra: further maps for figures, e.g. ``{"map_normality": (N, h, w)}``; no metric uses them.
    """

    image: NDArray[np.float32]
    maps: NDArray[np.float32] | None = None
    extra: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


WeightsKind = Literal["encoder", "backbone", "checkpoint"]
"""A frozen text-image encoder, a trainable backbone, or a checkpoint: tensors that only the method understands."""


@dataclass(frozen=True)
class Checkpoint:
    """Published weights that a method declares, so that a user can name them.

    Attributes:
        hub: ``ORGANISATION/REPOSITORY:FILE`` on the Hugging Face hub.
        url: address of the file, where it is not on the hub.
        sha256: of the file; empty if it is not known.
        trained_on: names of the datasets that they have learned from. A trial that tests on one is refused.
    """

    hub: str = ""
    url: str = ""
    sha256: str = ""
    trained_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Traits:
    """Properties of a method, for the engine and for readers of a table.

    Attributes:
        title: as printed, e.g. ``PromptAD``.
        source: paper section or repository that it implements.
        trained: whether ``fit`` learns from the training set, which is of seen categories.
        anomalies: whether it learns from the labelled anomalies among them. A trained method that does not runs
            once for all numbers of shots, on a training set without any.
        seeded: whether its scores depend on the seed (through training, sampling or a draw of its own).
            A method that is neither trained nor seeded runs once per category.
        zero_shot: False for methods that need images of the target category.
        text: whether it needs the prompts and a text-image encoder, named by its config's ``encoder``.
        backbone: whether it needs a backbone, to train or as it is, named by its config's ``backbone``.
        support: whether it needs normal images of the target category (``context.support``).
        fits_on_support: whether ``fit`` already looks at them. Such a fit serves the one target that they are of;
            all others see ``context.n_support`` alone while they are fitted.
        maps: whether it gives anomaly maps.
        adapted: how it departs from its source, in one sentence; empty if it does not.
        weights: role -> kind of the weights that the method loads. A role is a config field whose value names
            them; the empty string stands for none. Left out, they follow from ``text`` and ``backbone``.
    """

    title: str
    source: str
    trained: bool = True
    anomalies: bool = True
    seeded: bool = True
    zero_shot: bool = True
    text: bool = False
    backbone: bool = False
    support: bool = False
    maps: bool = True
    adapted: str = ""
    fits_on_support: bool = False
    weights: Mapping[str, WeightsKind] = field(default_factory=dict)

    @property
    def roles(self) -> Mapping[str, WeightsKind]:
        """Role -> kind of the weights that the method loads."""
        if self.weights:
            return self.weights
        roles: dict[str, WeightsKind] = {}
        if self.text:
            roles["encoder"] = "encoder"
        if self.backbone:
            roles["backbone"] = "backbone"
        return roles


@runtime_checkable
class MethodSource(Protocol):
    """A method plugin that stands for many, called ``NAME/MODEL``: a class built without arguments.

    Attributes:
        description: what they are, for ``bench list``.
    """

    description: ClassVar[str]

    def models(self) -> list[str]:
        """Names that may follow the slash, sorted. Cheap: ``bench list`` asks."""
        ...

    def method(self, model: str) -> type[Method]:
        """The method ``NAME/MODEL``, which is also what it calls itself.

        Raises:
            BenchError: there is no such model, or it cannot be run here; the message says why.
        """
        ...


@runtime_checkable
class Method(Protocol):
    """A method plugin: a class built as ``cls(config)`` with ``config`` an instance of ``cls.Config``.

    ``Config`` is a frozen dataclass; its fields are the method's options and its docstring gives each one's
    source. A class may have an attribute ``checkpoints``, name -> :class:`Checkpoint`: those that an option with
    the role of a checkpoint may name. The engine seeds every generator before it builds the method. A variant is a
    config (``promptad[cmi=off]``), so traits may depend on it.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    Config: ClassVar[type[Any]]

    @classmethod
    def traits(cls, config: Any) -> Traits: ...

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Learn from seen categories. Not called for a method that is not trained.

        The target is not known here: one fit may serve several.

        Raises:
            NotApplicable: the data lack what the method needs (no anomaly at all, say).
        """
        ...

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Score the target category's images, in their order.

        On a CPU the same call gives the same bits. In another order, in other batches or without some of the
        others, an image's score may differ by rounding alone: by 1e-5 of the scores' range at most.
        """
        ...


@dataclass(frozen=True)
class State:
    """Everything that a method has learned: tensors and plain values.

    What the method has without training is not part of it: its options, frozen encoders, images of the target.

    Attributes:
        tensors: name -> tensor, of any type and device, sharing no memory with each other.
        values: JSON: strings, numbers, booleans, None, and lists and dicts of these.
    """

    tensors: Mapping[str, torch.Tensor]
    values: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class HasState(Protocol):
    """Optional part of a trained method: gives its learned state, and takes it in place of training.

    With it one fit serves many targets, and a fitted detector can be saved, loaded and used on anybody's images.
    Without it a method is trained anew for every trial.
    """

    def state(self) -> State:
        """The learned state, after ``fit`` or ``restore``: copies without gradients.

        Neither training nor scoring changes a state that was given, and scoring changes nothing that is learned.
        """
        ...

    def restore(self, state: State, context: Context) -> None:
        """Take a state that a method with the same options gave, instead of ``fit``; scores are the same bits.

        Encoders and backbones come from the context, as in ``fit``. The tensors are copied: one state may be
        taken by several methods.

        Raises:
            BenchError: it is not the state of such a method: a tensor is missing, is one too many, or has
                another shape.
        """
        ...


@runtime_checkable
class FitsTogether(Protocol):
    """Optional part of a method: fits several trials as one batched model.

    They are trials of one target that differ in shots and seed alone. The numbers must be the same as one by one,
    so everything random comes from generators seeded by each context's seed, never from the global ones.
    """

    @classmethod
    def fit_together(
        cls, methods: Sequence[Any], trains: Sequence[TrainingSet], contexts: Sequence[Context]
    ) -> None:
        """Fit ``methods[i]``, just built, on ``trains[i]``, as its ``fit`` would, for all i at once.

        If it raises, the engine builds the methods anew and fits them one by one.
        """
        ...


@runtime_checkable
class HasWork(Protocol):
    """Optional part of a method, for estimates of time alone: how much its training does under some options.

    Without it nothing is said of how long a trial takes with options under which none has finished yet.
    """

    @classmethod
    def work(cls, config: Any, n_images: int) -> float:
        """A number above 0 that the time of training grows with, such as images seen over all steps.

        Only ratios count, between two configs of one method with the same encoder or backbone.

        Args:
            config: the options.
            n_images: images that it learns from: training images, or the target's for one that learns from
                them alone, while it scores.
        """
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """Optional part of a method, for figures alone: features, which ``bench figure tsne`` draws.

    The engine asks for features only where a figure needs them, and no metric uses them.
    """

    def features(self, images: ImageSet, context: Context) -> NDArray[np.float32]:
        """``(N, F)``: one vector per image in the space from which the method, once fitted, takes its scores.

        Of features that lie on a grid it is the mean over the grid, so that methods can be set side by side. They
        are as repeatable as scores, see :meth:`Method.score`.
        """
        ...


@runtime_checkable
class HasSubset(Protocol):
    """Optional part of a dataset with published counts: records and tables say if not all of it is there."""

    def subset(self) -> str:
        """The counts that differ from the published ones, ``2 of 15 categories, 60 of 3,629 training images``."""
        ...


# ---------------------------------------------------------------- protocols


class SampleIndex(Protocol):
    """The samples of one dataset, as a protocol sees them: ids, categories, parts and labels, no pixels.

    Attributes:
        label: the dataset with its options, e.g. ``aitex[classes=one]``.
    """

    label: str

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories, sorted."""
        ...

    @property
    def samples(self) -> Mapping[str, Sample]:
        """All samples by id."""
        ...

    def select(self, category: str, split: str, *, anomalous: bool | None = None) -> tuple[Sample, ...]:
        """The samples of one category and part (``train`` or ``test``), all or the normal or anomalous ones."""
        ...


@dataclass(frozen=True)
class SplitRequest:
    """One trial to be split.

    Attributes:
        target: the dataset tested on.
        source: the dataset learned from; ``target`` itself for a protocol that needs no other.
        category: the target category.
        shots: labelled anomalies per seen category; None for a method that learns from none, or under a protocol
            without shots.
        seed: seeds the draws.
        anomalies: whether the method learns from labelled anomalies, whatever their number.
    """

    target: SampleIndex
    source: SampleIndex
    category: str
    shots: int | None
    seed: int
    anomalies: bool = True


@dataclass(frozen=True)
class Draw:
    """The labelled anomalies of one seen category: their types, ids, and a note if they fall short."""

    types: tuple[str, ...]
    ids: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class LearnedImages:
    """The images that a trial learns from, by sample id of the source.

    Attributes:
        normal: normal images.
        anomalous: seen category -> its labelled anomalies; empty where the request has no shots.
    """

    normal: tuple[str, ...]
    anomalous: Mapping[str, Draw]


@dataclass(frozen=True)
class ProtocolTraits:
    """Facts about a protocol, for the engine and for readers.

    Attributes:
        title: in words, e.g. ``leave one category out``.
        source: paper section that defines it.
        learns: the images that trained methods learn from, in words.
        tests: the images that are scored, in words.
        needs_source: whether it learns from another dataset than the one tested on (``--train-dataset``).
        zero_shot: False for a protocol that gives every method images of the target category. One with few-shot
            options (``loo[k=4]``) is zero-shot without them.
        shots: whether the number of shots decides what is learned. Where it does not, trials have none, and an
            attribute ``learned_in_words`` of the protocol may say what is learned instead; tables note it.
        apart: whether source and target may share no image at all, of whatever category.
    """

    title: str
    source: str
    learns: str
    tests: str
    needs_source: bool = False
    zero_shot: bool = True
    shots: bool = True
    apart: bool = False


@runtime_checkable
class SplitProtocol(Protocol):
    """A protocol plugin: a class built as ``cls(config)`` with ``config`` an instance of ``cls.Config``.

    It decides which images a trial learns from, which it is given beside them, and which it is tested on. Tables
    write it as its name with the options that are not the defaults, ``loo[k=4]``. The engine refuses a split in
    which training knows a test image, or, under a zero-shot protocol, any image of the target category.
    :mod:`bench.data.splits` has the draws that ours share.
    """

    name: ClassVar[str]
    traits: ClassVar[ProtocolTraits]
    Config: ClassVar[type[Any]]
    config: Any

    def learned(self, request: SplitRequest) -> LearnedImages:
        """The training images. Asked only for a method that is trained.

        Raises:
            BenchError: there is nothing to learn from.
        """
        ...

    def support(self, request: SplitRequest) -> tuple[str, ...]:
        """Normal images of the target category for few-shot and one-class methods, ids of the target; or none."""
        ...

    def tested(self, request: SplitRequest, support: tuple[str, ...]) -> tuple[str, ...]:
        """The images to score, ids of the target, none of them in ``support``."""
        ...


# ---------------------------------------------------------------- encoders


@dataclass(frozen=True)
class ImageFeatures:
    """Frozen features of N images, float32 on the CPU.

    Attributes:
        embedding: ``(N, E)`` raw image embedding (not normalised).
        tokens: block index (0-based) -> ``(N, 1 + h*w, W)`` output of that residual block, CLS token first,
            before the final layer norm.
        grid: ``(h, w)`` of the patch tokens.
    """

    embedding: torch.Tensor
    tokens: Mapping[int, torch.Tensor]
    grid: tuple[int, int]


class TextImageEncoder(Protocol):
    """A frozen two-tower encoder (open_clip), in eval mode, without gradients.

    Attributes:
        name: e.g. ``openai/ViT-B-16``.
        weights_hash: SHA-256 of the weights.
        image_size: native input side in pixels.
        n_blocks: residual blocks of the image tower.
        width: their width; ``embed_dim`` is that of the joint space.
        model: the open_clip module itself, for methods that look inside.
    """

    name: str
    weights_hash: str
    image_size: int
    n_blocks: int
    width: int
    embed_dim: int
    model: torch.nn.Module

    def encode_images(
        self, images: ImageSet, *, layers: Sequence[int] = (), image_size: int | None = None
    ) -> ImageFeatures:
        """Features of all images, each image encoded at most once (see :mod:`bench.encoders.features`)."""
        ...

    def encode_text(self, sentences: Sequence[str]) -> torch.Tensor:
        """``(N, E)`` raw text embeddings, float32, on the CPU."""
        ...

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        """Final layer norm and projection of ``(..., W)`` last-block tokens into the joint space ``(..., E)``."""
        ...

    def preprocess(self, image: NDArray[np.uint8], image_size: int | None = None) -> torch.Tensor:
        """``(3, S, S)`` normalised float32 of one ``(H, W, 3)`` uint8 image."""
        ...


@dataclass(frozen=True)
class Backbone:
    """A trainable convolutional backbone, freshly loaded for each trial.

    Attributes:
        name: e.g. ``torchvision/resnet18``.
        weights_hash: SHA-256 of the weights, or ``random`` for an untrained one.
        module: ``(B, 3, S, S)`` normalised images -> ``(B, C, h, w)`` last feature map.
        channels: C.
        stride: input pixels per feature position.
        image_size: the side that the method's recipe scales to when it says nothing (448 for ImageNet ones).
        mean, std: per-channel normalisation of images in [0, 1].
        frozen_norm: its BatchNorm layers must stay in eval mode (their statistics are not to be trusted
            in train mode).
    """

    name: str
    weights_hash: str
    module: torch.nn.Module
    channels: int
    stride: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    frozen_norm: bool = False


@dataclass(frozen=True)
class Network:
    """A network and its weights, for a library that builds its networks with ``timm.create_model``.

    Attributes:
        name: e.g. ``timm/resnet18``.
        architecture: timm's name of it, or of what it passes for.
        create: builds it anew, on the CPU: ``create(pretrained, **options)`` with the options of
            ``timm.create_model``; with its weights, or without them as they are drawn.
        image_size, mean, std: as of a :class:`Backbone`.
    """

    name: str
    architecture: str
    create: Callable[..., torch.nn.Module]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Weights:
    """The name and the source of weights, resolved before anything runs.

    Attributes:
        name: of the encoder, backbone or checkpoint.
        sha256: of the file.
        file: None for weights that are drawn.
        trained_on: what they have learned from, as far as it is known: names of datasets.
    """

    name: str
    sha256: str
    file: Path | None = None
    trained_on: tuple[str, ...] = ()


# ---------------------------------------------------------------- the context of one trial


def _no_network(name: str) -> Network:
    raise BenchError(f"no network {name} here")


def _no_checkpoint(role: str) -> Mapping[str, torch.Tensor]:
    raise BenchError(f"no checkpoint for {role} here")


@dataclass
class Context:
    """Everything that one trial may use beside its data.

    Attributes:
        device: torch device string.
        seed: seeds this trial's generators (already applied to the global ones).
        category: the target category; empty while a method is fitted, since a fit is not of one target.
        support: normal images of the target category in few-shot and one-class protocols, else None. While a
            method is fitted it is None, unless its traits say ``fits_on_support``.
        n_support: number of images in ``support``, also while a method is fitted.
        encoder: loads (once per process) the frozen text-image encoder of that name.
        backbone: loads a fresh trainable backbone of that name.
        track: wraps an iterable of training steps so that progress can be shown: ``for step in
            context.track(range(n), "train")``.
        notes: a method may append sentences that belong into the record.
        network: the backbone of that name for a library that builds its networks itself.
        checkpoint: loads the tensors, on the CPU, of the checkpoint that the option of that role names.
    """

    device: str
    seed: int
    category: str
    encoder: Callable[[str], TextImageEncoder]
    backbone: Callable[[str], Backbone]
    support: ImageSet | None = None
    track: Callable[[Iterable[T], str], Iterable[T]] = lambda steps, _: steps
    notes: list[str] = field(default_factory=list)
    network: Callable[[str], Network] = _no_network
    checkpoint: Callable[[str], Mapping[str, torch.Tensor]] = _no_checkpoint
    n_support: int = 0
