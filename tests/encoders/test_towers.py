"""The frozen CLIP: tokens against a computation by hand, other image sizes, and independence of the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from open_clip.transformer import Transformer
from PIL import Image

from bench.contracts import TextImageEncoder
from bench.encoders import towers
from bench.encoders.feature_store import FeatureStore
from bench.encoders.features import FeatureCache
from bench.encoders.towers import FrozenClip
from bench.errors import BenchError
from bench.methods.promptad.text import resolve_layers


def by_hand(model: CLIP, pixels: torch.Tensor, quick: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A vision transformer written out in NumPy, double precision: the embedding and each block's output."""
    w = {name: tensor.double().numpy() for name, tensor in model.visual.state_dict().items()}
    x = pixels.double().numpy()

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
        if quick:
            return x / (1 + np.exp(-1.702 * x))
        return x / 2 * (1 + torch.erf(torch.from_numpy(x) / 2**0.5).numpy())

    count, _, side, _ = x.shape
    patch, width, heads, grid = 4, 24, 2, side // 4
    cells = x.reshape(count, 3, grid, patch, grid, patch).transpose(0, 2, 4, 1, 3, 5).reshape(count, grid**2, -1)
    x = cells @ w["conv1.weight"].reshape(width, -1).T
    x = np.concatenate([np.broadcast_to(w["class_embedding"], (count, 1, width)), x], axis=1)
    x = norm(x + w["positional_embedding"], "ln_pre")
    blocks = []
    for i in range(3):
        b = f"transformer.resblocks.{i}"
        qkv = norm(x, f"{b}.ln_1") @ w[f"{b}.attn.in_proj_weight"].T + w[f"{b}.attn.in_proj_bias"]
        q, k, v = (t.reshape(count, -1, heads, width // heads).swapaxes(1, 2) for t in np.split(qkv, 3, axis=-1))
        logits = q @ k.swapaxes(2, 3) / (width // heads) ** 0.5
        attention = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        mixed = (attention @ v).swapaxes(1, 2).reshape(count, -1, width)
        x = x + mixed @ w[f"{b}.attn.out_proj.weight"].T + w[f"{b}.attn.out_proj.bias"]
        hidden = gelu(norm(x, f"{b}.ln_2") @ w[f"{b}.mlp.c_fc.weight"].T + w[f"{b}.mlp.c_fc.bias"])
        x = x + hidden @ w[f"{b}.mlp.c_proj.weight"].T + w[f"{b}.mlp.c_proj.bias"]
        blocks.append(torch.from_numpy(x))
    return torch.from_numpy(norm(x, "ln_post")[:, 0] @ w["proj"]), blocks


@pytest.mark.parametrize("quick", [False, True])
def test_tokens_and_embedding_equal_a_computation_by_hand(quick: bool) -> None:
    model = tiny.clip_model(quick_gelu=quick)
    encoder = tiny.frozen_clip(model)
    images = tiny.noise(3)
    found = encoder.encode_images(tiny.image_set(images), layers=(0, 2, 1))
    embedding, blocks = by_hand(model, torch.stack([encoder.preprocess(image) for image in images]), quick)
    torch.testing.assert_close(found.embedding.double(), embedding, rtol=1e-5, atol=1e-5)
    assert list(found.tokens) == [0, 2, 1]
    assert found.grid == (4, 4)
    for layer, tokens in found.tokens.items():
        assert tokens.shape == (3, 17, 24)
        torch.testing.assert_close(tokens.double(), blocks[layer], rtol=1e-5, atol=1e-5)


def test_the_projected_cls_token_is_the_embedding() -> None:
    encoder = tiny.frozen_clip()
    found = encoder.encode_images(tiny.image_set(tiny.noise(3)), layers=(-1,))
    projected = encoder.project(found.tokens[-1])
    assert projected.shape == (3, 17, 20)
    torch.testing.assert_close(projected[:, 0], found.embedding, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoder.project(found.tokens[-1][1:2, 3]), projected[1:2, 3], rtol=1e-5, atol=1e-6)
    assert encoder.project(torch.empty(0, 4, 24)).shape == (0, 4, 20)


def test_sequence_first_towers_give_the_same_tokens() -> None:
    images = tiny.image_set(tiny.noise(2))
    model = tiny.clip_model()
    expected = tiny.frozen_clip(model).encode_images(images, layers=(0, 1))
    other = tiny.clip_model()
    transformer = Transformer(24, 3, 2, batch_first=False)
    transformer.load_state_dict(other.visual.transformer.state_dict())
    other.visual.transformer = transformer
    found = tiny.frozen_clip(other).encode_images(images, layers=(0, 1))
    for layer in (0, 1):
        torch.testing.assert_close(found.tokens[layer], expected.tokens[layer])
    torch.testing.assert_close(found.embedding, expected.embedding)


def test_neither_number_nor_order_of_images_changes_a_bit() -> None:
    images = tiny.noise(11)
    for batch_size in (1, 4, 8):
        whole = tiny.frozen_clip(batch_size=batch_size).encode_images(tiny.image_set(images), layers=(1, 2))
        for order in ([*range(10, -1, -1)], [3], [7, 2, 5], [0, 1, 2, 3, 4, 5, 6, 7, 8]):
            chosen = tiny.image_set([images[i] for i in order])
            part = tiny.frozen_clip(batch_size=batch_size).encode_images(chosen, layers=(1, 2))
            assert torch.equal(part.embedding, whole.embedding[order])
            for layer in (1, 2):
                assert torch.equal(part.tokens[layer], whole.tokens[layer][order])


def cubic_weights(old: int, new: int) -> NDArray[np.float64]:
    """``(new, old)`` matrix of bicubic interpolation (a = -0.75, pixel centres, border repeated)."""
    a = -0.75
    matrix = np.zeros((new, old))
    for i in range(new):
        position = (i + 0.5) * old / new - 0.5
        for j in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            d = abs(position - j)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            weight = near if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            matrix[i, min(max(j, 0), old - 1)] += weight
    return matrix


@pytest.mark.parametrize("size", [32, 12])
def test_other_image_sizes_interpolate_the_positional_embedding(size: int) -> None:
    model = tiny.clip_model()
    own = model.visual.positional_embedding.detach().double().numpy()
    matrix = cubic_weights(4, size // 4)
    grid = np.einsum("ia,jb,abw->ijw", matrix, matrix, own[1:].reshape(4, 4, 24)).reshape(-1, 24)
    expected = torch.from_numpy(np.concatenate([own[:1], grid])).float()

    larger = tiny.clip_model(image_size=size)
    state = dict(model.state_dict())
    state["visual.positional_embedding"] = expected
    larger.load_state_dict(state)
    images = tiny.image_set(tiny.noise(2))
    reference = tiny.frozen_clip(larger).encode_images(images, layers=(0, 2))
    found = tiny.frozen_clip(model).encode_images(images, layers=(0, 2), image_size=size)
    assert found.grid == (size // 4, size // 4)
    torch.testing.assert_close(found.embedding, reference.embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.tokens[0], reference.tokens[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.from_numpy(own).float(), model.visual.positional_embedding)


def test_preprocessing_is_that_of_clip_without_the_crop() -> None:
    from torchvision import transforms

    image = tiny.noise(1, side=50)[0]
    steps = [
        transforms.Resize((16, 16), transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize(tiny.MEAN, tiny.STD),
    ]
    expected = transforms.Compose(steps)(Image.fromarray(image))
    torch.testing.assert_close(tiny.frozen_clip().preprocess(image), expected)
    assert tiny.frozen_clip().preprocess(image, 32).shape == (3, 32, 32)


def test_text_is_encoded_once_and_alike_in_any_company() -> None:
    sentences = [f"sentence {i}" for i in range(10)]
    encoder = tiny.frozen_clip()
    together = encoder.encode_text(sentences)
    assert together.shape == (10, 20)
    with torch.no_grad():
        direct = encoder.model.encode_text(tiny.tokenize(sentences))
    torch.testing.assert_close(together, direct)
    alone = tiny.frozen_clip().encode_text([sentences[7]])
    assert torch.equal(alone[0], together[7])
    again = encoder.encode_text([sentences[3], "new", sentences[3]])
    assert torch.equal(again[0], together[3])
    assert torch.equal(again[2], together[3])
    assert encoder.encode_text([]).shape == (0, 20)


def test_it_is_frozen_and_says_what_it_is() -> None:
    model = tiny.clip_model().half().train()
    encoder: TextImageEncoder = tiny.frozen_clip(model)
    assert (encoder.image_size, encoder.n_blocks, encoder.width, encoder.embed_dim) == (16, 3, 24, 20)
    assert not encoder.model.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in encoder.model.parameters())


def test_no_hook_stays_and_no_image_is_no_trouble() -> None:
    encoder = tiny.frozen_clip()
    empty = encoder.encode_images(tiny.image_set([]), layers=(1,))
    assert empty.embedding.shape == (0, 20)
    assert empty.tokens[1].shape == (0, 17, 24)
    encoder.encode_images(tiny.image_set(tiny.noise(1)), layers=(1,))
    assert not any(module._forward_hooks for module in encoder.model.modules())


def test_mistakes_are_named() -> None:
    encoder = tiny.frozen_clip()
    images = tiny.image_set(tiny.noise(1))
    with pytest.raises(BenchError, match="no block 3: it has 3, counted from 0"):
        encoder.encode_images(images, layers=(3,))
    with pytest.raises(BenchError, match="image size 30 is no multiple of the patch size 4"):
        encoder.encode_images(images, image_size=30)


def test_towers_without_patch_tokens_are_refused() -> None:
    convolutional = tiny.clip_model(layers=(1, 1, 1, 1), width=8, head_width=8, image_size=32)
    with pytest.raises(BenchError, match="no plain vision transformer"):
        FrozenClip("tiny/RN", "0", convolutional, tiny.tokenize, tiny.MEAN, tiny.STD)
    pooled = tiny.clip_model(pool_type="avg")
    with pytest.raises(BenchError, match="no plain vision transformer"):
        FrozenClip("tiny/avg", "0", pooled, tiny.tokenize, tiny.MEAN, tiny.STD)


def test_features_are_shared_between_encoders_of_the_same_weights() -> None:
    cache = FeatureCache()
    images = tiny.image_set(tiny.noise(3))
    tiny.frozen_clip(cache=cache).encode_images(images, layers=(1,))
    assert cache.passes == 3
    tiny.frozen_clip(cache=cache).encode_images(images.subset([2, 0]), layers=(1,))
    assert cache.passes == 3
    tiny.frozen_clip(cache=cache).encode_images(images, layers=(1,), image_size=32)
    assert cache.passes == 6


@pytest.mark.parametrize("first", [resolve_layers((), 12), (-1,)])
def test_the_second_method_on_a_large_encoder_encodes_nothing(
    first: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What PromptAD and CLIP read by default is kept on disk by either, but not all, as of a small encoder."""
    monkeypatch.setattr(towers, "_KEEP_ALL", 0)
    cache = FeatureCache(store=FeatureStore(tmp_path))
    encoder = tiny.frozen_clip(tiny.clip_model(layers=12), cache=cache)
    images = tiny.image_set(tiny.noise(3))
    encoder.encode_images(images, layers=first)
    assert cache.passes == 3
    for layers in (resolve_layers((), 12), (-1,)):
        kept = encoder.encode_images(images, layers=layers).tokens
        fresh = tiny.frozen_clip(tiny.clip_model(layers=12)).encode_images(images, layers=layers).tokens
        assert all(torch.equal(kept[layer], fresh[layer]) for layer in layers)
    assert cache.passes == 3
    encoder.encode_images(images, layers=(0,))
    assert cache.passes == 6
