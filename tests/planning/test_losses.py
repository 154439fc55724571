"""Measured losses: as the benchmarks and README state them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gemmaq.encodings import ENCODINGS
from gemmaq.planning.losses import _LOSSES, loss_of
from gemmaq.planning.mixtures import MIXTURES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", [name for name in _LOSSES if name != "q4_0"])
def test_figures_are_those_of_the_benchmark(name: str) -> None:
    stated = (ROOT / "tests/benchmarks/gptq_types.py").read_text("utf-8")
    (line,) = re.findall(rf"^ +{name.upper()} +(?:nearest|importance).*$", stated, re.MULTILINE)
    found = {method: float(kl) for method, kl in re.findall(r"(nearest|importance|gptq) +([\d.]+)", line)}
    loss = loss_of(name)
    assert loss is not None and loss.kl == found and "widened" in loss.model


def test_q4_0_is_as_the_readme_has_it() -> None:
    loss = loss_of("Q4_0")
    assert loss is not None and "widened" not in loss.model
    readme = (ROOT / "README.md").read_text("utf-8")
    for start, method in (
        ("nearest; llama.cpp's Q4_0", "nearest"),
        ("`importance`;", "importance"),
        ("**`gptq`**", "gptq"),
    ):
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| {start}")]
        assert float(re.findall(r"0\.\d+", line)[0]) == loss.kl[method]


def test_types_exist_and_better_methods_lose_less() -> None:
    for name, loss in _LOSSES.items():
        assert name in ENCODINGS or name in MIXTURES
        kls = [loss.kl[method] for method in ("nearest", "importance", "gptq") if method in loss.kl]
        assert kls == sorted(kls, reverse=True) and len(kls) == len(loss.kl) > 1


def test_what_was_not_measured_has_no_figure() -> None:
    assert loss_of("q8_0") is None and loss_of("q5_k_m") is None
