"""Building, training and scoring with a model of anomalib: pixels in, raw scores out, no folder and no download.

anomalib's ``Engine`` writes results and checkpoints into folders; what it adds to Lightning's ``Trainer`` is not
needed here, so that the models are run by the trainer alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import logging
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import timm
import torch
import tqdm
from anomalib.data import ImageBatch, ImageItem
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, InterpolationMode, Normalize, Resize
from torchvision.transforms.v2 import functional as pixels_of

from bench.contracts import Context, ImageSet, Network, Scores
from bench.encoders.features import ahead
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.methods.anomalib import FittedOnTarget

T = TypeVar("T")

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of <malloc.h>
_DEFAULT_SIZE = 256  # anomalib's, where a model does not say
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what anomalib and Lightning tell: a trial's words belong into its record.

    Loops for which anomalib shows a bar, the greedy choices of coresets, are kept from filling the memory.
    """
    names = ("anomalib", "lightning.pytorch", "lightning.fabric", "lightning_fabric")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    bars = [m for n, m in sys.modules.items() if n.startswith("anomalib.") and getattr(m, "tqdm", 0) is tqdm.tqdm]
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for module in bars:
            stack.enter_context(replaced(module, "tqdm", _frugal))
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _frugal(steps: Iterable[T], **_: Any) -> Iterator[T]:
    """The steps, with memory blocks of a megabyte and more taken from the system and given back at once.

    glibc does not always reuse an aligned block that torch has freed, if a small one was allocated behind it. So
    choosing a coreset, thousands of steps with a temporary tensor of 30 MB that each keep an index, took 20 GB.
    """
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        yield from steps
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_THRESHOLD, 2**20)
    try:
        yield from steps
    finally:
        mallopt(_MMAP_THRESHOLD, 2**25)  # the bound to which glibc's own rule rises


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """``owner.name`` is ``value`` for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def building(name: str, network: Network | None) -> Iterator[None]:
    """Every network that a model builds through timm meanwhile is ``network``, with the weights of this project.

    Raises:
        BenchError: the model asks for another one, whose weights it would download.
    """

    def create(model_name: str, pretrained: bool = False, pretrained_cfg: Any = None, **options: Any) -> Any:
        asked = model_name.partition(".")[0]
        if network is None or asked != network.architecture.partition(".")[0]:
            given = f"it was given {network.name}" if network else "it has no option backbone"
            raise BenchError(f"{name} builds timm's {model_name}, but {given}; choose backbone=timm/{model_name}")
        return network.create(pretrained=pretrained, **options)

    with replaced(timm, "create_model", create):
        yield


# ---------------------------------------------------------------- building


def build(method: FittedOnTarget, network: Network | None) -> Any:
    """The method's Lightning module, without anything that normalises, measures or draws.

    Raises:
        BenchError: it cannot be built with this backbone and these options.
    """
    module, config = method.module, method.config
    parameters = inspect.signature(module.__init__).parameters
    size = config.image_size or min(input_size(module), network.image_size if network else sys.maxsize)
    given: dict[str, Any] = {"image_size": size, "input_shape": (size, size)}
    given |= {key: list(value) if isinstance(value, tuple) else value for key, value in vars(config).items()}
    given |= dict.fromkeys(("post_processor", "evaluator", "visualizer"), False)
    given["pre_processor"] = pre_processor(module, size, network)
    if network and method.parameter:
        given[method.parameter] = network.architecture
        _check_layers(method.name, given, network)
    try:
        return module(**{key: value for key, value in given.items() if key in parameters})
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        on = f" on {network.name}" if network else ""
        raise BenchError(f"{method.name} cannot be built{on}: {error}".splitlines()[0]) from error


def input_size(module: Any) -> int:
    """The side of what a model takes in anomalib, behind its scaling and cropping."""
    transform = module.configure_pre_processor().transform
    side = int(transform(torch.zeros(1, 3, 16, 16)).shape[-1])
    return _DEFAULT_SIZE if side == 16 else side


def pre_processor(module: Any, size: int, network: Network | None) -> PreProcessor:
    """Scaling to a square as the model's own does it, without its crop, and the backbone's normalisation."""
    own = module.configure_pre_processor().transform
    transforms = own.transforms if isinstance(own, Compose) else [own]
    scaling = next((t.interpolation for t in transforms if isinstance(t, Resize)), InterpolationMode.BILINEAR)
    steps: list[Any] = [Resize((size, size), interpolation=scaling, antialias=True)]
    if any(isinstance(transform, Normalize) for transform in transforms):
        mean, std = (network.mean, network.std) if network else _IMAGENET
        steps.append(Normalize(list(mean), list(std)))
    return PreProcessor(Compose(steps))


def _check_layers(name: str, given: dict[str, Any], network: Network) -> None:
    """Refuse layers that the backbone does not have; anomalib would go on without them."""
    option = "layers" if "layers" in given else "layer"
    wanted = given.get(option) or []
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if "vit" in network.architecture or not all(isinstance(layer, str) for layer in wanted):
        return
    with torch.random.fork_rng(devices=[]):  # as if it had not been built
        features: Any = network.create(pretrained=False, features_only=True)
    known = [str(entry["module"]) for entry in features.feature_info.info]
    if missing := [layer for layer in wanted if layer not in known]:
        raise BenchError(
            f"{name}: {network.name} has no layer {missing[0]!r}; choose {option}= among {', '.join(known)}"
            + ", joined by +" * (option == "layers")
        )


# ---------------------------------------------------------------- training and scoring


def scaled(module: Any) -> Callable[[NDArray[np.uint8]], torch.Tensor]:
    """One image ``(H, W, 3)`` uint8 -> ``(3, S, S)`` in [0, 1], not normalised yet."""
    resize = module.pre_processor.transform.transforms[0]

    def prepare(image: NDArray[np.uint8]) -> torch.Tensor:
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        result: torch.Tensor = resize(pixels_of.to_dtype(pixels, torch.float32, scale=True))
        return result

    return prepare


def train(module: Any, support: ImageSet, config: Any, context: Context) -> None:
    """Fit ``module`` on normal images, all of them in each epoch, in random order."""
    prepare = scaled(module)
    prepared = ahead(lambda i: prepare(support[i]), range(len(support)), 16)
    items: Any = [
        ImageItem(image=image, gt_label=torch.tensor(0), gt_mask=torch.zeros(image.shape[-2:]))
        for image in prepared
    ]

    class Support(LightningDataModule):
        def train_dataloader(self) -> Any:
            return DataLoader(items, config.batch_size, shuffle=True, collate_fn=ImageBatch.collate)

    limits = {"max_epochs": getattr(config, "epochs", 1), **module.trainer_arguments}
    steps = limits["max_epochs"] * -(-len(items) // config.batch_size)
    progress = iter(context.track(range(steps), "train"))
    device = torch.device(context.device)
    trainer = Trainer(
        **{
            **limits,
            "accelerator": "gpu" if device.type == "cuda" else device.type,
            "devices": [device.index or 0] if device.type == "cuda" else 1,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [LambdaCallback(on_train_batch_start=lambda *_: next(progress, None))],
        }
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=Support())
    except SystemExit as stop:  # what Lightning makes of Ctrl-C, from then on deaf to it
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def score(module: Any, images: ImageSet, device: str) -> Scores:
    """The model's own scores and maps ``(N, S, S)``, image by image, so that none depends on the others."""
    module.to(device).eval()
    prepare, (_, *normalise) = scaled(module), module.pre_processor.transform.transforms
    scores, maps = [], []
    with torch.no_grad():
        for pixels in ahead(lambda i: prepare(images[i]), range(len(images)), 16):
            batch = pixels[None].to(device)
            for transform in normalise:
                batch = transform(batch)
            answer = module.model(batch)
            found = answer.anomaly_map
            if found is not None:
                maps.append(found.reshape(found.shape[-2:]).float().cpu().numpy())
            whole = found.amax() if answer.pred_score is None else answer.pred_score
            scores.append(float(whole))
    return Scores(np.array(scores, dtype=np.float32), np.stack(maps) if maps else None)
