"""Text-image encoders of open_clip: ``TAG/MODEL``, e.g. ``openai/ViT-B-16``.

``random/MODEL`` is randomly initialised, always with the same weights (for tests and timing), and
``local/MODEL`` takes its weights from ``--weights FILE``; give the model's ``-quickgelu`` form there if they
were trained so.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts import Backbone, TextImageEncoder, Weights
from bench.encoders.weights import check_state, find, find_on_hub, read_state, require_file
from bench.errors import BenchError, first_line, unknown
from bench.tools.hashes import hash_file
from bench.tools.spec import Spec, build_config

if TYPE_CHECKING:
    import torch

_INSTEAD = "--encoder pocket/clip"
_RANDOM, _LOCAL = "random", "local"
_SEED = 0  # of `random/MODEL`


@dataclass(frozen=True)
class _Options:
    """open_clip encoders have no options."""


@dataclass(frozen=True)
class _Model:
    """Model and weights that a name stands for.

    Attributes:
        config: open_clip's name of the architecture.
        quick_gelu: OpenAI's models (and a few others) were trained with QuickGELU; with plain GELU the same
            weights give other features, silently.
        pretrained: open_clip's entry of the weights; empty for ``random`` and ``local``.
    """

    tag: str
    config: str
    quick_gelu: bool
    pretrained: dict[str, Any]


# Beginning of a tag of open_clip -> the image-text pairs that it stands for.
_TRAINING_DATA = {
    "openai": "WebImageText",
    "laion400m": "LAION-400M",
    "laion2b": "LAION-2B",
    "laion5b": "LAION-5B",
    "laion_aesthetic": "LAION-Aesthetic",
    "datacomp": "DataComp",
    "commonpool": "CommonPool",
    "metaclip": "MetaCLIP",
    "dfn": "DFN",
    "webli": "WebLI",
    "yfcc15m": "YFCC-15M",
    "cc12m": "CC12M",
}


class OpenClip:
    """The provider of all encoders that open_clip names."""

    def identify(self, spec: Spec, file: Path | None) -> Weights:
        """Find and hash the weights: ``file``, the local cache, or the hub.

        Raises:
            BenchError: no such tag or model (with the nearest one), or the weights cannot be had.
        """
        model = _parse(spec)
        if file is not None:
            if model.tag == _RANDOM:
                raise BenchError(f"{spec} draws its weights and takes no file; {_LOCAL}/{model.config} takes one")
            require_file(file, str(spec))
        elif model.tag == _RANDOM:
            identity = f"{_RANDOM} weights of {model.config}, seed {_SEED}"
            return Weights(str(spec), hashlib.sha256(identity.encode()).hexdigest())
        elif model.tag == _LOCAL:
            raise BenchError(f"{spec} takes its weights from a file; give it with --weights FILE")
        else:
            file = _download(str(spec), model)
        return Weights(str(spec), hash_file(file), file, _trained_on(model.tag))

    def text_image(self, spec: Spec, weights: Weights, device: str) -> TextImageEncoder:
        """The frozen encoder.

        Raises:
            BenchError: the file does not hold this model's weights, or the model is no plain ViT.
        """
        import open_clip

        from bench.encoders.towers import FrozenClip

        model = _parse(spec)
        module = _build(model)
        if weights.file is not None:
            _load(module, weights.file, str(spec))
        try:
            tokenizer = open_clip.get_tokenizer(model.config)
        except Exception as error:  # a few models take theirs from the hub, through another package
            raise BenchError(f"the tokenizer of {spec} cannot be had: {first_line(error)}") from error
        mean = model.pretrained.get("mean") or open_clip.OPENAI_DATASET_MEAN
        std = model.pretrained.get("std") or open_clip.OPENAI_DATASET_STD
        return FrozenClip(str(spec), weights.sha256, module, tokenizer, mean, std, device)

    def backbone(self, spec: Spec, weights: Weights) -> Backbone:
        """Refused: these encoders are frozen, and trained methods fine-tune a convolutional network."""
        raise BenchError(
            f"{spec} is a text-image encoder; as a trainable backbone choose e.g. torchvision/resnet18, "
            "timm/resnet18 or pocket/resnet"
        )


def _trained_on(tag: str) -> tuple[str, ...]:
    """The data that weights with a tag of open_clip have learned from, where the tag tells."""
    for beginning, data in _TRAINING_DATA.items():
        if tag.startswith(beginning):
            return (data,)
    return ()


def _parse(spec: Spec) -> _Model:
    """Look ``TAG/MODEL`` up in open_clip's lists."""
    import open_clip

    build_config(_Options, spec, "encoder")
    known = {(tag, config): f"{tag}/{config}" for config, tag in open_clip.list_pretrained()}
    tag, slash, config = spec.name.partition("/")
    architecture = open_clip.get_model_config(config) if config else None
    if not slash or (tag not in (_RANDOM, _LOCAL) and (tag, config) not in known) or architecture is None:
        names = [*known.values(), *(f"{t}/{c}" for t in (_RANDOM, _LOCAL) for c in open_clip.list_models())]
        raise _unknown(spec.name, names)
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    if "timm_model_name" in vision or not isinstance(vision["layers"], int) or "hf_model_name" in text:
        raise BenchError(
            f"{spec}: only CLIP models with a plain vision transformer and CLIP's own text tower are supported, "
            "e.g. openai/ViT-B-16"
        )
    pretrained = dict(open_clip.get_pretrained_cfg(config, tag) or {})
    quick = bool(architecture.get("quick_gelu") or pretrained.get("quick_gelu") or tag == "openai")
    return _Model(tag, config, quick, pretrained)


def _unknown(name: str, names: list[str]) -> BenchError:
    """The error for an unknown name; the whole list is too long to print."""
    full = str(unknown("encoder", name, names)).partition(" Known: ")[0]
    return BenchError(f"{full} (open_clip.list_pretrained() names all tags and models)")


def _build(model: _Model) -> torch.nn.Module:
    """The architecture with random weights, the same ones every time; the global generator stays untouched."""
    import open_clip
    import torch

    level = logging.getLogger().level
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that the weights are random, as intended
        try:
            torch.manual_seed(_SEED)
            module: torch.nn.Module = open_clip.create_model(
                model.config, pretrained=None, force_quick_gelu=model.quick_gelu, precision="fp32"
            )
        finally:
            logging.getLogger().setLevel(level)
    return module


def _load(module: torch.nn.Module, file: Path, name: str) -> None:
    """Load ``file`` into ``module``, strictly."""
    from open_clip.model import convert_to_custom_text_state_dict

    state = read_state(file, name)
    for attribute in ("input_resolution", "context_length", "vocab_size"):  # OpenAI's files carry these along
        state.pop(attribute, None)
    if hasattr(module, "text"):
        state = convert_to_custom_text_state_dict(state)
    expected = module.state_dict()
    for scale in ("logit_scale", "logit_bias"):  # a scalar in some files, a vector of one in others
        if scale in state and scale in expected and state[scale].numel() == 1:
            state[scale] = state[scale].reshape(expected[scale].shape)
    check_state(state, expected, name, file)
    module.load_state_dict(state)


def _download(name: str, model: _Model) -> Path:
    """The published weights, from the cache or through open_clip's own download."""
    import open_clip
    from open_clip.pretrained import download_pretrained

    def fetch() -> str:
        return str(download_pretrained(model.pretrained))

    repository, _, filename = str(model.pretrained.get("hf_hub", "")).rpartition("/")
    if not repository:
        url = str(model.pretrained.get("url", ""))
        return find(name, url, _INSTEAD, cached=(), site=url, fetch=fetch)
    if not filename:
        files = [open_clip.constants.HF_SAFE_WEIGHTS_NAME, open_clip.constants.HF_WEIGHTS_NAME]
    elif filename.endswith((".bin", ".pth")):
        files = [f"{filename.rpartition('.')[0]}.safetensors", filename]
    else:
        files = [filename]
    return find_on_hub(name, repository, files, _INSTEAD, fetch)
