"""The encoders that ship with the package: ``pocket/clip`` and ``pocket/resnet``.

Their weights lie beside the pocket dataset, as float16; they are used as float32.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts import Backbone, Network, TextImageEncoder, Weights
from bench.encoders.weights import check_state, read_state, require_file
from bench.errors import BenchError, unknown
from bench.tools.hashes import hash_file
from bench.tools.spec import Spec, build_config

if TYPE_CHECKING:
    import torch

CLIP, RESNET = "pocket/clip", "pocket/resnet"
_FILES = {CLIP: "clip.safetensors", RESNET: "resnet.safetensors"}
_IMAGE_SIZE = 96  # of pocket/resnet; that of pocket/clip is in clip.json


@dataclass(frozen=True)
class _ClipOptions:
    """`pocket/clip` has no options."""


@dataclass(frozen=True)
class ResNetOptions:
    """Options of ``pocket/resnet``.

    Attributes:
        frozen_norm: keep BatchNorm in eval mode while training.
        image_size: side that images are scaled to; 96 is what it was pretrained with.
    """

    frozen_norm: bool = False
    image_size: int = _IMAGE_SIZE


class PocketEncoders:
    """The provider of both."""

    def identify(self, spec: Spec, file: Path | None) -> Weights:
        """Hash the shipped weights, or those in ``file``.

        Raises:
            BenchError: no such encoder, or its weights are missing from the installation.
        """
        _options(spec)
        data: tuple[str, ...] = ()
        if file is None:
            file = _shipped(_FILES[spec.name])
            data = ("renderings that are not among pocket's images",)
        return Weights(str(spec), hash_file(require_file(file, str(spec))), file, data)

    def text_image(self, spec: Spec, weights: Weights, device: str) -> TextImageEncoder:
        """``pocket/clip``, frozen.

        Raises:
            BenchError: the weights do not fit, or ``pocket/resnet`` was asked for.
        """
        import torch

        from bench.encoders.pocket import WordTokenizer, build_clip
        from bench.encoders.towers import FrozenClip

        _options(spec)
        if spec.name != CLIP:
            raise BenchError(f"{spec} has no text tower; the text-image encoder is {CLIP}")
        config = json.loads(_shipped("clip.json").read_text(encoding="utf-8"))
        with torch.random.fork_rng(devices=[]):  # as below
            model = build_clip(config)
        _load(model, weights, str(spec))
        tokenizer = WordTokenizer.read(_shipped("vocabulary.txt"), config["text_cfg"]["context_length"])
        normalisation = config["preprocess_cfg"]
        mean, std = normalisation["mean"], normalisation["std"]
        return FrozenClip(str(spec), weights.sha256, model, tokenizer, mean, std, device)

    def backbone(self, spec: Spec, weights: Weights) -> Backbone:
        """A fresh ``pocket/resnet``, on the CPU.

        Raises:
            BenchError: the weights do not fit, or ``pocket/clip`` was asked for.
        """
        from bench.encoders.pocket import BACKBONE_MEAN, BACKBONE_STD

        options = _options(spec)
        if not isinstance(options, ResNetOptions):
            raise BenchError(f"{spec} is a frozen text-image encoder; the trainable backbone is {RESNET}")
        loaded, channels, stride = _resnet(weights)
        return Backbone(
            name=str(spec),
            weights_hash=weights.sha256,
            module=copy.deepcopy(loaded),
            channels=channels,
            stride=stride,
            image_size=options.image_size,
            mean=BACKBONE_MEAN,
            std=BACKBONE_STD,
            frozen_norm=options.frozen_norm,
        )

    def network(self, spec: Spec, weights: Weights) -> Network:
        """``pocket/resnet``, which passes for a resnet18: its layers have the same names and are narrower.

        Raises:
            BenchError: the weights do not fit, or ``pocket/clip`` was asked for.
        """
        from bench.encoders.pocket import BACKBONE_MEAN, BACKBONE_STD

        options = _options(spec)
        if not isinstance(options, ResNetOptions):
            raise BenchError(f"{spec} is a frozen text-image encoder; the backbone is {RESNET}")

        def create(
            pretrained: bool = True,
            features_only: bool = False,
            out_indices: Sequence[int] | None = None,
            **_: Any,
        ) -> torch.nn.Module:
            from timm.models import FeatureListNet

            from bench.encoders.pocket import build_backbone

            model: Any = build_backbone()
            if pretrained:
                _load(model, weights, weights.name)
            chosen = tuple(range(5)) if out_indices is None else tuple(out_indices)
            network: torch.nn.Module = FeatureListNet(model.trunk, chosen) if features_only else model.trunk
            return network

        return Network(str(spec), "resnet18", create, options.image_size, BACKBONE_MEAN, BACKBONE_STD)


def _options(spec: Spec) -> Any:
    if spec.name not in _FILES:
        raise unknown("encoder", spec.name, _FILES)
    return build_config(_ClipOptions if spec.name == CLIP else ResNetOptions, spec, "encoder")


def _shipped(name: str) -> Path:
    file = Path(str(resources.files("bench.datasets.pocket") / "weights" / name))
    if not file.is_file():
        raise BenchError(f"{name} of the pocket encoders is missing from this installation ({file}); reinstall it")
    return file


def _load(model: torch.nn.Module, weights: Weights, name: str) -> None:
    assert weights.file is not None
    state = read_state(weights.file, name)
    check_state(state, model.state_dict(), name, weights.file)
    model.load_state_dict(state)  # float16 values become the parameters' float32


@functools.lru_cache(maxsize=1)
def _resnet(weights: Weights) -> tuple[torch.nn.Module, int, int]:
    """The loaded network, its channels and its stride; every trial takes a copy."""
    import torch

    from bench.encoders.pocket import build_backbone

    with torch.random.fork_rng(devices=[]):  # its random start is overwritten and must not cost the trial's draws
        model = build_backbone()
    _load(model, weights, weights.name)
    model.eval()
    with torch.no_grad():
        features = model(torch.zeros(1, 3, _IMAGE_SIZE, _IMAGE_SIZE))
    return model.train(), int(features.shape[1]), _IMAGE_SIZE // int(features.shape[-1])
