"""PyTorch checkpoints as sources: the same bytes as from safetensors, in every layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.folder import open_folder
from gemmaq.errors import InputError, NotFoundError
from gemmaq.models.gemma3.names import EMBEDDING, HEAD
from inprocess import refused, run
from runtimes import Require, need
from weight_folders import WHOLE, bare_folder, holds, made, save, shard_names, split, write_index

torch = pytest.importorskip("torch")

OURS = made()
INDEX, BIN = "pytorch_model.bin.index.json", "pytorch_model.bin"
SHARDS = shard_names(3, "pytorch_model", ".bin")


def tensors(bits: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: torch.from_numpy(each.copy()).view(torch.bfloat16) for name, each in bits.items()}


def opened(folder: Path) -> Checkpoint:
    return open_folder(folder, "m", str(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bare_folder(tmp_path / "gemma-3-tiny")


def save_shards(folder: Path) -> None:
    files = split(OURS, SHARDS)
    for file, part in files.items():
        torch.save(tensors(part), folder / file)
    write_index(folder, {name: file for file, part in files.items() for name in part}, INDEX)


@pytest.mark.parametrize("form", ["whole", "shards", "shards without index"])
def test_a_pickled_model_gives_the_bytes_of_a_safetensors_one(folder: Path, tmp_path: Path, form: str) -> None:
    if form == "whole":
        torch.save(tensors(OURS), folder / BIN)
    else:
        save_shards(folder)
    if form == "shards without index":
        (folder / INDEX).unlink()
    assert holds(opened(folder), OURS) and opened(folder).notes == ()
    other = bare_folder(tmp_path / "safe" / folder.name)
    save(other / WHOLE, OURS)
    for source in (folder, other):
        run("convert", source, "-o", tmp_path / f"out-{source.parent.name}", "-q")
    run("verify", tmp_path / f"out-{folder.parent.name}", "--against", folder, "-q")
    ours, theirs = (next((tmp_path / f"out-{s.parent.name}").glob("*.gguf")).read_bytes() for s in (folder, other))
    assert ours == theirs


def test_views_and_tied_storages_are_read_as_what_they_are(folder: Path) -> None:
    made = tensors(OURS)
    for name, tensor in list(made.items()):
        if tensor.ndim == 2 and "q_proj" in name:
            made[name] = tensor.t().contiguous().t()
        elif tensor.ndim == 2 and "up_proj" in name:
            wide = torch.cat([tensor, tensor + 1], 1)
            made[name] = wide[:, : tensor.shape[1]]
    made[HEAD] = made[EMBEDDING]
    torch.save(made, folder / BIN)
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS) and "repeats the embedding" in checkpoint.notes[0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_of_other_widths(folder: Path, dtype: str) -> None:
    torch.save({name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors(OURS).items()}, folder / BIN)
    if dtype == "float64":
        with pytest.raises(InputError, match="F64"):
            opened(folder)
    else:
        assert {tensor.encoding.name for tensor in opened(folder).tensors.values()} == {f"f{dtype[-2:]}"}


def test_wrapped_names_and_states_of_trainers_are_read(folder: Path) -> None:
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in tensors(OURS).items()}
    torch.save({"state_dict": wrapped, "epoch": 1}, folder / BIN)
    assert holds(opened(folder), OURS) and "_orig_mod" in opened(folder).notes[0]


def test_inspect_says_what_the_files_are(folder: Path) -> None:
    torch.save(tensors(OURS), folder / BIN)
    assert "pytorch, 1 file" in run("inspect", folder).stdout


def test_safetensors_come_before_pickled_files(folder: Path) -> None:
    torch.save(tensors(made(1)), folder / BIN)
    save(folder / WHOLE, OURS)
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS) and f"{BIN} is not read" in checkpoint.notes[0]
    assert holds(open_folder(folder, "m", "m", BIN), made(1))


def test_pickled_shards_beside_a_whole_file_that_differs_are_refused(folder: Path) -> None:
    save_shards(folder)
    torch.save(tensors(made(1)), folder / BIN)
    refused(3, (INDEX, BIN, f"--weights {BIN}"), "inspect", folder, under=folder)


def test_a_missing_shard_and_other_files_of_training_are_told(folder: Path) -> None:
    torch.save({"lr": 1.0}, folder / "training_args.bin")
    with pytest.raises(NotFoundError, match=r"pytorch_model\.bin"):
        opened(folder)
    save_shards(folder)
    (folder / SHARDS[1]).unlink()
    with pytest.raises(NotFoundError, match=SHARDS[1]):
        opened(folder)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit(99)",)


def test_a_malicious_model_is_refused(folder: Path) -> None:
    torch.save({**tensors(OURS), "x": Evil()}, folder / BIN)
    for command in (["inspect", folder], ["convert", folder, "--dry-run"]):
        refused(3, (BIN, "exec"), *command, under=folder)


@pytest.mark.oracle
@pytest.mark.parametrize("form", ["whole", "shards", "stale index", "tied head", "beside safetensors"])
def test_transformers_loads_the_same_numbers(folder: Path, require: Require, form: str) -> None:
    need(require, "torch", "transformers")
    import transformers

    if form == "whole":
        torch.save(tensors(OURS), folder / BIN)
    elif form == "shards":
        save_shards(folder)
    elif form == "stale index":
        write_index(folder, dict.fromkeys(OURS, "model-00001-of-00002.safetensors"), "model.safetensors.index.json")
        save(folder / WHOLE, OURS)
    elif form == "tied head":
        save(folder / "model-00001-of-00001.safetensors", OURS)
        names = {**OURS, HEAD: OURS[EMBEDDING]}
        write_index(folder, dict.fromkeys(names, "model-00001-of-00001.safetensors"), "model.safetensors.index.json")
    else:
        save(folder / WHOLE, OURS)
        torch.save(tensors(made(1)), folder / BIN)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    state = {name: tensor.view(torch.int16).numpy().view(np.uint16) for name, tensor in model.state_dict().items()}
    assert holds(opened(folder), {name: state[name] for name in OURS})
