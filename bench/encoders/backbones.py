"""Trainable convolutional backbones of timm and torchvision, for methods that fine-tune.

``timm/resnet18``, ``timm/mobilenetv2_100[pad_type=same,frozen_norm=on]``, ``torchvision/resnet18``. What a
backbone gives is its last feature map, or an earlier one with the option ``layer``.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts import Backbone, Network, TextImageEncoder, Weights
from bench.encoders.weights import check_state, find_by_url, find_on_hub, read_state, require_file
from bench.errors import BenchError, unknown
from bench.tools.hashes import hash_file
from bench.tools.spec import Spec, build_config

if TYPE_CHECKING:
    import torch

RANDOM = "random"
_INSTEAD = "--backbone pocket/resnet"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PROBE = 128  # side of the image that shows how many channels and what stride a network has


@dataclass(frozen=True)
class TimmOptions:
    """Options of ``timm/MODEL``.

    Attributes:
        weights: ``random`` for an untrained network, drawn from the global generator; otherwise the published
            ones, or those of ``--weights FILE``.
        layer: index of the feature map among timm's ``features_only`` outputs; -1 is the last.
        pad_type: timm's padding of convolutions; ``same`` for weights that come from TensorFlow.
        mean, std: per-channel normalisation of images in [0, 1], written ``0.5+0.5+0.5``; empty for the model's.
        frozen_norm: keep BatchNorm in eval mode while training.
        image_size: side that images are scaled to; 448 is what DevNet and DRA use.
    """

    weights: str = ""
    layer: int = -1
    pad_type: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    frozen_norm: bool = False
    image_size: int = 448

    def __post_init__(self) -> None:
        if self.weights not in ("", RANDOM):
            raise ValueError(
                "weights is random or left out; timm writes them into the name, as in resnet18.a1_in1k"
            )
        _check(self.mean, self.std, self.image_size)


@dataclass(frozen=True)
class TorchVisionOptions:
    """Options of ``torchvision/MODEL``.

    Attributes:
        weights: ``random`` for an untrained network; otherwise torchvision's name of the weights. The first
            ImageNet ones by default (``IMAGENET1K_V1``), which the official code of DevNet and DRA loads.
        layer: index of the feature map: 0 to 3 for ``layer1`` to ``layer4`` of a ResNet, of the modules in
            ``features`` for others; -1 is the last.
        mean, std, frozen_norm, image_size: as for timm.
    """

    weights: str = ""
    layer: int = -1
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    frozen_norm: bool = False
    image_size: int = 448

    def __post_init__(self) -> None:
        _check(self.mean, self.std, self.image_size)


def _check(mean: tuple[float, ...], std: tuple[float, ...], image_size: int) -> None:
    if len(mean) not in (0, 3) or len(std) not in (0, 3):
        raise ValueError("mean and std have three values, written 0.5+0.5+0.5")
    if any(value <= 0 for value in std):
        raise ValueError("std is above 0")
    if image_size < 1:
        raise ValueError("image_size is above 0")


class Timm:
    """The provider of ``timm/MODEL``."""

    def identify(self, spec: Spec, file: Path | None) -> Weights:
        """Find and hash the weights, in timm's own format: ``file``, the local cache, or the hub.

        Raises:
            BenchError: no such model (with the nearest one), or the weights cannot be had.
        """
        import timm

        name, options = self._parse(spec)
        if options.weights == RANDOM:
            return _random(spec, file)
        data: tuple[str, ...] = ()  # unknown of a file
        if file is None:
            data = _timm_data(name)
            config = timm.get_pretrained_cfg(name)
            if config is None or not (config.hf_hub_id or config.url):
                raise BenchError(f"timm publishes no weights of {name}; give a file with --weights FILE")
            if config.hf_hub_id:
                own = config.hf_hub_filename
                files = [own] if own else ["model.safetensors", "pytorch_model.bin"]
                file = find_on_hub(str(spec), config.hf_hub_id, files, _INSTEAD)
            else:
                file = find_by_url(str(spec), str(config.url), _INSTEAD)
        return Weights(str(spec), hash_file(require_file(file, str(spec))), file, data)

    def text_image(self, spec: Spec, weights: Weights, device: str) -> TextImageEncoder:
        """Refused: these networks know no text."""
        raise _no_text(spec)

    def backbone(self, spec: Spec, weights: Weights) -> Backbone:
        """A fresh copy of the network, on the CPU.

        Raises:
            BenchError: the file does not hold this model's weights, or an option does not fit it.
        """
        name, options = self._parse(spec)
        arguments = name, options.layer, options.pad_type
        return _backbone(spec, weights, _timm_network, arguments, options, *self._normalisation(name, options))

    def network(self, spec: Spec, weights: Weights) -> Network:
        """The whole model, transformers too; the option ``layer`` does not matter.

        Raises:
            BenchError: the file does not hold this model's weights, or an option does not fit it.
        """
        name, options = self._parse(spec)
        extra, loading = _timm_arguments(str(spec), weights.file, name, options.pad_type)

        def create(pretrained: bool = True, **given: Any) -> torch.nn.Module:
            from timm.models import create_model  # not timm.create_model, for which this function may stand

            with _quiet("timm"):
                module: torch.nn.Module = create_model(
                    name, **(loading if pretrained else {"pretrained": False}), **extra, **given
                )
            return module

        mean, std = self._normalisation(name, options)
        return Network(str(spec), name, create, options.image_size, _three(mean), _three(std))

    def _normalisation(self, name: str, options: TimmOptions) -> tuple[tuple[float, ...], tuple[float, ...]]:
        import timm

        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        mean = options.mean or (config.mean if config else None) or _IMAGENET_MEAN
        return tuple(mean), tuple(options.std or (config.std if config else None) or _IMAGENET_STD)

    def _parse(self, spec: Spec) -> tuple[str, TimmOptions]:
        import timm

        name = spec.name.partition("/")[2]
        options: TimmOptions = build_config(TimmOptions, spec, "encoder")
        if not timm.is_model(name):
            raise _unknown("timm", name, [*timm.list_models(), *timm.list_pretrained()])
        return name, options


def _timm_data(name: str) -> tuple[str, ...]:
    """The data that timm's weights of a model have learned from, where the tag behind the point tells."""
    tag = name.partition(".")[2]
    known = {"in1k": "ImageNet-1k", "in12k": "ImageNet-12k", "in21k": "ImageNet-21k", "in22k": "ImageNet-22k"}
    return tuple(data for short, data in known.items() if short in tag.split("_"))


class TorchVision:
    """The provider of ``torchvision/MODEL``: ResNets, and models with their convolutions in ``features``."""

    def identify(self, spec: Spec, file: Path | None) -> Weights:
        """Find and hash the weights: ``file``, torch.hub's folder of checkpoints, or torchvision's server.

        Raises:
            BenchError: no such model or weights (with the nearest ones), or they cannot be had.
        """
        name, options = self._parse(spec)
        if options.weights == RANDOM:
            return _random(spec, file)
        local = file is not None  # trained by whoever made the file
        if file is None:
            file = find_by_url(str(spec), _published(name, options.weights, spec).url, _INSTEAD)
        data = () if local else ("ImageNet-1k",)
        return Weights(str(spec), hash_file(require_file(file, str(spec))), file, data)

    def text_image(self, spec: Spec, weights: Weights, device: str) -> TextImageEncoder:
        """Refused: these networks know no text."""
        raise _no_text(spec)

    def backbone(self, spec: Spec, weights: Weights) -> Backbone:
        """A fresh copy of the network, on the CPU; errors as for timm."""
        name, options = self._parse(spec)
        mean, std = options.mean or _IMAGENET_MEAN, options.std or _IMAGENET_STD
        return _backbone(spec, weights, _torchvision_network, (name, options.layer), options, mean, std)

    def _parse(self, spec: Spec) -> tuple[str, TorchVisionOptions]:
        from torchvision import models

        name = spec.name.partition("/")[2]
        options: TorchVisionOptions = build_config(TorchVisionOptions, spec, "encoder")
        known = models.list_models(module=models)
        if name not in known:
            raise _unknown("torchvision", name, known)
        return name, options


def _unknown(source: str, name: str, names: list[str]) -> BenchError:
    """The error for an unknown model; the whole list is too long to print."""
    full = str(unknown(f"{source} model", name, names)).partition(" Known: ")[0]
    return BenchError(f"{full} ({source}'s own list_models() names them all)")


def _no_text(spec: Spec) -> BenchError:
    return BenchError(
        f"{spec} has no text tower; choose a text-image encoder, e.g. openai/ViT-B-16 or pocket/clip"
    )


def _random(spec: Spec, file: Path | None) -> Weights:
    if file is not None:
        raise BenchError(f"{spec} draws its weights and takes no file")
    return Weights(str(spec), RANDOM)


def _published(name: str, wanted: str, spec: Spec) -> Any:
    """torchvision's entry of the weights called ``wanted``, or of the first ImageNet ones."""
    from torchvision import models

    choices = {choice.name: choice for choice in models.get_model_weights(name)}
    if not wanted:
        wanted = "IMAGENET1K_V1" if "IMAGENET1K_V1" in choices else next(iter(choices), "")
    if wanted not in choices:
        raise unknown("weights", wanted, [*choices, RANDOM], f"of {spec.name}")
    return choices[wanted]


def _backbone(
    spec: Spec,
    weights: Weights,
    build: Any,
    arguments: tuple[Any, ...],
    options: TimmOptions | TorchVisionOptions,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Backbone:
    """Build (or copy what was built before) and measure the network."""
    if weights.file is None:
        module, channels, stride = _measured(build(str(spec), None, *arguments), str(spec))
    else:
        loaded, channels, stride = _loaded(build, str(spec), weights.file, weights.sha256, *arguments)
        module = copy.deepcopy(loaded)
    return Backbone(
        name=str(spec),
        weights_hash=weights.sha256,
        module=module,
        channels=channels,
        stride=stride,
        image_size=options.image_size,
        mean=_three(mean),
        std=_three(std),
        frozen_norm=options.frozen_norm,
    )


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


# Every trial starts from the same weights: reading and checking them once is enough. The random start that
# they overwrite must not cost the trial's draws, or the first trial of a process would differ from the rest.
@functools.lru_cache(maxsize=4)
def _loaded(build: Any, name: str, file: Path, digest: str, *arguments: Any) -> tuple[torch.nn.Module, int, int]:
    import torch

    with torch.random.fork_rng(devices=[]):
        return _measured(build(name, file, *arguments), name)


def _measured(module: torch.nn.Module, name: str) -> tuple[torch.nn.Module, int, int]:
    """The network with the channels and the stride of what it gives."""
    import torch

    module.eval()
    try:
        with torch.no_grad():
            features = module(torch.zeros(1, 3, _PROBE, _PROBE))
    except Exception as error:  # a transformer of fixed input size, for one
        raise BenchError(f"{name} is no convolutional network for images of any size ({error})") from None
    return module.train(), int(features.shape[1]), _PROBE // int(features.shape[-1])


def _timm_network(name: str, file: Path | None, model: str, layer: int, pad_type: str) -> torch.nn.Module:
    """timm's ``features_only`` network, cut to one feature map."""
    import timm

    extra, loading = _timm_arguments(name, file, model, pad_type)
    try:
        with _quiet("timm"):
            network = timm.create_model(model, features_only=True, out_indices=(layer,), **loading, **extra)
    except (IndexError, AssertionError):
        raise BenchError(f"{name}: {model} has no feature map {layer}") from None
    except (RuntimeError, AttributeError) as error:
        raise BenchError(f"{name}: timm gives no feature maps of {model} ({error})") from None
    return _only(network)


def _timm_arguments(
    name: str, file: Path | None, model: str, pad_type: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of ``timm.create_model`` beside the model's name: of the architecture, and of its weights."""
    import timm
    import torch

    extra: dict[str, Any] = {"pad_type": pad_type} if pad_type else {}
    whole: Any
    try:
        with torch.device("meta"):  # only names and shapes are wanted
            whole = timm.create_model(model, pretrained=False, **extra)
    except TypeError as error:
        if pad_type and "pad_type" in str(error):
            raise BenchError(f"{name}: {model} has no option pad_type") from None
        raise
    loading: dict[str, Any] = {"pretrained": False}
    if file is not None:
        state = read_state(file, name)
        heads = whole.default_cfg.get("classifier") or ()
        free = (heads,) if isinstance(heads, str) else tuple(heads)
        check_state(state, whole.state_dict(), name, file, free=tuple(f"{head}." for head in free))
        # Handed over as a "state dict" of timm's configuration, it goes the way of downloaded weights.
        loading = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
    return extra, loading


def _torchvision_network(name: str, file: Path | None, model: str, layer: int) -> torch.nn.Module:
    """The convolutional part of a torchvision model, cut behind one of its stages."""
    from torch import nn
    from torchvision import models

    whole = models.get_model(model, weights=None)
    if file is not None:
        state = read_state(file, name)
        expected = whole.state_dict()
        free = ("fc.", "classifier.")
        check_state(state, expected, name, file, free=free)
        whole.load_state_dict({k: v for k, v in state.items() if not k.startswith(free)}, strict=False)
    if isinstance(whole, models.ResNet):
        stages = [whole.layer1, whole.layer2, whole.layer3, whole.layer4]
        stem = [whole.conv1, whole.bn1, whole.relu, whole.maxpool]
    elif isinstance(getattr(whole, "features", None), nn.Sequential):
        stages, stem = list(whole.features), []
    else:
        raise BenchError(f"{name}: {model} is no network with a convolutional feature map; choose e.g. resnet18")
    if not -len(stages) <= layer < len(stages):
        raise BenchError(f"{name}: {model} has no feature map {layer}; it has {len(stages)}, counted from 0")
    return nn.Sequential(*stem, *stages[: layer % len(stages) + 1])


def _only(network: torch.nn.Module) -> torch.nn.Module:
    """A network that gives the one map which ``network`` gives as a list."""
    import torch

    class Only(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.network(images)[-1]
            return features

    return Only()


@contextlib.contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Silence a logger's warnings: timm reports the classifier as superfluous, as it is meant to be."""
    chosen = logging.getLogger(logger)
    level = chosen.level
    chosen.setLevel(logging.ERROR)
    try:
        yield
    finally:
        chosen.setLevel(level)
