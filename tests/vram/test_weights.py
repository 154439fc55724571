"""Memory of models on disk: the bytes of their files, in every form that an engine loads as it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from damage import SMALL, add_tensor, edit_json, header_of, small_model
from gemmaq.models.gemma3 import towers
from gemmaq.models.gemma3.vision_config import VisionConfig
from inprocess import Done, run
from oracles import read_gguf

CONTEXT = ("--context", 1024)


def ask(source: Path | str, *options: object) -> tuple[list[dict[str, Any]], Done]:
    done = run("estimate-vram", source, *CONTEXT, *options, "--json")
    return json.loads(done.stdout)["estimates"], done


def only(source: Path | str, *options: object) -> dict[str, Any]:
    (entry,) = ask(source, *options)[0]
    return entry


def with_image_tokens(folder: Path) -> Path:
    small_model(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<start_of_image>": 300, "<end_of_image>": 301}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder in BF16, text only, with tokens for images in its vocabulary."""
    return with_image_tokens(tmp_path_factory.mktemp("vram") / "gemma-3-tiny")


@pytest.fixture(scope="module")
def q4_0(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model as a Q4_0 GGUF, with codes that every container can hold."""
    out = tmp_path_factory.mktemp("vram") / "out"
    run("convert", folder, "--quant", "q4_0", "--portable", "-o", out, "-q")
    return out / "gemma-3-tiny-Q4_0.gguf"


def converted(source: Path, out: Path, *options: object) -> Path:
    run("convert", source, "-o", out, "-q", *options)
    return out


def tensor_bytes(path: Path) -> int:
    """Bytes of the tensors of a GGUF or safetensors file."""
    if path.suffix == ".gguf":
        return sum(len(data) for *_, data in read_gguf(path)[1].values())
    header, _ = header_of(path)
    spans = (entry["data_offsets"] for name, entry in header.items() if name[0] != "_" and "_shape" not in name)
    return sum(end - begin for begin, end in spans)


def test_a_folder_in_bf16_is_planned(folder: Path, q4_0: Path) -> None:
    entries, done = ask(folder)
    assert [(e["model"], e["quant"]) for e in entries] == [("gemma-3-tiny", "bf16"), ("gemma-3-tiny", "q4_0")]
    assert entries[1]["bytes"]["weights"] == tensor_bytes(q4_0)
    assert done.stderr == ""
    assert only(folder, "--quant", "q8_0")["bytes"]["weights"] < entries[0]["bytes"]["weights"]


def test_types_that_need_an_importance_matrix_are_counted_too() -> None:
    weights = [only("4b", "--quant", quant)["bytes"]["weights"] for quant in ("iq2_xs", "q2_k_s", "iq3_xs", "q3_k_m")]
    assert weights == sorted(weights)
    both = only("gemma-4-31b", "--quant", "iq2_m", "--draft", "31b-it-assistant")
    assert both["quant"] == "iq2_m"


def test_a_gguf_file_counts_as_it_is(q4_0: Path, folder: Path) -> None:
    entry = only(q4_0)
    assert (entry["model"], entry["quant"], entry["embedding"]) == ("gemma-3-tiny", "q4_0", "q8_0")
    assert entry["bytes"]["weights"] == tensor_bytes(q4_0)
    assert only(q4_0.parent) == entry
    planned = only(q4_0, "--quant", "q8_0")
    assert planned["quant"] == "q8_0" and planned["bytes"]["weights"] > entry["bytes"]["weights"]
    assert only(q4_0, "--gpu", "8GB")["gpus"][0]["max_quant"] == "bf16"


def test_a_split_gguf_file_counts_whole(folder: Path, q4_0: Path, tmp_path: Path) -> None:
    out = converted(folder, tmp_path / "out", "--quant", "q4_0", "--max-shard-size", "20KB")
    shards = sorted(out.glob("*.gguf"))
    assert len(shards) > 2
    weights = sum(map(tensor_bytes, shards))
    assert weights == tensor_bytes(q4_0)
    for source in (shards[0], shards[-1], out):
        assert only(source)["bytes"]["weights"] == weights
    shards[1].unlink()
    assert shards[1].name in run("estimate-vram", shards[0], *CONTEXT, code=5).stderr


@pytest.mark.parametrize(("container", "engine"), (("mlx", "mlx"), ("safetensors", "vllm")))
def test_a_quantized_folder_counts_as_it_is_where_it_runs(
    q4_0: Path, tmp_path: Path, container: str, engine: str
) -> None:
    out = converted(q4_0, tmp_path / "gemma-3-tiny", "--to", container)
    entry = only(out, "--engine", engine)
    assert entry["engine"] == engine and entry["quant"] == "q4_0"
    assert entry["bytes"]["weights"] == sum(map(tensor_bytes, out.glob("*.safetensors")))
    elsewhere, _ = ask(out)
    assert [e["quant"] for e in elsewhere] == ["bf16", "q4_0"]
    assert elsewhere[1]["bytes"]["weights"] == tensor_bytes(q4_0)


def test_several_sources_and_sizes_at_once(folder: Path, q4_0: Path) -> None:
    entries, _ = ask("1b", q4_0, folder)
    assert [e["model"] for e in entries] == ["gemma-3-1b"] * 2 + ["gemma-3-tiny"] * 3


def test_a_folder_named_like_a_size_is_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1b").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert ask("1b")[0][0]["bytes"]["weights"] < 1_000_000
    assert ask("gemma-3-1b")[0][0]["bytes"]["weights"] > 1_000_000_000


def test_the_sample() -> None:
    """A file with a mixture of types."""
    entry = only("sample:gemma-3-270m")
    assert (entry["model"], entry["bytes"]["weights"]) == ("gemma-3-270m", 246_587_904)
    scratch = 2 * 512 * (1024 + 1024) + 4 * 512 * 2 * 640
    assert (entry["embedding"], entry["host"]) == ("q8_0", 262144 * 640 * 34 // 32 + 4 * 262144 + scratch)


@pytest.mark.parametrize(
    ("source", "code", "word"),
    (
        ("./nowhere", 5, "./nowhere"),
        ("nowhere.gguf", 5, "nowhere.gguf"),
        ("nowhere", 2, "gemma-3-27b"),
        ("sample:nothing", 5, "sample:gemma-3-270m"),
        ("{folder}/config.json", 3, "config.json"),
        ("{empty}", 5, "config.json"),
    ),
)
def test_what_is_no_model(folder: Path, tmp_path: Path, source: str, code: int, word: str) -> None:
    named = source.format(folder=folder, empty=tmp_path)
    assert word in run("estimate-vram", named, *CONTEXT, code=code).stderr


EYES = VisionConfig(64, 96, 1, 2, 14, 56, tokens=1)
"""A vision tower of one layer that cuts an image into 16 patches."""


def projector(path: Path, width: int = SMALL.hidden_size, architecture: str = "clip") -> int:
    """A small mmproj file by gguf-py; bytes of its tensors."""
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    writer.add_string("clip.projector_type", "gemma3")
    numbers = {
        "projection_dim": width,
        "image_size": EYES.image_size,
        "patch_size": EYES.patch_size,
        "embedding_length": EYES.hidden_size,
        "feed_forward_length": EYES.intermediate_size,
        "block_count": 1,
        "attention.head_count": 2,
    }
    for name, number in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    for name in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{name}", [0.5, 0.5, 0.5])
    arrays = {
        towers.to_gguf(name): np.ones(shape, np.float16 if len(shape) > 1 else np.float32)
        for name, shape in towers.shapes(EYES, width)
    }
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sum(array.nbytes for array in arrays.values())


@pytest.fixture
def model_file(q4_0: Path, tmp_path: Path) -> Path:
    """The GGUF file in a folder of its own, where an mmproj file can be put."""
    path = tmp_path / q4_0.name
    os.link(q4_0, path)
    return path


def test_an_mmproj_file_in_the_folder_is_loaded(model_file: Path) -> None:
    assert only(model_file)["bytes"]["vision"] == 0
    size = projector(model_file.with_name("mmproj-gemma-3-tiny-F16.gguf"))
    for engine in ("llama.cpp", "ollama", "lmstudio", "libllama"):
        entry = only(model_file, "--engine", engine)
        assert entry["vision_weights"] == size and entry["vision_compute"] > 0
        assert only(model_file, "--engine", engine, "--no-vision")["bytes"]["vision"] == 0
    assert only(model_file.parent)["vision_weights"] == size
    assert only(model_file, "--no-flash-attn")["vision_compute"] > only(model_file)["vision_compute"]


def test_of_two_mmproj_files_the_f16_one_is_loaded(model_file: Path) -> None:
    size = projector(model_file.with_name("mmproj-F16.gguf"))
    model_file.with_name("mmproj-BF16.gguf").write_bytes(b"never read")
    entry, done = ask(model_file)
    assert entry[0]["vision_weights"] == size and done.stderr.count("note:") == 1
    assert "mmproj-F16.gguf is taken as the model's mmproj file, not mmproj-BF16.gguf" in done.stderr


def cut_short(path: Path) -> None:
    projector(path)
    os.truncate(path, path.stat().st_size - 200)


USELESS: dict[str, Callable[[Path], object]] = {
    "of another size": lambda path: projector(path, SMALL.hidden_size + 1),
    "of another kind": lambda path: projector(path, architecture="gemma3"),
    "nonsense": lambda path: path.write_bytes(b"nonsense" * 9),
    "empty": lambda path: path.write_bytes(b""),
    "cut short": cut_short,
}


@pytest.mark.parametrize("what", USELESS)
def test_an_mmproj_file_of_no_use_is_passed_over_with_a_note(model_file: Path, what: str) -> None:
    name = "mmproj-model-f16.gguf"
    USELESS[what](model_file.with_name(name))
    (entry,), done = ask(model_file, "--engine", "ollama")
    assert entry["bytes"]["vision"] == 0 and entry["bytes"]["total"] > 0
    assert done.stderr.count("note:") == 1 and name in done.stderr
    message = run("estimate-vram", model_file, *CONTEXT, "--vision", code=2).stderr
    assert name in message and "no towers" in message


def test_an_mmproj_file_alone_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "mmproj-model-f16.gguf"
    projector(path)
    assert "text model" in run("estimate-vram", path, code=3).stderr


def test_a_multimodal_folder_weighs_what_its_files_will(tmp_path: Path) -> None:
    import numpy as np

    folder = with_image_tokens(tmp_path / "gemma-3-tiny")
    text = json.loads((folder / "config.json").read_text())
    edit_json(
        folder / "config.json",
        lambda config: config.update(
            architectures=["Gemma3ForConditionalGeneration"],
            model_type="gemma3",
            text_config=text,
            vision_config=towers.to_hf_config(EYES),
            **towers.token_keys(EYES),
        ),
    )
    for number, (name, shape) in enumerate(towers.shapes(EYES, SMALL.hidden_size)):
        add_tensor(folder, name, np.ones(shape, np.uint16), f"vision-{number}.safetensors")
    out = converted(folder, tmp_path / "out", "--quant", "q4_0")
    (mmproj,) = out.glob("mmproj*.gguf")
    (model,) = (path for path in out.glob("*.gguf") if path != mmproj)
    written = only(model)
    assert written["vision_weights"] == tensor_bytes(mmproj)
    entries, _ = ask(folder, "--vision")
    assert entries[1]["bytes"] == written["bytes"]
    expected = sum(2 * int(np.prod(shape)) for _, shape in towers.shapes(EYES, SMALL.hidden_size))
    assert only(folder, "--engine", "vllm", "--quant", "bf16")["vision_weights"] == expected
