"""An adapter alone, as llama.cpp reads it: with its base it computes what the merged model does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lora_files
import oracles
from gemmaq.files import gguf_reader, sums
from gemmaq.files.span import FileSpan, Reader
from inprocess import run
from small import SMALL, tokenizer
from synthetic import write_checkpoint

PARTS = {"self_attn.q_proj": (64, 64), "self_attn.o_proj": (64, 64), "mlp.up_proj": (96, 64), "mlp.down_proj": (64, 96)}
TARGETS = [part.partition(".")[2] for part in PARTS]
PREFIX = "base_model.model.model."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("base") / "gemma-3-small", SMALL)
    for name, content in tokenizer(SMALL.vocab_size).items():
        (folder / name).write_bytes(content)
    return folder


def every_pair(rank: int = 4) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for layer in range(SMALL.num_hidden_layers):
        for number, (part, (rows, columns)) in enumerate(PARTS.items()):
            module = f"model.layers.{layer}.{part}"
            arrays |= lora_files.pair(rows, columns, rank, module=module, seed=10 * layer + number)
    return {name: 3 * array for name, array in arrays.items()}


def adapter(folder: Path, base: Path, arrays: dict[str, np.ndarray] | None = None, **changes: Any) -> Path:
    settings = lora_files.config(**{"target_modules": TARGETS} | changes)
    return lora_files.write(folder, settings, every_pair() if arrays is None else arrays, base=base)


SCALINGS: dict[str, dict[str, Any]] = {
    "alpha / rank": {},
    "rank-stabilized": {"use_rslora": True},
    "alpha of some modules": {"alpha_pattern": {"q_proj": 32, "layers.1.mlp.up_proj": 1}},
}


@pytest.mark.oracle
@pytest.mark.parametrize("case", SCALINGS)
def test_llama_cpp_computes_what_the_merged_model_does(
    base: Path, tmp_path: Path, require: Callable[[bool, str], None], case: str
) -> None:
    oracles.need_ggml(require)
    folder = adapter(tmp_path / "my-adapter", base, **SCALINGS[case])
    run("convert", folder, "--to", "gguf-lora", "-o", tmp_path / "alone")
    for source, name in ((base, "base"), (folder, "merged")):
        run("convert", source, "--quant", "f32", "--embedding", "f32", "-o", tmp_path / name)
    ids = list(range(300, 340))

    def logits(model: Path, alone: Path | None = None) -> np.ndarray:
        with oracles.load_llama(model) as llama:
            if alone is not None:
                llama.add_adapter(alone)
            return np.concatenate([part.copy() for part in llama.logits(ids, exact=True)])

    plain = logits(tmp_path / "base" / "gemma-3-small-F32.gguf")
    added = logits(tmp_path / "base" / "gemma-3-small-F32.gguf", tmp_path / "alone" / "my-adapter-F32-LoRA.gguf")
    merged = logits(tmp_path / "merged" / "my-adapter-F32.gguf")
    assert np.abs(merged - plain).max() > 0.1
    assert np.abs(added - merged).max() < 1e-3 * np.abs(merged - plain).max()


def test_the_file_has_the_keys_and_tensors_of_llama_cpps_converter(base: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "my-adapter", base)
    run("convert", folder, "--to", "gguf-lora", "-o", tmp_path / "out")
    path = tmp_path / "out" / "my-adapter-F32-LoRA.gguf"
    file = gguf_reader.parse(FileSpan.of(path))
    keys = {"general.type": "adapter", "adapter.type": "lora", "general.architecture": "gemma3"}
    assert keys.items() <= file.keys.items()
    assert file.keys["adapter.lora.alpha"] == 8.0
    tensors = {info.name: info for info in file.tensors}
    assert len(tensors) == 2 * len(PARTS) * SMALL.num_hidden_layers
    assert tensors["blk.0.ffn_down.weight.lora_a"].shape == (4, 96)
    assert tensors["blk.0.ffn_down.weight.lora_b"].shape == (64, 4)
    with Reader() as reader:
        info = tensors["blk.1.attn_q.weight.lora_b"]
        stored = np.frombuffer(reader.bytes(file.span, info.offset, info.nbytes), "<f4").reshape(info.shape)
    assert np.array_equal(stored, every_pair()[f"{PREFIX}layers.1.self_attn.q_proj.lora_B.weight"])


def test_it_is_on_record_and_can_be_replaced_and_verified(base: Path, tmp_path: Path) -> None:
    folder, out = adapter(tmp_path / "my-adapter", base), tmp_path / "out"
    run("convert", folder, "--to", "gguf-lora", "-o", out)
    path = out / "my-adapter-F32-LoRA.gguf"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert sums.read(out) == {
        path.name: digest,
        "gemmaq.json": hashlib.sha256((out / "gemmaq.json").read_bytes()).hexdigest(),
    }
    said = json.loads((out / "gemmaq.json").read_text())
    assert said["files"] == [{"path": path.name, "bytes": path.stat().st_size, "sha256": digest}]
    assert (said["type"], said["adapter"]["kind"], said["adapter"]["base"]) == ("F32", "LoRA", "gemma-3-small")
    assert {file["path"] for file in said["adapter"]["files"]} >= {"adapter_model.safetensors", "adapter_config.json"}
    assert "2 files are what SHA256SUMS says; the weights of an adapter alone" in run("verify", out).stdout
    run("convert", folder, "--to", "gguf-lora", "-o", out, code=7)
    run("convert", folder, "--to", "gguf-lora", "-o", out, "--force")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    run("verify", out, code=8)


def test_the_forecast_is_right_to_the_byte_and_types_can_be_chosen(base: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", base)
    for kind in ("f16", "bf16"):
        arguments = ("convert", folder, "--to", "gguf-lora", "--quant", kind, "-o", tmp_path / kind, "--json")
        planned = json.loads(run(*arguments, "--dry-run").stdout)
        assert not (tmp_path / kind).exists()
        run(*arguments)
        assert Path(planned["path"]).stat().st_size == planned["bytes"]


NORM = {f"{PREFIX}layers.0.input_layernorm.weight": np.ones(64, np.float32)}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, np.ndarray], str]] = {
    "DoRA": (
        {"use_dora": True},
        {f"{lora_files.PREFIX}{lora_files.Q0}.lora_magnitude_vector": np.ones(64, np.float32)},
        "DoRA",
    ),
    "a module stored whole": ({"modules_to_save": ["input_layernorm"]}, NORM, "stores model.layers.0.input_layernorm"),
    "the embedding": (
        {"target_modules": ["q_proj", "embed_tokens"]},
        {
            f"{PREFIX}embed_tokens.lora_embedding_A": np.ones((4, SMALL.vocab_size), np.float32),
            f"{PREFIX}embed_tokens.lora_embedding_B": np.ones((64, 4), np.float32),
        },
        "embed_tokens",
    ),
    "more tokens": ({}, {f"{PREFIX}embed_tokens.weight": np.ones((4100, 64), np.float32)}, "embed_tokens"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_file_cannot_hold_is_refused(base: Path, tmp_path: Path, case: str) -> None:
    changes, arrays, words = REFUSED[case]
    folder = adapter(tmp_path / "a", base, lora_files.pair(64, 64) | arrays, **{"target_modules": ["q_proj"]} | changes)
    done = run("convert", folder, "--to", "gguf-lora", "-o", tmp_path / "out", code=3)
    assert words in done.stderr
    assert "--to gguf" in done.stderr
    assert not (tmp_path / "out").exists()


def test_weights_beyond_f16_are_refused(base: Path, tmp_path: Path) -> None:
    arrays = {name: array * np.float32(1e6) for name, array in every_pair().items()}
    folder = adapter(tmp_path / "a", base, arrays)
    done = run("convert", folder, "--to", "gguf-lora", "--quant", "f16", "-o", tmp_path / "out", code=3)
    assert "F16" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_adapter_for_certain_tokens_keeps_them(base: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", base, alora_invocation_tokens=[5, 7])
    run("convert", folder, "--to", "gguf-lora", "-o", tmp_path / "out")
    keys = gguf_reader.parse(FileSpan.of(tmp_path / "out" / "a-F32-LoRA.gguf")).keys
    assert list(keys["adapter.alora.invocation_tokens"]) == [5, 7]
