from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from bench.errors import BenchError
from bench.tools.spec import Spec, build_config, config_dict, config_from_dict, label, parse_spec, split_specs


@dataclass(frozen=True)
class Config:
    layers: tuple[int, ...] = (3, 7, 9)
    rate: float = 1e-3
    steps: int = 100
    mutual: bool = True
    where: Literal["layerwise", "final_only"] = "layerwise"
    limit: int | None = None
    size: int | None = 224
    encoder: str = "openai/ViT-B-16"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError("steps must not be negative")


def test_list_keeps_commas_in_brackets_together() -> None:
    specs = split_specs("a[x=1,y=2], b ,c[e=timm/m[p=q,r=s],z=3]")
    assert [str(spec) for spec in specs] == ["a[x=1,y=2]", "b", "c[e=timm/m[p=q,r=s],z=3]"]


@pytest.mark.parametrize("text", ["", "[x=1]", "a[x=1", "a]x", "a[x]", "a[x=]", "a[=1]", "a[x=1,x=2]", "a[x=[1]"])
def test_malformed_specs_are_refused(text: str) -> None:
    with pytest.raises(BenchError):
        parse_spec(text)


def test_values_are_converted_by_type() -> None:
    options = {
        "layers": "0+2",
        "rate": "2e-4",
        "steps": "5",
        "mutual": "off",
        "where": "final_only",
        "limit": "7",
    }
    config = build_config(Config, Spec("m", options))
    assert config == Config((0, 2), 2e-4, 5, False, "final_only", 7)
    assert build_config(Config, Spec("m", {"limit": "none"})).limit is None


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("step", "5", "Did you mean 'steps'"),
        ("steps", "5.5", "not a"),
        ("mutual", "perhaps", "on or off"),
        ("where", "layer", "layerwise, final_only"),
        ("steps", "-1", "must not be negative"),
    ],
)
def test_wrong_options_say_what_would_be_right(option: str, value: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        build_config(Config, Spec("m", {option: value}))


def test_label_is_the_shortest_spec_and_round_trips() -> None:
    config = Config(layers=(1, 2), mutual=False, encoder="timm/m[p=q]", size=None)
    text = label("m", config)
    assert text == "m[encoder=timm/m[p=q],layers=1+2,mutual=off,size=none]"
    assert build_config(Config, parse_spec(text)) == config
    assert label("m", Config()) == "m"


def test_config_dict_is_plain_json() -> None:
    assert config_dict(Config())["layers"] == [3, 7, 9]


@dataclass(frozen=True)
class WithFiles:
    table: Path | None = None
    pairs: tuple[tuple[str, int], ...] = ()


def test_a_config_is_made_again_from_its_json() -> None:
    config = Config(layers=(1, 2), steps=5, limit=3, size=None)
    assert config_from_dict(Config, json.loads(json.dumps(config_dict(config)))) == config
    assert config_from_dict(Config, {"rate": 0.5}) == Config(rate=0.5)
    nested = config_from_dict(WithFiles, {"pairs": [["a", 1], ["b", 2]]})
    assert nested.pairs == (("a", 1), ("b", 2))


def test_a_file_is_found_by_its_hash_wherever_it_lies(tmp_path: Path) -> None:
    (file := tmp_path / "table.json").write_text("1")
    plain = json.loads(json.dumps(config_dict(WithFiles(file))))
    assert config_from_dict(WithFiles, plain).table == file
    elsewhere = {plain["table"]["sha256"]: "/elsewhere/table.json"}
    assert config_from_dict(WithFiles, plain, elsewhere).table == Path("/elsewhere/table.json")


@pytest.mark.parametrize(("plain", "message"), [({"stepz": 1}, "steps"), ({"steps": -1}, "must not be negative")])
def test_json_that_is_no_config_is_refused(plain: dict[str, int], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        config_from_dict(Config, plain)
