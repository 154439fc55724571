"""Containers as data: one module and one entry are all that a new container takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.containers import hf_folder
from gemmaq.containers.layout import OutputFile
from gemmaq.encodings import ENCODINGS
from gemmaq.encodings.bitstream import pack_floats
from gemmaq.errors import UsageError
from gemmaq.planning.containers import CONTAINERS, Command, Container, check
from gemmaq.planning.format import Format, PieceSpec
from gemmaq.planning.plan import Plan
from inprocess import run


def test_names_are_checked() -> None:
    assert check("MLX") == "mlx"
    with pytest.raises(UsageError, match="unknown container 'onnx'"):
        check("onnx")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container of FP16 weights in safetensors files whose headers say `toy`."""
    target = Format(
        name="toy",
        holds=lambda encoding: encoding.name == "f16",
        holds_embedding=lambda encoding: encoding.name == "f16",
        gguf_names=False,
        vector=ENCODINGS["f16"],
        default_embedding=lambda body: body.name,
        pieces=lambda encoding, columns: (PieceSpec("weight", "F16", columns, encoding.row_bytes(columns)),),
        portable=False,
    )

    def lay_out(checkpoint: Checkpoint, plan: Plan, limit: int | None) -> tuple[OutputFile, ...]:
        files, _ = hf_folder.lay_out_shards(plan, target, limit, metadata={"format": "toy"}, always_index=False)
        side = hf_folder.side_files(checkpoint, hf_folder.whole_config(checkpoint, plan, "float16"), with_towers=False)
        return (*files, *(OutputFile(name, len(data), data) for name, data in side.items()))

    module = ModuleType("gemmaq.containers.toy")
    contents = {
        "FORMAT": target,
        "lay_out": lay_out,
        "pack": lambda planned, values: (pack_floats(planned.encoding, values),),
        "arrays": hf_folder.arrays,
    }
    for name, value in contents.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = Container(
        "toy",
        title="Toy",
        runtimes="toy runtimes",
        library="toy-library",
        engine="vllm",
        formats=("toy",),
        commands=(Command("toy run {weights}", "toy run {repo}"), Command("toy see .", "toy see {repo}", vision=True)),
    )
    monkeypatch.setitem(CONTAINERS, "toy", entry)


def test_a_new_container_is_one_module_and_one_entry(toy: None, tiny: Path, tmp_path: Path) -> None:
    options = ("--to", "toy", "--to", "gguf", "--quant", "f16", "-o", tmp_path / "out")
    dry = json.loads(run("convert", tiny, *options, "--dry-run", "--json").stdout)["artifacts"]
    assert [artifact["container"] for artifact in dry] == ["toy", "gguf"]
    run("convert", tiny, *options, "-q")
    folder = tmp_path / "out/toy"
    for file in dry[0]["files"]:
        assert (folder / file["path"]).stat().st_size == file["bytes"]
    card = (folder / "README.md").read_text()
    for words in ("## Toy", "for toy runtimes.", "library_name: toy-library", "toy run model.safetensors", "vLLM"):
        assert words in card
    assert "toy see" not in card and not (folder / "Modelfile").exists()
    run("verify", tmp_path / "out", "-q")
    entries = json.loads(run("verify", tmp_path / "out", "--against", tiny, "--json").stdout)["artifacts"]
    assert [entry["problems"] for entry in entries] == [[], []]
    assert all(tensor["equal"] for entry in entries for tensor in entry["tensors"])
    assert "toy cannot hold Q4_0" in run("convert", tiny, "--to", "toy", "-o", tmp_path / "new", code=3).stderr


def test_a_damaged_file_of_a_new_container_is_found(toy: None, tiny: Path, tmp_path: Path) -> None:
    run("convert", tiny, "--to", "toy", "--quant", "f16", "-q", "-o", tmp_path / "out")
    path = tmp_path / "out/model.safetensors"
    content = path.read_bytes()
    assert content.count(b'"toy"') == 1
    path.write_bytes(content.replace(b'"toy"', b'"TOY"'))
    done = run("verify", tmp_path / "out", "--against", tiny, code=8)
    assert "SHA256SUMS" in done.stdout and "header is not what gemmaq writes" in done.stdout
