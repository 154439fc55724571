"""compressed-tensors' own types, in larger groups or with a scale a row: what the library reads, what comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import runtimes
from damage import small_model
from inprocess import refused, run
from runtimes import need
from synthetic import EVEN

FORMS = {"int4-g64": (4, 64), "int4-g128": (4, 128), "int4-channel": (4, None), "int8-channel": (8, None)}
"""Type -> bits and group size, None for a scale a row."""


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("even") / "gemma-3-even", EVEN)


@pytest.fixture(scope="module")
def folders(even: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Type -> the model in it."""
    root = tmp_path_factory.mktemp("forms")
    for name in FORMS:
        run("convert", even, "--to", "safetensors", "--quant", name, "-o", root / name)
    return {name: root / name for name in FORMS}


def settings_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "config.json").read_text())["quantization_config"]
    return result


@pytest.mark.parametrize("name", FORMS)
def test_arrays_and_settings(name: str, folders: dict[str, Path], even: Path) -> None:
    from safetensors import safe_open

    bits, group = FORMS[name]
    with safe_open(folders[name] / "model.safetensors", "np") as file:
        stem = "model.layers.3.mlp.down_proj.weight"
        packed, scales = (file.get_slice(f"{stem}_{suffix}") for suffix in ("packed", "scale"))
        assert (packed.get_dtype(), packed.get_shape()) == ("I32", [128, 256 * bits // 32])
        assert (scales.get_dtype(), scales.get_shape()) == ("BF16", [128, 256 // (group or 256)])
    settings = settings_of(folders[name])
    assert settings["format"] == "pack-quantized" and settings["ignore"] == ["lm_head"]
    (only,) = settings["config_groups"].values()
    assert only["targets"] == ["Linear"] and only["weights"] == {
        "num_bits": bits,
        "type": "int",
        "symmetric": True,
        "strategy": "group" if group else "channel",
        "group_size": group,
        "dynamic": False,
    }
    options = ("--to", "safetensors", "--quant", name, "--dry-run", "--json")
    (dry,) = json.loads(run("convert", even, *options).stdout)["artifacts"]
    sizes = {file["path"]: file["bytes"] for file in dry["files"]}
    assert (folders[name] / "model.safetensors").stat().st_size == sizes["model.safetensors"]


@pytest.mark.parametrize("name", FORMS)
def test_it_is_a_source_and_its_codes_are_kept(name: str, folders: dict[str, Path], even: Path, tmp_path: Path) -> None:
    shown = json.loads(run("inspect", folders[name], "--json").stdout)
    assert set(shown["types"]) == {name, "bf16"}
    estimated = run("estimate-vram", even, "--engine", "vllm", "--quant", name, "--context", "512", "--json").stdout
    weights = sum(entry["bytes"] for entry in shown["types"].values())
    assert json.loads(estimated)["estimates"][0]["bytes"]["weights"] == weights
    run("convert", folders[name], "--to", "safetensors", "--quant", "auto", "-o", tmp_path / "again")
    for file in "model.safetensors", "config.json":
        assert (tmp_path / "again" / file).read_bytes() == (folders[name] / file).read_bytes()
    run("verify", folders[name], "--against", even, "-q")


@pytest.mark.oracle
@pytest.mark.parametrize("name", [*FORMS, "mixed"])
def test_transformers_has_the_weights_that_gemmaq_reads(
    name: str, folders: dict[str, Path], even: Path, tmp_path: Path, require: runtimes.Require
) -> None:
    need(require, "compressed_tensors")
    import torch
    from compressed_tensors.quantization import QuantizationConfig
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "mixed"
    if name == "mixed":
        recipe = tmp_path / "mixed.toml"
        recipe.write_text(
            'quant = "int4-channel"\n[[rules]]\nmatch = "*.v_proj.weight"\ntype = "int8-channel"\n'
            '[[rules]]\nmatch = "*.mlp.*"\ntype = "int4-g128"\n'
        )
        run("convert", even, "--to", "safetensors", "--recipe", recipe, "-o", folder)
    else:
        folder = folders[name]
    QuantizationConfig.model_validate(settings_of(folder))
    run("convert", folder, "--to", "safetensors", "--quant", "f32", "-o", tmp_path / "f32")

    def weights(path: Path) -> dict[str, Any]:
        model, info = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
        assert not any(info.values()), info
        with torch.no_grad():
            assert model.eval()(torch.tensor([[2, 5, 7]])).logits.isfinite().all()  # unpacks the weights, in f32
        return dict(model.named_parameters())

    ours, theirs = weights(tmp_path / "f32"), weights(folder)
    assert [key for key, value in ours.items() if not torch.equal(theirs[key], value)] == []


@pytest.mark.parametrize("name", ["int4-g64", "int4-g128"])
def test_mlx_holds_the_same_codes_in_groups(name: str, folders: dict[str, Path], even: Path, tmp_path: Path) -> None:
    run("convert", folders[name], "--to", "mlx", "--quant", "auto", "--embedding", "bf16", "-o", tmp_path / "mlx")
    assert set(json.loads(run("inspect", tmp_path / "mlx", "--json").stdout)["types"]) == {name, "bf16"}
    run("convert", tmp_path / "mlx", "--to", "safetensors", "--quant", "auto", "-o", tmp_path / "back")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (folders[name] / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("to", "name"), [("gguf", "int4-g64"), ("gguf", "int8-channel"), ("mlx", "int4-channel"), ("mlx", "int8-channel")]
)
def test_containers_that_cannot_hold_them_say_so(to: str, name: str, even: Path, tmp_path: Path) -> None:
    arguments = ("convert", even, "--to", to, "--quant", name, "-o", tmp_path / "out")
    refused(3, (f"{to} cannot hold {name.upper()}", f"{to} holds: "), *arguments, under=tmp_path)


def test_a_row_that_is_no_multiple_of_32_stays_as_it_is(tmp_path: Path) -> None:
    from dataclasses import replace

    source = small_model(tmp_path / "odd", replace(EVEN, intermediate_size=48))
    options = ("--to", "safetensors", "--quant", "int4-channel", "--dry-run")
    assert "blocks of 32 do not fit rows of 48" in run("convert", source, *options).stderr


@pytest.mark.parametrize("name", ["int4-g128", "int4-channel"])
def test_calibrated_methods_write_them(
    name: str, folders: dict[str, Path], even: Path, tmp_path: Path, require: runtimes.Require
) -> None:
    need(require, "torch", "transformers")
    text = tmp_path / "text.txt"
    text.write_text("Some words to calibrate on, and some more. " * 200)
    found = {(folders[name] / "model.safetensors").read_bytes()}
    for method in "importance", "gptq":
        options = ("--to", "safetensors", "--quant", name, "--method", method, "--text", text)
        run("convert", even, *options, "-o", tmp_path / method)
        assert set(json.loads(run("inspect", tmp_path / method, "--json").stdout)["types"]) == {name, "bf16"}
        found.add((tmp_path / method / "model.safetensors").read_bytes())
    assert len(found) == 3 and len(set(map(len, found))) == 1
