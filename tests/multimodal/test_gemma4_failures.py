"""Gemma 4 whose towers, or whose mmproj file, are not what they should be: an error or a note that says why."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType

import gemma4_drafter
from damage import contained, edit_gguf_keys, edit_gguf_tensors, edit_header, edit_json, sealed_anew, text
from gemmaq.errors import InputError
from gemmaq.files.gguf_reader import ARRAY, STRING
from gemmaq.sources.companions import ALL
from gemmaq.sources.open import open_source
from inprocess import VERIFICATION, refused, run

U64, F64 = 10, 12
PROJECTION = "model.embed_vision.embedding_projection.weight"


@pytest.fixture
def model(gemma4_releases: dict[str, Path], tmp_path: Path) -> Path:
    """A model with a tower for images."""
    return shutil.copytree(gemma4_releases["dense"], tmp_path / "gemma-4-dense")


@pytest.fixture(scope="module")
def projected(gemma4_releases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file, its drafter, and its mmproj file, which has bounds of matrices."""
    out = tmp_path_factory.mktemp("projected") / "out"
    drafter = gemma4_drafter.write(out.parent / "drafter", gemma4_drafter.DRAFTERS["effective"])
    run("convert", gemma4_releases["effective"], "--draft", drafter, "-o", out)
    return out


def unlike_llama_cpp(folder: Path) -> None:
    edit_json(folder / "config.json", lambda c: c["vision_config"].update(pooling_kernel_size=4))


def other_rope(folder: Path) -> None:
    edit_json(folder / "config.json", lambda c: c["vision_config"]["rope_parameters"].update(rope_theta=10.0))


def no_config(folder: Path) -> None:
    edit_json(folder / "config.json", lambda c: c.pop("vision_config"))


def processor(folder: Path) -> None:
    edit_json(folder / "processor_config.json", lambda c: c["image_processor"].update(image_mean=["x"]))


def bytes_for_weights(folder: Path) -> None:
    def change(header: dict[str, Any]) -> None:
        entry = header[PROJECTION]
        rows, columns = entry["shape"]
        entry |= {"dtype": "I8", "shape": [rows, 2 * columns]}

    edit_header(folder / "model.safetensors", change)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (unlike_llama_cpp, ("vision_config has pooling_kernel_size 4", "no runtime but transformers")),
        (other_rope, ("rope_theta",)),
        (no_config, ("neither vision_config nor audio_config",)),
        (processor, ("the processor has image_mean",)),
        (bytes_for_weights, (PROJECTION, "I8")),
    ],
)
def test_towers_that_cannot_be_read_do_not_keep_the_text_model_from_being_converted(
    damage: Callable[[Path], None], words: tuple[str, ...], model: Path, tmp_path: Path
) -> None:
    sound = tmp_path / "sound"
    run("convert", model, "--mmproj", "none", "-o", sound)
    damage(model)
    refused(3, (*words, "--mmproj none"), "convert", model, "-o", tmp_path / "out", under=tmp_path)
    said = run("convert", model, "--mmproj", "none", "-o", tmp_path / "out").stderr
    assert "vision and audio cannot be read" in said and words[0] in said
    assert contained(tmp_path / "out") == contained(sound)
    assert "vision and audio cannot be read" in run("inspect", model).stdout


def test_a_training_does_not_begin_with_towers_that_cannot_be_read(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    unlike_llama_cpp(model)
    (tmp_path / "text.txt").write_text("one two three " * 400)
    arguments = ("qat", model, "--text", tmp_path / "text.txt", "--context", 64, "--steps", 2, "-o", tmp_path / "out")
    refused(3, ("pooling_kernel_size 4",), *arguments, under=tmp_path)


def test_verify_tells_of_towers_that_cannot_be_read(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("convert", model, "--to", "mlx", "-o", out)
    unlike_llama_cpp(out)
    sealed_anew(out)
    assert "pooling_kernel_size 4" in run("verify", out, code=VERIFICATION).stdout


def test_tensors_that_the_config_has_no_place_for_are_named(model: Path, tmp_path: Path) -> None:
    edit_json(model / "config.json", lambda c: c["vision_config"].update(num_hidden_layers=1))
    said = run("convert", model, "-o", tmp_path / "out", "--to", "mlx").stderr
    assert "the towers' config has no place for them: vision_tower.encoder.layers.1." in said
    again = run("verify", tmp_path / "out", "--against", model)
    assert "differ" not in again.stdout


@pytest.mark.parametrize(
    "value",
    [
        (STRING, text("wide")),
        (ARRAY, struct.pack("<IQ", STRING, 0)),
        (ARRAY, struct.pack("<IQQ", U64, 1, 256)),
        (ARRAY, struct.pack("<IQQQ", U64, 2, 256, 256)),
        (U64, struct.pack("<Q", 1 << 63)),
    ],
)
def test_an_mmproj_file_whose_width_is_none_of_the_models_is_passed_over(
    value: tuple[int, bytes], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run("convert", model, "-o", out)
    projector = next(out.glob("mmproj-*.gguf"))
    edit_gguf_keys(projector, lambda keys: keys.update({"clip.vision.projection_dim": value}))
    found = open_source(str(next(out.glob("gemma-*.gguf"))))
    assert not found.towers
    assert projector.name in " ".join(found.notes)


def test_a_model_may_be_named_like_a_drafter_or_an_mmproj_file(model: Path, tmp_path: Path) -> None:
    source = model.rename(tmp_path / "mtp-mmproj-gemma-4-dense")
    run("convert", source, "-o", tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").glob("*.gguf"))
    assert files == ["gemma-4-dense-Q4_0.gguf", "mmproj-gemma-4-dense-F16.gguf"]
    run("verify", tmp_path / "out")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"v.blk.0.attn_q.input_min": None}, ("lacks", "q_proj.input_min", "--mmproj none")),
        ({"v.blk.0.attn_q.input_min": "x"}, ("lacks", "q_proj.input_min", "--mmproj none")),
        ({"v.blk.0.attn_q.weight": GGMLQuantizationType.I8}, ("type I8", "cannot be read")),
    ],
)
def test_a_tensor_that_an_mmproj_file_lacks_or_has_in_another_type_is_named(
    damage: dict[str, Any], words: tuple[str, ...], projected: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(projected, tmp_path / "copy")
    edit_gguf_tensors(next(folder.glob("mmproj-*.gguf")), damage)
    model = next(folder.glob("gemma-*.gguf"))
    said = run("convert", model, "--quant", "auto", "-o", tmp_path / "out", code=3).stderr
    assert all(word in said for word in words), said


def test_tensors_that_an_mmproj_file_has_besides_are_named(projected: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(projected, tmp_path / "copy")
    edit_gguf_tensors(next(folder.glob("mmproj-*.gguf")), {"v.blk.0.attn_q.input_min": "v.blk.9.attn_q.input_min"})
    said = run("inspect", next(folder.glob("gemma-*.gguf"))).stdout
    assert "has no place for them: v.blk.9.attn_q.input_min" in said


VALUES = (
    (STRING, text("many")),
    (ARRAY, struct.pack("<IQ", STRING, 0)),
    (ARRAY, struct.pack("<IQ2Q", U64, 2, 0, 1 << 63)),
    (U64, struct.pack("<Q", 1 << 63)),
    (U64, bytes(8)),
    (F64, struct.pack("<d", float("nan"))),
)


@pytest.mark.parametrize("beginning", ["mmproj-", "mtp-"])
def test_a_key_of_any_kind_in_a_file_beside_the_model_is_read_or_refused(
    beginning: str, projected: Path, tmp_path: Path
) -> None:
    """Every key has one of the values."""
    folder = shutil.copytree(projected, tmp_path / "copy")
    model, beside = (next(folder.glob(f"{start}*.gguf")) for start in ("gemma-", beginning))
    sound, keys = beside.read_bytes(), dict[str, Any]()
    edit_gguf_keys(beside, keys.update)
    names = [name for name in keys if name.startswith(("clip.", "gemma4-assistant.", "split."))]
    assert names
    for at, name in enumerate(names):
        beside.write_bytes(sound)
        edit_gguf_keys(beside, lambda keys, at=at, name=name: keys.update({name: VALUES[at % len(VALUES)]}))
        try:
            found = open_source(str(model), ALL)
        except InputError as error:
            assert error.message
        else:
            assert beside.name in " ".join(found.notes)
