"""QAT checkpoints through the command line: what is recovered, what it is worth, and what users are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
from grids import RULES, regrid
from inprocess import run
from runtimes import Require, need

TEXT = """The river had risen in the night, and by morning the lower meadow was a sheet of brown water with the tops of
the fence posts standing out of it like the masts of sunken boats. Nobody in the village was surprised. The old people
said that it came every nineteen years, as their parents had told them, and that there was no use in being angry with
water. Anna carried the hens upstairs, two at a time, and counted them on the landing: eleven, which was right.

def moving_average(values, width):
    total = sum(values[:width])
    yield total / width
    for old, new in zip(values, values[width:]):
        total += new - old
        yield total / width"""


def divergence(reference: np.ndarray, logits: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the tokens, nats."""
    import torch

    p, q = (torch.from_numpy(array).log_softmax(-1) for array in (reference, logits))
    return float((p.exp() * (p - q)).sum(-1).double().mean())


@pytest.fixture(scope="module")
def qat(sample_bf16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 270M with its matrices on the grid absmax/7, in BF16: a stand-in for a QAT checkpoint."""
    return regrid(sample_bf16, tmp_path_factory.mktemp("qat") / "gemma-3-270m-it-qat-unquantized", "absmax/7")


@pytest.mark.slow
@pytest.mark.oracle
def test_recovering_the_grid_keeps_the_model(
    qat: Path, tmp_path: Path, require: Require, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    need(require, "torch", "transformers")
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(qat)(TEXT)["input_ids"]
    assert 120 < len(ids) < 200
    model = runtimes.dense(qat)
    reference = runtimes.logits(model, ids)
    lost = {}
    for method in ("auto", "nearest"):
        run("convert", qat, "--method", method, "-o", tmp_path / method)
        runtimes.put(model, next((tmp_path / method).glob("*.gguf")))
        lost[method] = divergence(reference, runtimes.logits(model, ids))
        record_property(f"kl_{method}", lost[method])
    with capsys.disabled():
        print(f"\nmean KL over {len(ids)} tokens: auto {lost['auto']:.2e}, nearest {lost['nearest']:.2e}")
    assert lost["auto"] <= 1e-3
    assert lost["nearest"] > 50 * lost["auto"]


def test_what_convert_and_inspect_say_of_a_real_size(qat: Path) -> None:
    assert warnings(qat) == []
    done = json.loads(run("convert", qat, "--dry-run", "--json").stdout)
    rules = [entry["rule"] for entry in done["grid"] if entry["on_grid"]]
    assert rules == ["absmax/7"] * 126
    assert max(entry["residual"] for entry in done["grid"] if entry["on_grid"]) < 2e-3
    grid = json.loads(run("inspect", qat, "--json").stdout)["grid"]
    assert {k: grid[k] for k in ("matrices", "on_grid", "rules")} == {
        "matrices": 127,
        "on_grid": 126,
        "rules": {"absmax/7": 126},
    }
    assert 1e-4 < grid["residual"] < 2e-3
    text = run("inspect", qat).stdout
    assert "126 of 127 matrices lie on an int4 grid (126 absmax/7)" in text


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_named_and_recovered(rule: str, tiny: Path, tmp_path: Path) -> None:
    source = regrid(tiny, tmp_path / "gemma-3-tiny-qat", rule)
    done = run("convert", source, "--json", "-o", tmp_path / "out")
    report = json.loads(done.stdout)
    assert [entry["rule"] for entry in report["grid"] if entry["on_grid"]] == [rule] * 49
    assert report["artifacts"][0]["outcomes"] == {"lattice": 49, "quantized": 1, "float": 43}
    listed = run("inspect", source, "--tensors").stdout
    assert f"49 of 50 matrices lie on an int4 grid (49 {rule})" in listed
    assert sum(f"{rule} 0." in line for line in listed.splitlines()) == 49
    facts = json.loads(run("inspect", source, "--tensors", "--json").stdout)["tensors"]
    assert sum("grid" in tensor for tensor in facts) == 50
    assert sum(tensor.get("grid", {}).get("rule") == rule for tensor in facts) == 49


def warnings(source: Path, *options: object) -> list[str]:
    """What convert warns of, but for the small model's rows being too short for Q6_K."""
    done = json.loads(run("convert", source, "--dry-run", "--json", *options).stdout)
    return [text for text in done["warnings"] if "instead of Q6_K" not in text]


def test_a_name_that_promises_a_grid_is_checked(tiny: Path, tmp_path: Path) -> None:
    promise = "the name says QAT, but the weights lie on no int4 grid"
    kept = regrid(tiny, tmp_path / "gemma-3-tiny-qat", "absmax/7")
    broken = Path(shutil.copytree(tiny, tmp_path / "gemma-3-4b-it-qat-q4_0-unquantized"))
    assert [promise in text for text in warnings(broken)] == [True]
    assert not any(promise in text for text in warnings(kept) + warnings(tiny))
    assert "the name says so, but the weights lie on no int4 grid" in run("inspect", broken).stdout
    assert "QAT" not in run("inspect", tiny).stdout


def test_trained_weights_in_another_type_are_warned_of(tiny: Path, tmp_path: Path) -> None:
    source = regrid(tiny, tmp_path / "gemma-3-tiny-qat", "absmax/7")
    assert warnings(source) == []
    lost = "49 tensors are trained for an int4 grid but written as Q4_1: q4_0 keeps the grid"
    assert lost in warnings(source, "--quant", "q4_1")
    assert (
        "49 tensors are trained for an int4 grid but written as Q4_1"
        in run("convert", source, "--quant", "q4_1", "-o", tmp_path / "out").stderr
    )
    assert not any("trained" in text for text in warnings(source, "--quant", "bf16"))


def test_a_grid_under_the_embedding_is_a_hint(tiny: Path, tmp_path: Path) -> None:
    source = regrid(tiny, tmp_path / "gemma-3-tiny-qat", "absmax/7", embedding=True)
    hint = "the embedding lies on an int4 grid too: --embedding q4_0"
    assert any(hint in text for text in warnings(source))
    assert warnings(source, "--embedding", "q4_0") == []
    report = json.loads(run("convert", source, "--embedding", "q4_0", "--json", "-o", tmp_path / "out").stdout)
    assert report["artifacts"][0]["outcomes"] == {"lattice": 50, "float": 43}


def test_ordinary_weights_are_quantized_as_ever(tiny: Path, tmp_path: Path) -> None:
    for method in ("auto", "nearest"):
        run("convert", tiny, "--method", method, "-o", tmp_path / method)
    auto, nearest = (next((tmp_path / method).glob("*.gguf")).read_bytes() for method in ("auto", "nearest"))
    assert auto == nearest
