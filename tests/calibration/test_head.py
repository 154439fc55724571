"""GPTQ of the head: what the last states are multiplied with, and rows that are looked up if it is tied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibrating import dense, opened, planned, read_back
from damage import SMALL, small_model
from gemmaq.calibration import gptq, head, layerwise
from gemmaq.calibration.store import Problem, Store
from gemmaq.convert.layout import make_plans
from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.errors import InputError
from gemmaq.methods import Choice, quantize
from gemmaq.models.roles import Role
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.progress import ignore
from gemmaq.sources.open import open_source
from inprocess import run
from wide_models import untie

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def last_states(model: Path, tokens: np.ndarray) -> np.ndarray:
    """States behind the final norm in transformers, f64 [tokens, hidden]."""
    import torch
    from transformers import Gemma3ForCausalLM

    loaded = Gemma3ForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    with torch.no_grad():
        return loaded.model(torch.from_numpy(tokens)).last_hidden_state.reshape(-1, SMALL.hidden_size).double().numpy()


def solved(checkpoint, tokens, folder: Path, *kinds: str) -> dict[str, np.ndarray]:
    """Type -> weights of the head, f32 [vocabulary, hidden]."""
    folder.mkdir()
    source = checkpoint.head or checkpoint.embedding
    problems = [Problem(source, ENCODINGS[kind]) for kind in kinds]
    with opened(checkpoint) as net:
        found = layerwise.quantize(
            net, tokens, problems, settings=gptq.Settings(), store=Store(folder), progress=ignore
        )
    return {p.encoding.name: dequantize(p.encoding, read_back(tensor)) for p, tensor in found.tensors.items()}


def loss(errors: np.ndarray, states: np.ndarray) -> float:
    return float(np.square(states @ errors.T).sum())


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    folder = small_model(tmp_path_factory.mktemp("untied") / "gemma-3-untied", seed=6)
    untie(folder, SMALL)
    return folder


def test_logits_change_less_than_by_rounding(model, checkpoint, tokens, tmp_path):
    weights, states = dense(checkpoint, checkpoint.embedding.name), last_states(model, tokens)
    for kind, found in solved(checkpoint, tokens, tmp_path / "s", "q5_0", "q4_0", "iq4_nl").items():
        nearest = dequantize(ENCODINGS[kind], quantize(weights, ENCODINGS[kind], Choice("nearest")))
        assert loss(found - weights, states) < 0.7 * loss(nearest - weights, states)
        assert np.square(found - weights).sum() < 2 * np.square(nearest - weights).sum()  # rows are looked up, too


def test_of_an_untied_head_only_its_products_count(untied, tokens, tmp_path, monkeypatch):
    checkpoint = open_source(str(untied))
    assert checkpoint.head is not None
    alone = solved(checkpoint, tokens, tmp_path / "a", "q5_0")["q5_0"]
    monkeypatch.setattr(head, "LOOKED_UP", 1000.0)
    assert np.array_equal(solved(checkpoint, tokens, tmp_path / "b", "q5_0")["q5_0"], alone)


def test_a_tied_head_is_weighed_by_its_look_up(checkpoint, tokens, tmp_path, monkeypatch):
    weighed = solved(checkpoint, tokens, tmp_path / "a", "q5_0")["q5_0"]
    monkeypatch.setattr(head, "LOOKED_UP", 0.0)
    assert not np.array_equal(solved(checkpoint, tokens, tmp_path / "b", "q5_0")["q5_0"], weighed)


@pytest.mark.parametrize(
    "quant, embedding, method",
    [("q4_0", "q5_0", "gptq"), ("bf16", "q4_0", "gptq"), ("q4_0", "q8_0", "nearest"), ("q4_0", None, "nearest")],
)
def test_heads_of_less_than_eight_bits_are_solved(quant, embedding, method, checkpoint):

    (plan,) = make_plans(checkpoint, Request(of(quant, embedding=embedding, method="gptq"), ("gguf",)), {})
    (table,) = [tensor for tensor in plan.tensors if tensor.source.place.role is Role.EMBEDDING]
    assert table.choice.method == method


def test_rows_that_are_only_looked_up_are_rounded(untied):
    (plan,) = planned(open_source(str(untied)), quant="q4_k_s")
    methods = {t.source.place.role: t.choice.method for t in plan.tensors if t.source.place.role.is_table}
    assert methods[Role.EMBEDDING] == "nearest"


def test_damaged_rows_are_told(tmp_path, text, tokens):
    folder = small_model(tmp_path / "gemma-3-tiny")
    shard = folder / "model.safetensors"
    content = bytearray(shard.read_bytes())
    checkpoint = open_source(str(folder))
    part = checkpoint.embedding.parts[0]
    content[part.offset : part.offset + 2] = b"\xc0\x7f"
    shard.write_bytes(content)
    with pytest.raises(InputError, match="NaN"):
        solved(open_source(str(folder)), np.maximum(tokens, 1), tmp_path / "s", "q5_0")


def test_all_containers_hold_the_codes_that_verify_derives(model, file, tmp_path):
    flags = ("--embedding", "q4_0", "--method", "gptq", "--text", file, "--calibration-context", "80")
    run("convert", model, *flags, "--to", "gguf", "--to", "mlx", "-o", tmp_path / "out")
    for container in ("gguf", "mlx"):
        run("verify", tmp_path / "out" / container, "--against", model, "--text", file)
    opened_ = [open_source(str(next((tmp_path / "out/gguf").glob("*.gguf")))), open_source(str(tmp_path / "out/mlx"))]
    first, second = (dense(each, each.embedding.name) for each in opened_)
    assert np.array_equal(first, second)
