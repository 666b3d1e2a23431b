"""Every registered method and dataset holds what the contracts say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import field_trees
import numpy as np
import pytest
import torch
import trees

from bench.contracts import Context, ImageSet, Scores, State, TrainingSet, Traits
from bench.errors import BenchError
from bench.testing import check_dataset, check_method
from bench.tools.registry import DATASETS, METHODS

# Options that make a method quick; every method must stand here, variants may.
QUICK = [
    "anomalib/padim",
    "anomalib/patchcore",
    "anomalib/stfpm[epochs=2]",
    "anomalib/winclip",
    "anomalib/winclip[k_shot=2,scales=2]",
    "clip",
    "clip[variant=probe,iterations=5]",
    "devnet[epochs=1,steps_per_epoch=2]",
    "dra[epochs=1,steps_per_epoch=2,batch_size=6]",
    "dra[epochs=1,steps_per_epoch=1,batch_size=6,ref_source=target,ref_train=seen_same_class]",
    "maskclip",
    "maskclip[mmseg_quirks=on,ks_thresh=1,resid_ffn=off,prompts=imagenet]",
    "mlep[epochs=1,steps_per_epoch=2,batch_size=6]",
    "mlep[epochs=1,steps_per_epoch=1,batch_size=6,variant=recon]",
    "promptad[iters=3,ffn=64]",
    "promptad[cmi=off,iters=3,ffn=64]",
    "regad[epochs=2,batch_size=4]",
    "transmm",
    "transmm[start_layer=0,target=prob,prompts=damaged]",
    "winclip",
    "winclip[few_shot=on,templates=typo]",
]


def test_every_method_is_checked() -> None:
    assert {spec.partition("[")[0].partition("/")[0] for spec in QUICK} == set(METHODS.names())


@pytest.mark.parametrize("spec", QUICK)
def test_method(spec: str) -> None:
    check_method(spec)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU to compare the CPU with")
@pytest.mark.parametrize("spec", [spec for spec in QUICK if not spec.startswith("anomalib/")])
def test_method_on_a_gpu(spec: str) -> None:
    # Other devices drop other units, and round the coordinates of a rotated image otherwise, so that the nearest
    # pixel is another now and then.
    name, _, options = spec.partition("[")
    alike = {"promptad": "dropout=0", "devnet": "rotation=0", "dra": "rotation=0", "mlep": "rotation=0"}
    check_method(f"{name}[{alike[name]},{options}" if name in alike else spec, device="cuda")


class Ordinary:
    """A third party's method: it scores all images by one matrix product, as most do."""

    name = "ordinary"
    version = "1"

    @dataclasses.dataclass(frozen=True)
    class Config:
        encoder: str = "pocket/clip"

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def traits(cls, config: Config) -> Traits:
        return Traits("Ordinary", "this test", text=True, maps=False)

    def fit(self, train: TrainingSet, context: Context) -> None:
        normal = train.images.subset(np.flatnonzero(train.labels == 0))
        self.normals = self.embed(normal, context)

    def embed(self, images: ImageSet, context: Context) -> torch.Tensor:
        embedding = context.encoder(self.config.encoder).encode_images(images).embedding
        return torch.nn.functional.normalize(embedding)

    def score(self, images: ImageSet, context: Context) -> Scores:
        distances = 1 - self.embed(images, context) @ self.normals.T
        return Scores(self.finished(distances.min(dim=1).values.numpy()))

    def finished(self, scores: Any) -> Any:
        return scores

    def features(self, images: ImageSet, context: Context) -> Any:
        return self.embed(images, context).numpy()


class ByRounding(Ordinary):
    """An image's score moves by some millionths of the range with the number of images, about as sums round."""

    def finished(self, scores: Any) -> Any:
        return scores + np.float32(1e-8 * len(scores))


class Scaled(Ordinary):
    """The largest score of a test set is 1."""

    def finished(self, scores: Any) -> Any:
        return scores / scores.max()


class Ranked(Ordinary):
    """An image's score hangs on its place."""

    def finished(self, scores: Any) -> Any:
        return scores + np.arange(len(scores), dtype=np.float32) / 1000


class Drawn(Ordinary):
    """Each call draws, from a generator that nobody seeds, a difference that rounding would excuse elsewhere."""

    generator = np.random.default_rng(0)

    def finished(self, scores: Any) -> Any:
        return scores * (1 + 1e-6 * self.generator.random(len(scores), dtype=np.float32))


class Centred(Ordinary):
    """Features less their mean over the test set."""

    def features(self, images: ImageSet, context: Context) -> Any:
        found = super().features(images, context)
        return found - found.mean(axis=0)


@pytest.mark.parametrize("method", [Ordinary, ByRounding])
def test_a_method_may_score_in_batches(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "load", lambda name: method)
    check_method("ordinary")


@pytest.mark.parametrize(
    ("method", "broken"),
    [
        (Scaled, "number of the test images"),
        (Ranked, "order of the test images"),
        (Drawn, "the same seed"),
        (Centred, "an image's features"),
    ],
)
def test_a_score_that_depends_on_more_than_its_image_is_refused(
    method: Any, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS, "load", lambda name: method)
    with pytest.raises(AssertionError, match=broken):
        check_method("ordinary")


class Stateful(Ordinary):
    """It gives its normal images' embeddings as its state."""

    def state(self) -> State:
        return State({"normals": self.normals.clone()})

    def restore(self, state: State, context: Context) -> None:
        if state.tensors.keys() != {"normals"} or state.tensors["normals"].ndim != 2:
            raise BenchError("the state of another method")
        self.normals = state.tensors["normals"].clone()


class Aliased(Stateful):
    """It gives its own tensor away."""

    def state(self) -> State:
        return State({"normals": self.normals})


class Keeping(Stateful):
    """It works on the tensor that it was given."""

    def restore(self, state: State, context: Context) -> None:
        super().restore(state, context)
        self.normals = state.tensors["normals"]


class Forgetful(Stateful):
    """It loses the lowest bits."""

    def restore(self, state: State, context: Context) -> None:
        super().restore(state, context)
        self.normals = self.normals.half().float()


class Learning(Stateful):
    """It learns from the images that it scores."""

    def score(self, images: ImageSet, context: Context) -> Scores:
        scores = super().score(images, context)
        self.normals = torch.cat([self.normals, self.embed(images, context)])
        return scores


class Trusting(Stateful):
    """It takes any state."""

    def restore(self, state: State, context: Context) -> None:
        self.normals = next(iter(state.tensors.values()), torch.zeros(1)).clone()


class Shared(Stateful):
    """Two names of one tensor."""

    def state(self) -> State:
        normals = self.normals.clone()
        return State({"normals": normals, "same": normals})


class Attached(Stateful):
    """Its tensors hang on gradients."""

    def state(self) -> State:
        return State({"normals": self.normals.clone().requires_grad_()})


def test_a_method_may_have_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "load", lambda name: Stateful)
    check_method("ordinary")


@pytest.mark.parametrize(
    ("method", "broken"),
    [
        (Aliased, "not the same twice, or no copy"),
        (Keeping, "saved and loaded, it scores otherwise|changed its state"),
        (Forgetful, "changed its state"),
        (Learning, "changed its state"),
        (Trusting, "must be refused"),
        (Shared, "share memory"),
        (Attached, "carry gradients"),
    ],
)
def test_a_state_that_does_not_hold_is_refused(method: Any, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "load", lambda name: method)
    with pytest.raises(AssertionError, match=broken):
        check_method("ordinary")


# Variants of the published datasets, beside one of each.
VARIANTS = {
    "visa[split=2cls_fewshot]": field_trees.visa,
    "ksdd[images=whole]": field_trees.ksdd,
    "ksdd[split=third]": field_trees.ksdd,
    "real_iad[size=1024,split=all]": field_trees.real_iad,
    "real_iad[size=256,split=fuiad_0.1]": field_trees.real_iad,
}


def _mvtec(root: Path) -> Path:
    for name, types in (("bottle", {"contamination": 2}), ("screw", {"thread_top": 2})):
        trees.category(root, name, types)
    return root


def _folder(root: Path) -> Path:
    trees.category(root, "été & co", {"déchirure": 2})
    return root


DATA: dict[str, Any] = {
    "mvtec": _mvtec,
    "folder": _folder,
    "aitex": trees.aitex,
    "aitex[classes=one,split=patch]": trees.aitex,
    "pocket": lambda root: None,
    **field_trees.TREES,
    **VARIANTS,
}


def test_every_dataset_is_checked() -> None:
    assert {spec.partition("[")[0] for spec in DATA} == set(DATASETS.names())


@pytest.mark.parametrize("spec", DATA)
def test_dataset(spec: str, tmp_path: Path) -> None:
    check_dataset(spec, DATA[spec](tmp_path / "root"))
