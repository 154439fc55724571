"""Arrays of a folder under names without wrappers."""

from __future__ import annotations

from pathlib import Path

import pytest

from damage import edit_gguf_tensors
from gemmaq.checkpoint.folder import open_folder
from gemmaq.errors import InputError
from gemmaq.models.gemma3.names import FINAL_NORM
from inprocess import run
from weight_folders import WHOLE, bare_folder, holds, made, save, save_shards

OURS = made()
MIDDLE = "self_attn.q_proj"
WRAPPED = {
    "torch.compile": ("_orig_mod.{}", "_orig_mod"),
    "DDP": ("module.{}", "module"),
    "PEFT": ("base_model.model.{}", "base_model.model"),
    "nested": ("base_model.model._orig_mod.module.{}", "base_model.model, _orig_mod, module"),
    "FSDP": ("_fsdp_wrapped_module.model._fsdp_wrapped_module.{0[6:]}", "_fsdp_wrapped_module"),
    "of a model with towers": ("module.language_model.{}", "module"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bare_folder(tmp_path / "m")


def wrapped(form: str, name: str) -> str:
    if "[6:]" in form:
        return form.replace("{0[6:]}", name.removeprefix("model."))
    return form.format(name)


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("shards", [1, 3])
def test_wrapped_names_are_read_with_a_note(folder: Path, kind: str, shards: int) -> None:
    form, words = WRAPPED[kind]
    tensors = {wrapped(form, name): bits for name, bits in OURS.items()}
    if shards > 1:
        save_shards(folder, tensors, shards)
    else:
        save(folder / WHOLE, tensors)
    checkpoint = open_folder(folder, "m", str(folder))
    assert holds(checkpoint, OURS)
    assert checkpoint.notes == (f"tensor names are read without {words}: wrappers of training tools",)


def test_wrappers_in_the_middle_of_names_are_taken_out(folder: Path) -> None:
    def within(name: str) -> str:
        name = name.replace(MIDDLE, f"{MIDDLE}.base_layer")
        return name.replace(".mlp.", "._checkpoint_wrapped_module.mlp._orig_mod.")

    save(folder / WHOLE, {within(name): bits for name, bits in OURS.items()})
    checkpoint = open_folder(folder, "m", str(folder))
    assert holds(checkpoint, OURS) and "_checkpoint_wrapped_module" in checkpoint.notes[0]


def test_wrapped_vision_tensors_are_known_too(folder: Path) -> None:
    tensors = {f"_orig_mod.{name}": bits for name, bits in OURS.items()}
    save(folder / WHOLE, {**tensors, "_orig_mod.vision_tower.post_layernorm.weight": OURS[FINAL_NORM]})
    notes = "\n".join(open_folder(folder, "m", str(folder)).notes)
    assert "437 more of its 439 tensors" in notes and "no part of" not in notes


def test_a_tensor_with_and_without_wrapper_is_refused(folder: Path) -> None:
    save(folder / WHOLE, {**OURS, f"module.{FINAL_NORM}": OURS[FINAL_NORM]})
    with pytest.raises(InputError, match=f"{FINAL_NORM} and module.{FINAL_NORM}"):
        open_folder(folder, "m", str(folder))


@pytest.mark.parametrize("part", ["lora_A.default.weight", "lora_embedding_B", "modules_to_save.default.weight"])
def test_an_adapter_that_is_not_merged_is_never_left_out(folder: Path, part: str) -> None:
    name = f"base_model.model.model.layers.0.{MIDDLE}.{part}"
    save(folder / WHOLE, {**{f"base_model.model.{name}": bits for name, bits in OURS.items()}, name: OURS[FINAL_NORM]})
    with pytest.raises(InputError, match="not merged") as refused:
        open_folder(folder, "m", str(folder))
    assert name in refused.value.message and "merge_and_unload" in str(refused.value.hint)


PREFIX = "language_model.model."


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model.", "", "module.model."])
def test_messages_name_tensors_as_the_file_does(folder: Path, prefix: str) -> None:
    stored = {prefix + name.removeprefix("model."): bits for name, bits in OURS.items()}
    wrong, lost = f"{prefix}layers.1.mlp.up_proj.weight", f"{prefix}layers.0.mlp.down_proj.weight"
    for change, name in (({wrong: stored[wrong][:-1]}, wrong), ({}, lost)):
        tensors = {**stored, **change}
        if not change:
            del tensors[lost]
        save(folder / WHOLE, tensors)
        with pytest.raises(InputError) as refused:
            open_folder(folder, "m", str(folder))
        assert f"tensor {name}" in refused.value.message


def test_weights_that_are_no_numbers_are_told_by_their_name_in_the_file(folder: Path, tmp_path: Path) -> None:
    stored = {f"{PREFIX}{name.removeprefix('model.')}": bits.copy() for name, bits in OURS.items()}
    bad = f"{PREFIX}layers.1.mlp.up_proj.weight"
    stored[bad][0, 0] = 0x7FC0
    save(folder / WHOLE, stored)
    assert f"tensor {bad}" in run("convert", folder, "-o", tmp_path / "out", code=3).stderr


def test_a_tensor_that_a_gguf_file_lacks_is_told_by_its_name_there(folder: Path, tmp_path: Path) -> None:
    save(folder / WHOLE, OURS)
    run("convert", folder, "-o", tmp_path / "out", "-q")
    (path,) = (tmp_path / "out").glob("*.gguf")
    edit_gguf_tensors(path, {"blk.1.ffn_up.weight": None})
    assert "tensor blk.1.ffn_up.weight" in run("inspect", path, code=3).stderr
