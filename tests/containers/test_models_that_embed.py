"""A model that embeds in every container: bytes against llama.cpp's tools, vectors against transformers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedding import write_model
from gemmaq.sources.open import open_source
from inprocess import run
from llama_server import ask, job
from oracles import llama_quantize, need, need_ggml, read_gguf, reference_converter

Require = Callable[[bool, str], None]
IDS = [2, *range(300, 340)]
"""More tokens than the window lets one see."""

OURS_ALONE = {
    "general.license", "general.license.link", "general.base_model.count", "general.base_model.0.name",
    "general.base_model.0.organization", "general.base_model.0.repo_url",
}  # fmt: skip
"""Keys that the converter leaves out, as the folder has no card; the folder's name is that of the publisher."""
THEIRS_ALONE = {"general.finetune"}
"""The converter takes `300m` for a part of it, as this small model is nowhere near 300M."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "embeddinggemma-300m")


@pytest.fixture(scope="module")
def floats(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An F32 file with dense heads."""
    folder = tmp_path_factory.mktemp("floats") / "out"
    run("convert", model, "--quant", "f32", "--dense-heads", "-o", folder)
    return folder / "embeddinggemma-300m-F32.gguf"


@pytest.fixture(scope="module")
def vectors(model: Path, require: Require) -> np.ndarray:
    """Vectors of the last layer in transformers, f32 [tokens, hidden]."""
    need(require, "torch", "transformers")
    return last_layer(model)


def last_layer(folder: Path) -> np.ndarray:
    import torch
    from transformers import AutoModel

    loaded, report = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    with torch.no_grad():
        found: np.ndarray = loaded.eval()(input_ids=torch.tensor([IDS])).last_hidden_state[0].numpy()
    return found


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("heads", [False, True], ids=["plain", "with dense heads"])
def test_keys_and_tensors_are_those_of_the_reference_converter(
    require: Require, model: Path, floats: Path, tmp_path: Path, heads: bool
) -> None:
    converter = reference_converter()
    require(converter is not None, "the reference converter ($GEMMAQ_REFERENCE_CONVERTER)")
    ours, theirs = floats, tmp_path / "theirs.gguf"
    if not heads:
        run("convert", model, "--quant", "f32", "-o", tmp_path / "out")
        ours = tmp_path / "out" / floats.name
    options = ["--sentence-transformers-dense-modules"] if heads else []
    command = [converter, model, "--outtype", "f32", "--outfile", theirs, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (our_keys, our_tensors), (their_keys, their_tensors) = read_gguf(ours), read_gguf(theirs)
    assert our_tensors == their_tensors
    size = {"general.size_label"} if heads else set()  # the converter counts the heads
    differing = {key for key in {*our_keys, *their_keys} if our_keys.get(key) != their_keys.get(key)}
    assert differing == OURS_ALONE | THEIRS_ALONE | size
    assert not OURS_ALONE & their_keys.keys() and not THEIRS_ALONE & our_keys.keys()


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["q4_0", "q4_k_m"])
def test_a_quantized_file_is_that_of_llama_quantize(
    require: Require, model: Path, floats: Path, tmp_path: Path, kind: str
) -> None:
    need_ggml(require)
    llama_quantize(floats, tmp_path / "theirs.gguf", kind)
    run("convert", model, "--quant", kind, "--dense-heads", "-o", tmp_path / "out")
    ours = read_gguf(tmp_path / "out" / f"embeddinggemma-300m-{kind.upper()}.gguf")
    assert ours == read_gguf(tmp_path / "theirs.gguf")


@pytest.mark.oracle
@pytest.mark.slow
def test_llama_cpp_pools_the_same_vector_as_transformers(
    require: Require, model: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    need(require, "xllamacpp")
    run("convert", model, "--quant", "f32", "-o", tmp_path / "out")
    request = "/v1/embeddings", {"input": IDS, "encoding_format": "float"}
    (answer,) = ask(job(tmp_path / "out" / "embeddinggemma-300m-F32.gguf", request, embedding=True))
    assert cosine(np.array(answer["data"][0]["embedding"]), vectors.mean(0)) > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_transformers_loads_the_folder(
    model: Path, floats: Path, vectors: np.ndarray, tmp_path: Path, kind: str
) -> None:
    source = model if kind == "folder" else floats
    run("convert", source, "--to", "safetensors", "--quant", "bf16", "-o", tmp_path / "out")
    np.testing.assert_array_equal(last_layer(tmp_path / "out"), vectors)
    assert not (tmp_path / "out" / "generation_config.json").exists()


def test_files_of_sentence_transformers_are_copied_and_verified(model: Path, tmp_path: Path) -> None:
    run("convert", model, "--to", "safetensors", "--quant", "q4_0", "-o", tmp_path / "out")
    embedder = open_source(str(model)).embedder
    assert embedder is not None
    for name, path in embedder.files.items():
        assert (tmp_path / "out" / name).read_bytes() == path.read_bytes()
    run("verify", tmp_path / "out", "--against", model)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "sentence-similarity" in card and "chat" not in card and "keeps no cache" in card


def test_ollama_gets_no_template_and_no_sampling(floats: Path) -> None:
    lines = (floats.parent / "Modelfile").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["FROM", "LICENSE"]
    assert not (floats.parent / "params").exists()


def test_dense_heads_must_be_there(floats: Path, model: Path, tmp_path: Path) -> None:
    bare = write_model(tmp_path / "bare", heads=False)
    assert "has no dense heads" in run("convert", bare, "--dense-heads", "-o", tmp_path / "out", code=3).stderr
    assert "mlx-embeddings" in run("convert", bare, "--to", "mlx", "-o", tmp_path / "out", code=3).stderr


def test_what_predicts_no_tokens_is_neither_evaluated_nor_trained(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Some text to read, again and again. " * 200)
    assert "makes vectors" in run("evaluate", model, "--reference", model, "--text", text, code=3).stderr
    assert "makes vectors" in run("qat", model, "--text", text, "-o", tmp_path / "out", code=3).stderr


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bf16", "q4_0"])
def test_mlx_embeddings_makes_the_same_vector(require: Require, model: Path, tmp_path: Path, kind: str) -> None:
    """mlx-embeddings attends to the whole text in every layer, so the text is as long as the window's half."""
    need(require, "mlx", "mlx_embeddings", "torch", "transformers")
    import mlx.core as mx
    import torch
    from mlx_embeddings.utils import load_model
    from transformers import AutoModel

    run("convert", model, "--to", "mlx", "--quant", kind, "-o", tmp_path / "mlx")
    run("convert", tmp_path / "mlx", "--to", "safetensors", "--quant", "f32", "-o", tmp_path / "hf")
    ids = IDS[:8]
    made = load_model(tmp_path / "mlx")
    made.set_dtype(mx.float32)
    found = made(mx.array([ids])).last_hidden_state[0]
    with torch.no_grad():
        loaded = AutoModel.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
        wanted = loaded(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
    assert cosine(np.array(found).mean(0), wanted.mean(0)) > 0.9999
