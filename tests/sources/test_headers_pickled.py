"""PyTorch checkpoints on the Hub: both ends of a file say what is in it, and conversions read it from the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_hub import FakeHub
from home import Here
from repos import REPO, tree
from weight_folders import bare_folder, made, shard_names, split, write_index

torch = pytest.importorskip("torch")

INDEX, BIN = "pytorch_model.bin.index.json", "pytorch_model.bin"
SHARDS = shard_names(3, "pytorch_model", ".bin")


@pytest.mark.parametrize("form", ["whole", "shards"])
def test_a_pickled_model_on_the_hub(hub: FakeHub, here: Here, tmp_path: Path, form: str) -> None:
    folder = bare_folder(tmp_path / "gemma-3-tiny")
    files = split(made(), [BIN] if form == "whole" else SHARDS)
    for file, part in files.items():
        tensors = {name: torch.from_numpy(bits.copy()).view(torch.bfloat16) for name, bits in part.items()}
        torch.save(tensors, folder / file)
    if form != "whole":
        write_index(folder, {name: file for file, part in files.items() for name in part}, INDEX)
    torch.save({"lr": 1.0}, folder / "optimizer.bin")
    hub.add(REPO, folder)
    ours, theirs = (json.loads(here.run("inspect", source, "--tensors", "--json").stdout) for source in (folder, REPO))
    assert [each["name"] for each in ours["tensors"]] == [each["name"] for each in theirs["tensors"]]
    assert ours["tensor_bytes"] == theirs["tensor_bytes"]
    snapshot = here.run("pull", REPO, "-q").stdout.strip()
    assert {name for name in tree(snapshot) if name.endswith(".bin")} == ({BIN} if form == "whole" else set(SHARDS))
    here.run("convert", REPO, "-o", folder.parent / "out", "-q")
    here.run("verify", folder.parent / "out", "--against", folder, "-q")


def test_a_large_file_is_known_by_its_ends(hub: FakeHub, here: Here, tmp_path: Path) -> None:
    folder = bare_folder(tmp_path / "gemma-3-tiny")
    tensors = {name: torch.from_numpy(bits.copy()).view(torch.bfloat16) for name, bits in made().items()}
    torch.save({**tensors, "model.layers.9.x.weight": torch.zeros(1 << 22)}, folder / BIN)
    hub.add(REPO, folder)
    report = json.loads(here.run("inspect", REPO, "--json").stdout)
    assert report["tensor_bytes"] == sum(bits.nbytes for bits in made().values())
    assert hub.bytes_sent < 5 << 20 < (folder / BIN).stat().st_size
