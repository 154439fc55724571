"""Threads, shards and the spelling of the source do not change a result; split files and heads make a round trip."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damage import SMALL, add_tensor, contained, edit_json, gguf_bytes, key, small_model, stored, text, tree
from gemmaq.files.gguf_reader import STRING
from gemmaq.models.gemma3.names import EMBEDDING, HEAD, shapes
from inprocess import run
from oracles import read_gguf

SEVERAL_SLABS = replace(SMALL, vocab_size=20_000)
"""Its embedding is more than a worker takes at a time."""

OPTIONS = [
    ("--to", "gguf", "--quant", "q4_0"),
    ("--to", "gguf", "--quant", "bf16", "--max-shard-size", "100k"),
    ("--to", "safetensors", "--quant", "f16", "--max-shard-size", "1M"),
    ("--to", "mlx", "--quant", "affine4"),
    ("--to", "gguf", "--to", "mlx", "--to", "safetensors", "--portable"),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "gemma-3-tiny")


def convert(source: Path, out: Path, *options: object) -> dict[str, bytes]:
    """Files of a conversion without its record and card: name -> content."""
    run("convert", source, "-o", out, *options)
    return contained(out)


def report(source: Path, out: Path, *options: object) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run("convert", source, "-o", out, "--json", *options).stdout)
    return result


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_the_bytes_do_not_depend_on_threads_or_place(options: tuple[str, ...], tmp_path: Path) -> None:
    source = small_model(tmp_path / "here/gemma-3-tiny", SEVERAL_SLABS)
    moved = small_model(tmp_path / "there/gemma-3-tiny", SEVERAL_SLABS)
    convert(source, tmp_path / "one", *options, "--threads", 1)
    convert(source, tmp_path / "four", *options, "--threads", 4)
    convert(moved, tmp_path / "moved", *options)
    one = tree(tmp_path / "one")
    assert tree(tmp_path / "four") == tree(tmp_path / "moved") == one
    assert not any(str(tmp_path).encode() in content for content in one.values() if content)


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_a_dry_run_tells_the_bytes_of_the_real_run(options: tuple[str, ...], model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dry, real = (report(model, out, *options, *more) for more in (("--dry-run",), ()))
    for artifact, foretold in zip(real["artifacts"], dry.pop("artifacts"), strict=True):
        folder = Path(artifact["path"])
        for file in artifact["files"]:
            assert (folder / file["path"]).stat().st_size == file["bytes"]
            assert len(file.pop("sha256")) == 64
        assert sorted(file["path"] for file in artifact["files"]) == sorted(contained(folder))
        assert {name: artifact[name] for name in foretold} == foretold
    assert {name: real[name] for name in dry} == dry
    assert {*real} - {*dry} == {"artifacts", "seconds", "peak_rss_bytes"}


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model.", "model.language_model.model."])
def test_the_prefix_of_tensor_names_does_not_show(prefix: str, model: Path, tmp_path: Path) -> None:
    other = small_model(tmp_path / "other/gemma-3-tiny", prefix=prefix)
    assert convert(other, tmp_path / "a") == convert(model, tmp_path / "b")


def test_the_shards_of_the_source_do_not_show(model: Path, tmp_path: Path) -> None:
    other = small_model(tmp_path / "other/gemma-3-tiny", shard_bytes=30_000)
    assert len(list(other.glob("*.safetensors"))) > 3
    for to in ("gguf", "safetensors"):
        assert convert(other, tmp_path / "a" / to, "--to", to) == convert(model, tmp_path / "b" / to, "--to", to)


def test_the_spelling_of_the_config_does_not_show(model: Path, tmp_path: Path) -> None:
    other = shutil.copytree(model, tmp_path / "other/gemma-3-tiny")

    def respell(config: dict[str, Any]) -> None:
        rope = {"rope_type": "default"}
        full, local = ({**rope, "rope_theta": config.pop(k)} for k in ("rope_theta", "rope_local_base_freq"))
        del config["rope_scaling"], config["sliding_window_pattern"], config["layer_types"]
        config["rope_parameters"] = {"full_attention": full, "sliding_attention": local}
        config["dtype"] = config.pop("torch_dtype")
        config["_sliding_window_pattern"] = 6

    edit_json(other / "config.json", respell)
    assert convert(other, tmp_path / "a") == convert(model, tmp_path / "b")


def test_a_head_that_repeats_the_embedding_is_dropped(model: Path, tmp_path: Path) -> None:
    plain = convert(model, tmp_path / "plain")
    add_tensor(model, HEAD, stored(model, EMBEDDING))
    assert convert(model, tmp_path / "tied") == plain


def test_a_head_of_its_own_is_kept_there_and_back(model: Path, tmp_path: Path) -> None:
    head = stored(model, EMBEDDING)[::-1]
    add_tensor(model, HEAD, head)
    convert(model, tmp_path / "gguf", "--quant", "bf16")
    file = tmp_path / "gguf/gemma-3-tiny-BF16.gguf"
    assert read_gguf(file)[1]["output.weight"][-1] == head.tobytes()
    back = tmp_path / "back/gemma-3-tiny"
    convert(file, back, "--to", "safetensors", "--quant", "bf16")
    np.testing.assert_array_equal(stored(back, HEAD), head)
    np.testing.assert_array_equal(stored(back, EMBEDDING), stored(model, EMBEDDING))
    assert json.loads((back / "config.json").read_text())["tie_word_embeddings"] is False


def test_towers_are_left_out_with_a_note(model: Path, tmp_path: Path) -> None:
    plain = convert(model, tmp_path / "plain")
    add_tensor(model, "vision_tower.vision_model.encoder.weight", np.zeros((7, 9), np.uint16))
    warnings = report(model, tmp_path / "out", "--mmproj", "none")["warnings"]
    assert any("towers" in warning for warning in warnings)
    assert contained(tmp_path / "out") == plain


@pytest.fixture
def split(model: Path, tmp_path: Path) -> list[Path]:
    """The shards of a split BF16 GGUF."""
    convert(model, tmp_path / "split", "--quant", "bf16", "--max-shard-size", "50k")
    shards = sorted((tmp_path / "split").glob("*.gguf"))
    assert len(shards) > 2
    return shards


def test_a_split_file_holds_what_a_whole_one_does(model: Path, split: list[Path], tmp_path: Path) -> None:
    convert(model, tmp_path / "whole", "--quant", "bf16")
    whole = tmp_path / "whole/gemma-3-tiny-BF16.gguf"
    keys, tensors = read_gguf(whole)
    parts = [read_gguf(shard) for shard in split]
    found = [item for _, some in parts for item in some.items()]
    assert found == list(tensors.items()) and len(found) == len(list(shapes(SMALL)))
    assert {name: value for name, value in parts[0][0].items() if not name.startswith("split.")} == keys
    for number, (shard, (told, _)) in enumerate(zip(split, parts, strict=True)):
        numbers = [told[f"split.{name}"][1] for name in ("no", "count", "tensors.count")]
        assert numbers == [number, len(split), len(found)]
        assert shard.stat().st_size < 60_000


@pytest.mark.parametrize("options", [("--to", "safetensors", "--quant", "f32"), ("--quant", "q8_0")], ids=" ".join)
def test_a_split_file_is_a_source_like_a_whole_one(
    options: tuple[str, ...], model: Path, split: list[Path], tmp_path: Path
) -> None:
    convert(model, tmp_path / "whole", "--quant", "bf16")
    wanted = convert(tmp_path / "whole/gemma-3-tiny-BF16.gguf", tmp_path / "from whole", *options)
    assert convert(split[0], tmp_path / "from split", *options) == wanted
    assert convert(split[-1], tmp_path / "from last", *options) == wanted
    assert convert(split[0].parent, tmp_path / "from folder", *options)


def test_a_missing_shard_is_not_found_and_named(split: list[Path], tmp_path: Path) -> None:
    split[1].unlink()
    for source in (split[0], split[2], split[0].parent):
        assert split[1].name in run("convert", source, "-o", tmp_path / "out", code=5).stderr


def test_a_shard_under_another_name_is_refused(split: list[Path], tmp_path: Path) -> None:
    alone = split[0].rename(tmp_path / "alone.gguf")
    assert f"{len(split)} shards" in run("convert", alone, "-o", tmp_path / "out", code=3).stderr
    shutil.copy(split[1], split[0])
    assert split[0].name in run("convert", split[0], "-o", tmp_path / "out", code=3).stderr


def test_a_cut_shard_is_refused_by_name(split: list[Path], tmp_path: Path) -> None:
    split[1].write_bytes(split[1].read_bytes()[:-2000])
    message = run("convert", split[0], "-o", tmp_path / "out", code=3).stderr
    assert split[1].name in message and "truncated" in message


@pytest.mark.parametrize(
    "name", ["model-00001-of-00000.gguf", "model-00000-of-00000.gguf", "model-00004-of-00003.gguf"]
)
def test_a_shard_number_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gguf_bytes())
    run("convert", tmp_path / name, "-o", tmp_path / "out", code=3)


@pytest.mark.parametrize(("architecture", "word"), [("clip", "mmproj"), ("llama", "llama"), ("gemma3n", "gemma3n")])
def test_a_gguf_of_something_else_is_refused_by_name(architecture: str, word: str, tmp_path: Path) -> None:
    file = tmp_path / "mmproj-gemma-3-4b-it-F16.gguf"
    file.write_bytes(gguf_bytes([key("general.architecture", STRING, text(architecture))]))
    assert word in run("convert", file, "-o", tmp_path / "out", code=3).stderr
    assert not (tmp_path / "out").exists()


def test_a_gguf_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf_bytes(version=9))
    message = run("convert", file, "-o", tmp_path / "out", code=3).stderr
    assert str(file) in message and "version 9" in message
