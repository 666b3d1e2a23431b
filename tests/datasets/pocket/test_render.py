"""The shipped pocket set and its encoders are what the code here makes of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from make import pretrain, render
from make.categories import CATEGORIES
from make.defects import LARGEST, SMALLEST
from make.noise import SIZE
from make.pool import CELLS, UNSEEN, Mixture, draw_chunk
from PIL import Image

import bench.datasets.pocket
from bench.datasets.pocket import HALVES
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


def test_every_category_has_three_types_and_one_half() -> None:
    assert len(CATEGORIES) == 12
    assert len({kind for recipe in CATEGORIES.values() for kind in recipe.defects}) == 7
    assert all(len(recipe.defects) == 3 for recipe in CATEGORIES.values())
    assert render.PER_DEFECT >= 10  # what the paper's protocol draws of one type
    assert sorted(name for half in HALVES.values() for name in half) == sorted(CATEGORIES)


def test_every_anomaly_has_a_mask_of_its_size_and_nothing_else_does() -> None:
    for item in ITEMS:
        image = pixels(item.path)
        assert image.shape == (SIZE, SIZE, 3)
        if item.mask_path is None:
            continue
        with Image.open(IMAGES / item.mask_path) as picture:
            assert picture.mode == "L"
            mask = np.asarray(picture)
        assert mask.shape == (SIZE, SIZE)
        assert np.unique(mask).tolist() == [0, 255], item.mask_path
        assert SMALLEST <= (mask > 0).mean() <= LARGEST


def test_no_two_images_are_the_same() -> None:
    digests = {hashlib.sha256(pixels(item.path).tobytes()).hexdigest() for item in ITEMS}
    assert len(digests) == len(ITEMS)


def test_what_is_shipped_stays_small() -> None:
    assert sum(path.stat().st_size for path in IMAGES.rglob("*.png")) < 8_000_000
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 20_000_000


def test_a_chunk_of_the_pool_follows_from_seed_and_number() -> None:
    first, again = draw_chunk(3, 5, 8, Mixture()), draw_chunk(3, 5, 8, Mixture())
    other = draw_chunk(3, 6, 8, Mixture())
    assert [s.captions for s in first] == [s.captions for s in again]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert [s.captions for s in first] != [s.captions for s in other]


def test_the_pool_leaves_three_families_out() -> None:
    families = [s.family for n in range(8) for s in draw_chunk(1, n, 32, Mixture(group=1, captions=1))]
    drawn = {family.shape for family in families} | {family.texture for family in families}
    assert not drawn & set(UNSEEN)
    assert set(UNSEEN) <= set(CATEGORIES)


def test_the_pool_says_what_is_drawn_where() -> None:
    samples = draw_chunk(2, 0, 32, Mixture(defects=0.5, details=0.0))
    assert any(s.defect for s in samples) and any(s.family.shape is None for s in samples)
    for s in samples:
        cover, details, defect = s.drawn
        assert s.drawn.shape == (3, CELLS, CELLS) and not details.any()
        assert bool(defect.any()) == (s.defect is not None)
        assert (cover.mean() == 255) or s.family.shape is not None or s.defect is not None


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pool of two chunks of eight images; nothing of the package is written."""
    work = tmp_path_factory.mktemp("pool")
    patch = pytest.MonkeyPatch()
    patch.setattr(pretrain, "CHUNK", 8)
    patch.setattr(pretrain, "HELD_OUT", 8)
    patch.setattr(pretrain, "WEIGHTS", work)
    (work / "clip.json").write_text((WEIGHTS / "clip.json").read_text())
    pretrain.render_pool(work, seed=5, count=16)
    yield work
    patch.undo()


def test_a_caption_pairs_with_every_image_that_it_describes(pool: Path) -> None:
    tokenizer = WordTokenizer.read(pool / "vocabulary.txt")
    texts = pretrain.Texts(pool, tokenizer)
    numbers = np.arange(16)
    rows, pairs = texts.draw(numbers, np.random.default_rng(0))
    samples = [s for n in range(2) for s in draw_chunk(5, n, 8, Mixture())]
    which = np.random.default_rng(0).integers(Mixture().captions, size=16)
    captions = [s.captions[k] for s, k in zip(samples, which, strict=True)]
    assert pairs.diagonal().all()
    assert pairs.tolist() == [[caption.facts <= s.facts for caption in captions] for s in samples]
    asked = tokenizer([c.text for c in captions])[:, : rows.shape[1]]
    assert ((rows == asked) | (rows == 1)).all()


@pytest.mark.parametrize("turns", range(8))
def test_a_view_turns_the_image_and_what_is_drawn_in_it_alike(pool: Path, turns: int) -> None:
    some = pretrain.Pool(pool)
    plain, turned = some.view(np.arange(16)), some.view(np.arange(16), turns)
    marked = plain.drawn[:, 2].repeat_interleave(SIZE // CELLS, 1).repeat_interleave(SIZE // CELLS, 2) > 0.5
    there = turned.drawn[:, 2].repeat_interleave(SIZE // CELLS, 1).repeat_interleave(SIZE // CELLS, 2) > 0.5
    assert marked.any()
    assert sorted(plain.images[:, 0][marked].tolist()) == sorted(turned.images[:, 0][there].tolist())
    assert turns == 0 or not np.array_equal(plain.images, turned.images)


def test_every_epoch_shows_all_but_the_held_out_images(pool: Path) -> None:
    batches = pretrain.Pool(pool).batches(1, 8)
    for _ in range(3):
        assert sorted(next(batches).numbers.tolist()) == list(range(8))


@pytest.mark.parametrize("what", ["clip", "resnet"])
def test_pretraining_learns_and_goes_on_where_it_stopped(pool: Path, what: str) -> None:
    words = ["--work", str(pool), "--batch", "8", "--every", "1"]
    pretrain.main([what, *words, "--steps", "2"])
    pretrain.main([what, *words, "--steps", "3"])
    log = (pool / f"{what}.log").read_text()
    lines = re.findall(r"^step +\d|went on from step \d", log, re.M)
    assert [line.split()[-1] for line in lines] == ["1", "2", "2", "3"]
    assert "held out" in log and (pool / f"{what}.safetensors").is_file()


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
        assert clip.encode_image(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, config["embed_dim"])
        assert clip.encode_text(tokenizer(["a ring", "a damaged ring"])).shape == (2, config["embed_dim"])

    backbone = build_backbone().eval()
    backbone.load_state_dict(load_file(WEIGHTS / "resnet.safetensors"))
    assert sum(parameter.numel() for parameter in backbone.parameters()) <= 1_000_000
    with torch.no_grad():
        assert backbone(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, backbone.num_features, 12, 12)
