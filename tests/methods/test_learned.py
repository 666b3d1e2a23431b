"""States of trained methods: the same bits after a file whatever the options, and refused under other ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from by_hand import blots

from bench.contracts import Context, ImageSet, Prompts, State
from bench.errors import BenchError
from bench.methods.clip import Clip
from bench.methods.devnet import DevNet
from bench.methods.dra import DRA
from bench.methods.mlep import MLEP
from bench.methods.promptad import PromptAD
from bench.methods.regad import RegAD
from bench.methods.shared.learned import check_tensors, state_of
from bench.store.detectors import dump_detector, load_detector
from bench.tools.spec import build_config, parse_spec

METHODS: dict[str, Any] = {each.name: each for each in (Clip, DevNet, DRA, MLEP, PromptAD, RegAD)}
QUICK = {
    "clip": "variant=probe,iterations=3",
    "devnet": "epochs=1,steps_per_epoch=2,batch_size=4",
    "dra": "epochs=1,steps_per_epoch=2,batch_size=6",
    "mlep": "epochs=1,steps_per_epoch=2,batch_size=6,decoder_width=32",
    "promptad": "iters=2,D=8,clip_layers=0+1+2",
    "regad": "epochs=2,batch_size=4",
}


def method(spec: str) -> Any:
    name, _, options = spec.partition("[")
    given = f"{name}[{','.join(filter(None, (QUICK[name], options.rstrip(']'))))}]"
    cls = METHODS[name]
    return cls(build_config(cls.Config, parse_spec(given)))


def context(support: ImageSet | None = None, channels: int = 4, seed: int = 1) -> Context:
    network = tiny.backbone(tiny.Convolution(channels, norm=True), channels=channels)
    return tiny.context(tiny.frozen_clip(), network, seed, support=support, n_support=2)


def images(count: int, seed: int) -> tuple[ImageSet, list[int]]:
    found, labels = blots(count, seed)
    found.prompts["thing"] = Prompts("thing", "a flawless thing", "a thing with a blot", {"dent": "blot"})
    return found, labels


def fitted(spec: str) -> Any:
    found = method(spec)
    seen, labels = images(12, 0)
    supports = context(images(2, 2)[0]) if found.traits(found.config).fits_on_support else context()
    found.fit(tiny.training_set(seen, labels), supports)
    return found


def through_a_file(state: State) -> State:
    return load_detector(dump_detector({}, state), "its state")[1]


@pytest.mark.parametrize(
    "spec",
    [
        "clip",
        "clip[text_difference=on]",
        "devnet",
        "devnet[img_size=15,n_scales=3,pixel_map=grad]",
        "dra",
        "dra[img_size=15,n_scales=3]",
        "dra[img_size=2]",
        "dra[pixel_map=grad]",
        "dra[ref_source=none]",
        "dra[ref_source=none,ref_train=none]",
        "dra[ref_source=target]",
        "mlep",
        "mlep[score=center,score_weight=0]",
        "mlep[score=center,embed_dim=5]",
        "mlep[variant=recon]",
        "promptad",
        "promptad[abn=off,ccl=off,cmi=off]",
        "promptad[film_at=every,share_heads=on,share_protos=on]",
        "regad",
        "regad[stn=none,normalise=on]",
    ],
)
def test_a_state_gives_the_same_bits(spec: str) -> None:
    trained, restored = fitted(spec), method(spec)
    restored.restore(through_a_file(trained.state()), context(seed=5))
    supports = context(images(2, 2)[0])
    test, _ = images(9, 1)
    expected, found = (each.score(test, supports) for each in (trained, restored))
    assert np.ptp(expected.image) > 0
    assert np.array_equal(found.image, expected.image)
    assert np.array_equal(found.maps, expected.maps)
    # Weights that were not learned score otherwise: the state counts.
    restored.restore(
        State({name: torch.full_like(t, 0.5) for name, t in trained.state().tensors.items()}), context()
    )
    assert not np.array_equal(restored.score(test, supports).image, expected.image)


@pytest.mark.parametrize(
    ("learned", "taken"),
    [
        ("clip", "clip[text_difference=on]"),
        ("dra", "dra[img_size=24]"),
        ("dra", "dra[n_scales=1]"),
        ("dra", "dra[ref_source=none]"),
        ("dra[ref_source=none]", "dra"),
        ("dra", "dra[hidden=9]"),
        ("mlep", "mlep[score=center]"),
        ("mlep[score=center]", "mlep"),
        ("mlep", "mlep[variant=recon]"),
        ("mlep[embed_dim=5]", "mlep[embed_dim=6]"),
        ("promptad", "promptad[ccl=off,cmi=off]"),
        ("promptad", "promptad[film_at=off]"),
        ("regad", "regad[img_size=32]"),
        ("regad", "regad[stn=none]"),
        ("devnet", "mlep"),
    ],
)
def test_a_state_of_other_options_is_refused(learned: str, taken: str) -> None:
    state = fitted(learned).state()
    with pytest.raises(BenchError, match="learned with other options") as refused:
        (other := method(taken)).restore(state, context())
    assert "\n" not in str(refused.value)
    with pytest.raises(RuntimeError, match="fit"):  # nor does it score with weights that nobody learned
        other.score(images(2, 1)[0], context(images(2, 2)[0]))


@pytest.mark.parametrize("name", ["devnet", "dra", "mlep", "regad"])
def test_a_state_of_another_backbone_is_refused(name: str) -> None:
    state = fitted(name).state()
    with pytest.raises(BenchError, match="another encoder or backbone"):
        method(name).restore(state, context(channels=6))


@pytest.mark.parametrize("name", QUICK)
def test_a_method_that_learned_nothing_has_no_state(name: str) -> None:
    with pytest.raises(RuntimeError, match="fit"):
        method(name).state()


def test_a_state_is_a_copy() -> None:
    weights = {"a": torch.zeros(3)}
    state = state_of(weights)
    weights["a"] += 1
    assert not state.tensors["a"].any()


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({}, "it lacks a$"),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(1)}, "it has b, which"),
        ({"a": torch.zeros(2, 4)}, "a is 2x4 of float32 in it and should be 2x3 of float32"),
        ({"a": torch.zeros(2, 3).half()}, "a is 2x3 of float16 in it"),
        ({"a": torch.tensor(0.0)}, "a is a number of float32 in it"),
    ],
)
def test_the_refusal_names_the_tensor(tensors: dict[str, torch.Tensor], complaint: str) -> None:
    with pytest.raises(BenchError, match=complaint):
        check_tensors(State(tensors), {"a": torch.zeros(2, 3)})
