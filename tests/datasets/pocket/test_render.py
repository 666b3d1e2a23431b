"""The shipped pocket set and its encoders are what the code here makes of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from make import render
from make.captions import Caption
from make.categories import CATEGORIES
from make.pool import UNSEEN, Mixture, draw_batch, satisfied
from PIL import Image

import bench.datasets.pocket
from bench.encoders.pocket import END, PAD, START, UNKNOWN, WordTokenizer, build_backbone, build_clip

POCKET = Path(bench.datasets.pocket.__file__).parent
IMAGES, WEIGHTS = POCKET / "images", POCKET / "weights"
ITEMS = list(render.items())


def pixels(name: str) -> np.ndarray:
    return np.asarray(Image.open(IMAGES / name))


@pytest.mark.parametrize("item", ITEMS[5::37], ids=lambda item: item.path)
def test_rendering_again_gives_the_shipped_pixels(item: render.Item) -> None:
    image, mask = render.render(item)
    assert np.array_equal(pixels(item.path), image)
    if item.mask_path is not None:
        assert np.array_equal(pixels(item.mask_path), mask)


def test_the_folder_holds_exactly_the_items() -> None:
    expected = {name for item in ITEMS for name in (item.path, item.mask_path) if name}
    assert {path.relative_to(IMAGES).as_posix() for path in IMAGES.rglob("*.png")} == expected


def test_every_category_has_several_types_of_at_least_ten() -> None:
    assert len(CATEGORIES) == 9
    assert len({kind for recipe in CATEGORIES.values() for kind in recipe.defects}) >= 6
    assert all(len(recipe.defects) >= 3 for recipe in CATEGORIES.values())
    assert render.PER_DEFECT >= 10


def test_every_anomaly_has_a_mask_of_its_size_and_nothing_else_does() -> None:
    for item in ITEMS:
        image = pixels(item.path)
        assert image.shape == (64, 64, 3)
        if item.mask_path is None:
            continue
        with Image.open(IMAGES / item.mask_path) as mask:
            assert mask.mode == "L"
            assert mask.size == (64, 64)
            values = np.unique(np.asarray(mask))
        assert values.tolist() == [0, 255], item.mask_path


def test_no_two_images_are_the_same() -> None:
    digests = {hashlib.sha256(pixels(item.path).tobytes()).hexdigest() for item in ITEMS}
    assert len(digests) == len(ITEMS)


def test_what_is_shipped_stays_small() -> None:
    assert sum(path.stat().st_size for path in IMAGES.rglob("*.png")) < 6_000_000
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 15_000_000


def test_a_batch_of_the_pool_follows_from_seed_and_number() -> None:
    first, again = draw_batch(3, 5, 8, Mixture()), draw_batch(3, 5, 8, Mixture())
    other = draw_batch(3, 6, 8, Mixture())
    assert [s.captions for s in first] == [s.captions for s in again]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert [s.captions for s in first] != [s.captions for s in other]


def test_the_pool_leaves_three_families_out() -> None:
    families = [s.family for n in range(8) for s in draw_batch(1, n, 64, Mixture(group=1))]
    drawn = {family.shape for family in families} | {family.texture for family in families}
    assert not drawn & set(UNSEEN)
    assert set(UNSEEN) <= set(CATEGORIES)


def test_a_caption_pairs_with_every_image_that_it_describes() -> None:
    samples = draw_batch(2, 0, 32, Mixture(defects=0.5, captions=2))
    pairs = satisfied(samples)
    assert pairs.shape == (32, 64)
    assert all(pairs[i, 2 * i : 2 * i + 2].all() for i in range(32))
    flawless = samples[0]._replace(captions=(Caption("flawless", frozenset({"state:normal"})),))
    column = satisfied([flawless, *samples])[:, 0]
    assert column.tolist() == ["state:normal" in s.facts for s in [flawless, *samples]]


def test_the_tokenizer_ends_with_the_highest_number() -> None:
    tokenizer = WordTokenizer([PAD, UNKNOWN, START, "a", "photo", "close-up", END], context_length=6)
    rows = tokenizer(["A photo, a close-up!", "zebra", "a " * 20])
    assert rows.tolist() == [[2, 3, 4, 3, 5, 6], [2, 1, 6, 0, 0, 0], [2, 3, 3, 3, 3, 6]]
    assert rows.argmax(dim=1).tolist() == [5, 2, 5]
    assert tokenizer("a").shape == (1, 6)
    with pytest.raises(ValueError, match="starts with"):
        WordTokenizer(["a", "b"])


def test_the_vocabulary_covers_the_words_that_prompts_share() -> None:
    tokenizer = WordTokenizer.read(WEIGHTS / "vocabulary.txt")
    shared = {"abnormality", "of", "is", "flawless", "damaged", "scratch", "crack", "hole", "stain"}
    assert shared <= set(tokenizer.vocabulary)
    assert tokenizer.vocabulary[-1] == END


def test_the_weights_fit_the_builders() -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    config = json.loads((WEIGHTS / "clip.json").read_text())
    tokenizer = WordTokenizer.read(WEIGHTS / "vocabulary.txt", config["text_cfg"]["context_length"])
    assert tokenizer.vocab_size == config["text_cfg"]["vocab_size"]
    clip = build_clip(config).eval()
    state = load_file(WEIGHTS / "clip.safetensors")
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    clip.load_state_dict(state)
    with torch.no_grad():
        assert clip.encode_image(torch.zeros(2, 3, 64, 64)).shape == (2, config["embed_dim"])
        assert clip.encode_text(tokenizer(["a ring", "a damaged ring"])).shape == (2, config["embed_dim"])

    backbone = build_backbone().eval()
    backbone.load_state_dict(load_file(WEIGHTS / "resnet.safetensors"))
    assert sum(parameter.numel() for parameter in backbone.parameters()) <= 1_000_000
    with torch.no_grad():
        assert backbone(torch.zeros(2, 3, 64, 64)).shape == (2, backbone.num_features, 8, 8)
