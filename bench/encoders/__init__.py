"""Encoders by name, and where their weights come from.

A name is ``SOURCE/MODEL``: ``openai/ViT-B-16``, ``laion400m_e31/ViT-B-16-plus-240`` (any tag and model of
open_clip), ``timm/resnet18``, ``torchvision/resnet18``, ``pocket/clip``, ``pocket/resnet``. Options follow in
brackets: ``timm/mobilenetv2_100[pad_type=same,frozen_norm=on]``. The source picks the provider: an entry
point of the group ``bench.encoders``, or open_clip where no entry point has that name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from bench.contracts import Backbone, Network, TextImageEncoder, Weights
from bench.errors import BenchError
from bench.tools.registry import ENCODERS
from bench.tools.spec import Spec, parse_spec


class Provider(Protocol):
    """An encoder plugin: a class built without arguments."""

    def identify(self, spec: Spec, file: Path | None) -> Weights:
        """Find the weights (in ``file``, in the package, or on the hub) and hash them, without building a model.

        Raises:
            BenchError: they cannot be had; the message names the file and the ways out.
        """
        ...

    def text_image(self, spec: Spec, weights: Weights, device: str) -> TextImageEncoder:
        """The frozen text-image encoder."""
        ...

    def backbone(self, spec: Spec, weights: Weights) -> Backbone:
        """A fresh trainable backbone, on the CPU."""
        ...


@runtime_checkable
class NetworkProvider(Protocol):
    """An encoder plugin whose backbones a library that builds its networks through timm can use too."""

    def network(self, spec: Spec, weights: Weights) -> Network:
        """The backbone of ``weights``, to be built."""
        ...


def identify(name: str, file: Path | None = None) -> Weights:
    """The weights that ``name`` stands for; see :meth:`Provider.identify`."""
    spec = parse_spec(name)
    return _provider(spec).identify(spec, file)


def load_text_image(weights: Weights, device: str = "cpu") -> TextImageEncoder:
    """The frozen encoder of ``weights``; see :meth:`Provider.text_image`."""
    spec = parse_spec(weights.name)
    return _provider(spec).text_image(spec, weights, device)


def load_backbone(weights: Weights) -> Backbone:
    """A fresh trainable backbone of ``weights``; see :meth:`Provider.backbone`."""
    spec = parse_spec(weights.name)
    return _provider(spec).backbone(spec, weights)


def load_network(weights: Weights) -> Network:
    """The network of ``weights``, for a library that builds it through timm.

    Raises:
        BenchError: its provider has no such networks.
    """
    spec = parse_spec(weights.name)
    provider = _provider(spec)
    if not isinstance(provider, NetworkProvider):
        raise BenchError(
            f"{spec} cannot be built through timm, which this method needs; choose timm/MODEL "
            "(torchvision's weights are timm/MODEL.tv_in1k)"
        )
    return provider.network(spec, weights)


def _provider(spec: Spec) -> Provider:
    source = spec.name.partition("/")[0]
    provider: type[Provider] = ENCODERS.load(source if source in ENCODERS.names() else "openclip")
    return provider()
