"""anomalib's image models as methods: ``anomalib/patchcore``, ``anomalib/padim``, ``anomalib/stfpm``, ...

A model is called as its folder in ``anomalib.models.image``. It is fitted on the normal images of the target
category that the protocol gives (K of them: ``loo[k=4]``; all: ``oneclass``), so that none of these methods is
zero-shot but ``anomalib/winclip`` (see :mod:`bench.methods.anomalib.winclip`). Seen categories are not used,
so that there is no learned state (:class:`bench.contracts.HasState`) that would serve several targets.

Options are those of the model that are plain values (``anomalib/patchcore[coreset_sampling_ratio=0.01]``) and:

- ``backbone``: weights as for all backbones here; anomalib's own default, in timm's weights, unless noted below.
- ``image_size``: side that images are scaled to; 0 for what the model takes in anomalib, or the backbone's own
  where that is smaller (64 for ``pocket/resnet``).
- ``batch_size``: of training; 32 as in anomalib.
- ``epochs``, of models that are trained; 100 unless anomalib says how many. Memory banks take their one pass.

How it differs from running anomalib: scores and maps are the models' own, neither normalised nor thresholded;
images are normalised as the backbone wants it, and never cropped, since a map must cover its image; training is
not stopped early, which would need labelled images of the target.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import sys
import types
import typing
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from bench.contracts import Context, ImageSet, Scores, TrainingSet, Traits
from bench.errors import BenchError, NotApplicable, unknown

VERSION = "1"
WINCLIP = "winclip"

_REFUSED = {
    "anomalyvfm": "it loads fine-tuned weights of its own from a hub",
    "cfa": "it takes its backbone from torchvision's server, past --weights",
    "cfm": "it needs depth images",
    "csflow": "it takes its backbone from torchvision's server, past --weights",
    "draem": "it needs the texture images of DTD",
    "dsr": "it downloads weights of its own",
    "efficient_ad": "it downloads weights of its own and ImageNette",
    "uninet": "it takes its backbones from torchvision's server, past --weights",
    "vlm_ad": "it asks a language model",
}
_NO_MAPS = ("dfkde", "ganomaly")
_TITLES = {
    "anomaly_dino": "AnomalyDINO",
    "cflow": "CFLOW-AD",
    "dfkde": "DFKDE",
    "dfm": "DFM",
    "fastflow": "FastFlow",
    "fre": "FRE",
    "ganomaly": "GANomaly",
    "glass": "GLASS",
    "inp_former": "INP-Former",
    "mh_patchcore": "MH-PatchCore",
    "padim": "PaDiM",
    "patchcore": "PatchCore",
    "patchflow": "PatchFlow",
    "rad": "RAD",
    "reverse_distillation": "Reverse Distillation",
    "stfpm": "STFPM",
    "supersimplenet": "SuperSimpleNet",
    "uflow": "U-Flow",
}
# Models whose backbone is no parameter, or has names of its own there.
_FIXED = {
    "foundad": "timm/vit_base_patch14_dinov2.lvd142m",
    "l2bt": "timm/vit_base_patch14_reg4_dinov2",
}
_INSTEAD = {"mcait": "wide_resnet50_2"}  # U-Flow's own name of a pair of transformers
_NOT_OPTIONS = {
    "self",
    "pre_trained",
    "precision",
    "image_size",
    "input_shape",
    "crop_size",
    "anomaly_source_path",
    "pre_processor",
    "post_processor",
    "evaluator",
    "visualizer",
}


class Anomalib:
    """The source of these methods."""

    description: ClassVar[str] = (
        "anomalib's image models, fitted on normals of the target: NOT zero-shot (winclip is)"
    )

    def models(self) -> list[str]:
        """The models that can be run; found by their files, without importing anomalib."""
        found = importlib.util.find_spec("anomalib")
        names = set()
        for folder in (found and found.submodule_search_locations) or ():
            for path in (Path(folder) / "models" / "image").glob("*/lightning_model.py"):
                names.add(path.parent.name)
        return sorted(names - _REFUSED.keys())

    def method(self, model: str) -> Any:
        """The method ``anomalib/MODEL``; imports anomalib.

        Raises:
            BenchError: there is no such model, or it cannot be run here.
        """
        if model in _REFUSED:
            raise BenchError(f"anomalib/{model} cannot be run here: {_REFUSED[model]}")
        if model not in self.models():
            raise unknown("model", model, self.models(), "of anomalib")
        return _method(model)


def identity() -> str:
    """The version of these methods: ours and anomalib's."""
    return f"{VERSION}, anomalib {version('anomalib')}"


class FittedOnTarget:
    """A model of anomalib, fitted on normal images of the target; see the module's head.

    Attributes:
        model: its name.
        module: its Lightning module.
        parameter: where that takes timm's name of the backbone; empty if nowhere.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    model: ClassVar[str]
    module: ClassVar[Any]
    parameter: ClassVar[str]
    Config: ClassVar[type[Any]]

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        trained = hasattr(config, "epochs")
        return Traits(
            title=_TITLES.get(cls.model, cls.module.__name__),
            source=f"anomalib {version('anomalib')}, models.image.{cls.model}",
            trained=False,  # on seen categories
            zero_shot=False,
            backbone=hasattr(config, "backbone"),
            support=True,
            maps=cls.model not in _NO_MAPS and getattr(config, "score_type", "") != "nll",
            adapted="trained for a fixed number of epochs on the normals given" if trained else "",
        )

    @classmethod
    def work(cls, config: Any, n_images: int) -> float:
        """Images over all epochs, or over the one pass of a memory bank; see :class:`bench.contracts.HasWork`."""
        epochs: int = getattr(config, "epochs", 1)
        return epochs * n_images

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Nothing is learned from seen categories."""

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Fit on the support images, and score; maps have the size of the model's input.

        Raises:
            NotApplicable: no support images, or too few.
            BenchError: the model cannot be built with this backbone and these options.
        """
        from bench.methods.anomalib import run as run

        support = context.support
        if support is None or not len(support):
            raise NotApplicable(f"{self.name} needs normal images of the target")
        needed = getattr(self.config, "n_pca_components", 1)
        if len(support) < needed:
            raise NotApplicable(
                f"{self.name} needs {needed} normal images (n_pca_components), and has {len(support)}"
            )
        network = context.network(self.config.backbone) if hasattr(self.config, "backbone") else None
        with run.quiet(), run.building(self.name, network):
            module = run.build(self, network)
            run.train(module, support, self.config, context)
            return run.score(module, images, context.device)


@functools.cache
def _method(model: str) -> Any:
    if model == WINCLIP:
        from bench.methods.anomalib.winclip import AnomalibWinClip

        return AnomalibWinClip
    module = _lightning_module(model)
    parameter = _backbone_parameter(model, module)
    members = {
        "name": f"anomalib/{model}",
        "version": identity(),
        "model": model,
        "module": module,
        "parameter": parameter,
        "Config": _config_class(model, module, parameter),
    }
    return type(module.__name__, (FittedOnTarget,), members)


def _lightning_module(model: str) -> Any:
    name = f"anomalib.models.image.{model}.lightning_model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what anomalib itself still uses
        members = vars(importlib.import_module(name)).values()
        from anomalib.models.components import AnomalibModule
    found = [m for m in members if inspect.isclass(m) and issubclass(m, AnomalibModule) and m.__module__ == name]
    if len(found) != 1:
        raise BenchError(f"anomalib/{model}: {name} holds {len(found)} models, expected one")
    return found[0]


# ---------------------------------------------------------------- options


def _backbone_parameter(model: str, module: Any) -> str:
    """The parameter that takes timm's name of the backbone, or the empty string."""
    parameters = inspect.signature(module.__init__).parameters
    names = [name for name in ("backbone", "encoder_name") if name in parameters and model not in _FIXED]
    return names[0] if names else ""


def _config_class(model: str, module: Any, parameter: str) -> type[Any]:
    """The frozen dataclass of a model's options, from the signature of its Lightning module."""
    from anomalib.models.components import MemoryBankMixin

    parameters = dict(inspect.signature(module.__init__).parameters)
    fields: dict[str, tuple[Any, Any]] = {}
    if model in _FIXED:
        fields["backbone"] = (str, _FIXED[model])
    elif parameter:
        own = parameters.pop(parameter).default
        fields["backbone"] = (str, f"timm/{_INSTEAD.get(own, own)}")
    fields |= {"image_size": (int, 0), "batch_size": (int, 32)}
    if not issubclass(module, MemoryBankMixin):
        fields["epochs"] = (int, 100)
    for name, taken in parameters.items():
        plain = None if name in _NOT_OPTIONS else _plain(_type(taken, module))
        if plain is not None:
            fields[name] = (plain, tuple(taken.default) if isinstance(taken.default, list) else taken.default)
    chosen = [(name, hint, dataclasses.field(default=default)) for name, (hint, default) in fields.items()]
    return dataclasses.make_dataclass("Config", chosen, frozen=True, namespace={"__post_init__": _check})


def _type(parameter: inspect.Parameter, module: Any) -> Any:
    """The type of a parameter; None where it is not known, as of classes imported for type checkers alone."""
    names = {**vars(collections.abc), **vars(sys.modules[module.__module__])}
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return typing.get_type_hints(holder, names)["it"]
    except NameError:
        return None


def _check(config: Any) -> None:
    if low := [name for name in ("batch_size", "epochs") if getattr(config, name, 1) < 1]:
        raise ValueError(f"{', '.join(low)} must be at least 1")
    if config.image_size < 0:
        raise ValueError("image_size must not be below 0")


def _plain(hint: Any) -> Any:
    """The type of an option that can be written as text, or None for a parameter that is no such option."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (int, float, str, bool) or origin is typing.Literal:
        return hint
    if origin in (list, tuple, collections.abc.Sequence) and arguments and arguments[0] in (int, float, str):
        return types.GenericAlias(tuple, (arguments[0], ...))
    if origin in (typing.Union, types.UnionType) and type(None) in arguments and len(arguments) == 2:
        inner = _plain(next(argument for argument in arguments if argument is not type(None)))
        return None if inner is None else inner | None
    return None
