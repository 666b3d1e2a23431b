"""Specs and options from the command line and from files: names with brackets, and values behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hostile import Hostile
from hypothesis import given

from bench.data.splits import ProtocolConfig
from bench.metrics.protocols import resolve
from bench.tools.registry import METHODS
from bench.tools.spec import build_config, config_dict, label, parse_spec, split_specs

KIND = "specs and options"


def method(text: str) -> Any:
    spec = parse_spec(text)
    return build_config(METHODS.load(spec.name).Config, spec)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("[]", id="no name"),
        pytest.param("promptad[", id="open"),
        pytest.param("promptad]", id="closed"),
        pytest.param("promptad[[iters=1]", id="open twice"),
        pytest.param("promptad[iters]", id="no value"),
        pytest.param("promptad[iters=]", id="an empty value"),
        pytest.param("promptad[=1]", id="no option"),
        pytest.param("promptad[iters=1,iters=2]", id="an option twice"),
        pytest.param("promptad[iters=1.5]", id="half a step"),
        pytest.param("promptad[iters=1e3]", id="an exponent"),
        pytest.param("promptad[iters=nan]", id="NaN steps"),
        pytest.param("promptad[iters=" + "9" * 5000 + "]", id="5000 digits"),
        pytest.param("promptad[lr=nan]", id="a rate of NaN"),
        pytest.param("promptad[lr=-inf]", id="an infinite rate"),
        pytest.param("promptad[lr=1e999]", id="a rate beyond floats"),
        pytest.param("promptad[cmi=perhaps]", id="perhaps"),
        pytest.param("promptad[__class__=1]", id="a dunder"),
        pytest.param("promptad[iters=1][iters=2]", id="brackets twice"),
        pytest.param("../promptad", id="a name that climbs"),
        pytest.param("promptad\x00", id="NUL"),
        pytest.param("\x1b[31m]", id="an escape sequence"),
        pytest.param("anomalib/../../os", id="a model that climbs"),
        pytest.param("anomalib/__init__", id="a module"),
        pytest.param("anomalib/" + "x" * 9999, id="a long model"),
        pytest.param("promptad/clip", id="a model of a method"),
        pytest.param("[" * 100_000, id="100000 brackets"),
        pytest.param("a" * 1_000_000, id="a megabyte"),
    ],
)
def test_what_is_no_method(hostile: Hostile, text: str) -> None:
    hostile.refused(lambda: method(text))


@pytest.mark.parametrize(
    "text",
    [
        *("loo[k=-1]", "loo[k=nan]", "loo[k=1.5]", "loo[k=on]", "loo[seen=none]", "loo[k=1,k=2]", "loo[x=1]"),
        *("loo[k=" + "9" * 5000 + "]", "loo[types=../one]"),
    ],
)
def test_what_is_no_protocol(hostile: Hostile, text: str) -> None:
    hostile.refused(lambda: build_config(ProtocolConfig, parse_spec(text), "protocol"))


@pytest.mark.parametrize(
    "text",
    [
        *("grid200[sigma=nan]", "grid200[sigma=inf]", "grid200[sigma=1e9]", "grid200[sigma=-1]", "exact[sigma=4]"),
        *("exact[eval_size=0]", "exact[eval_size=-5]", "exact[eval_size=1e9]", "exact[eval_size=1000000000]"),
        *("grid200[steps=1000000000]", "grid200[mask_resize=../any]", "exact[eval_size=²]", "EXACT", "exact[]x"),
    ],
)
def test_what_is_no_metric_protocol(hostile: Hostile, text: str) -> None:
    hostile.refused(lambda: resolve(text))


@pytest.mark.parametrize(
    "words",
    [
        *(["cache", "--limit", limit] for limit in ("nan", "inf", "-1", "many")),
        *(["check", "--margin", margin] for margin in ("nan", "inf", "-1", "many")),
        *(["run", "--workers", "-1"], ["run", "--executor", "../local"], ["run", "--metrics", "../auroc"]),
        *(
            ["table", "--metric-protocol", "../exact"],
            ["report", "--images", "-1"],
            ["figure", "maps", "--count", "0"],
        ),
        *(["split", "--category", "x", "--seed", "-1"], ["split", "--category", "x", "--shots", "1.5"]),
    ],
    ids=" ".join,
)
def test_numbers_of_commands(hostile: Hostile, tmp_path: Path, words: list[str]) -> None:
    hostile.command(*words, *([] if words[0] in ("cache", "split") else ["--store", tmp_path]))


OPTIONS = st.text("promtad[]=,+.01ens-kclu \x00é", max_size=40)


@given(text=OPTIONS)
def test_any_spec(hostile: Hostile, text: str) -> None:
    spec = hostile.either(lambda: parse_spec(text))
    if spec is not None:
        assert parse_spec(str(spec)) == spec
    hostile.either(lambda: split_specs(text))


@given(option=st.sampled_from(["iters", "lr", "cmi", "clip_layers", "encoder", "optim"]), value=OPTIONS)
def test_any_value(hostile: Hostile, option: str, value: str) -> None:
    config = hostile.either(lambda: method(f"promptad[{option}={value}]"))
    if config is not None:
        assert config_dict(method(label("promptad", config))) == config_dict(config)
