"""Weight files of a repository: chosen by its listing, its index and headers, as those of a folder are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fake_hub import FakeHub
from gemmaq.errors import NotFoundError
from gemmaq.hub import Listing, Ref, RemoteFile
from gemmaq.sources import listed_weights
from gemmaq.sources.listed_weights import ListedShelf
from home import Here
from repos import REPO, tree
from weight_folders import INDEX, WHOLE, bare_folder, made, save, save_shards, shard_names, write_index

OURS, OTHERS = made(0), made(1)
SHARDS = shard_names(2)


def shelf(folder: Path, *paths: str, exclude: tuple[str, ...] = (), size: int = 1) -> ListedShelf:
    files = tuple(RemoteFile(path, size, None, path) for path in paths)
    return listed_weights.cached(Listing(Ref("org/name"), "a" * 40, files), folder, exclude)


def chosen(found: ListedShelf) -> list[str]:
    return [file.path for file in listed_weights.files(found, listed_weights.chosen(found))]


def test_safetensors_by_index_by_name_and_by_shard(tmp_path: Path) -> None:
    write_index(tmp_path, {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]})
    assert chosen(shelf(tmp_path, *SHARDS, INDEX, "other.safetensors")) == SHARDS
    assert chosen(shelf(tmp_path, WHOLE, "consolidated.safetensors")) == [WHOLE]
    assert chosen(shelf(tmp_path, *SHARDS, "original/model.safetensors")) == SHARDS


def test_missing_weights_are_named(tmp_path: Path) -> None:
    save_shards(tmp_path, OURS, 2)
    with pytest.raises(NotFoundError, match=rf"{SHARDS[1]}, which its index names"):
        chosen(shelf(tmp_path, SHARDS[0], INDEX))
    with pytest.raises(NotFoundError, match=SHARDS[1]):
        chosen(shelf(tmp_path, SHARDS[0]))
    with pytest.raises(NotFoundError) as error:
        chosen(shelf(tmp_path, "flax_model.msgpack", size=1 << 27))
    assert ".msgpack" in str(error.value.hint)


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [("*-00002-*", [SHARDS[0]]), ("*.safetensors", []), ("model.safetensors", SHARDS), ("model-*", [WHOLE])],
)
def test_excluded_files_may_be_missing(tmp_path: Path, exclude: str, expected: list[str]) -> None:
    write_index(tmp_path, {"a": SHARDS[0], "b": SHARDS[1]})
    present = [WHOLE] if exclude == "model-*" else [SHARDS[0]] if exclude == "*-00002-*" else [*SHARDS, WHOLE]
    assert chosen(shelf(tmp_path, *present, INDEX, exclude=(exclude,))) == expected
    assert chosen(shelf(tmp_path, *present, exclude=(exclude,))) == expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bare_folder(tmp_path / "m")


def facts(here: Here, *arguments: object) -> dict[str, object]:
    return dict(json.loads(here.run("inspect", *arguments, "--json").stdout))


def test_two_sets_that_differ_are_refused_by_a_few_samples(hub: FakeHub, here: Here, folder: Path) -> None:
    save_shards(folder, OURS, 2)
    save(folder / WHOLE, OTHERS)
    hub.add(REPO, folder)
    for command in (["inspect"], ["pull"], ["convert", "--dry-run"]):
        error = here.run(command[0], REPO, *command[1:], code=3).stderr
        assert REPO in error and INDEX in error and f"--weights {WHOLE}" in error
    assert facts(here, REPO, "--weights", WHOLE)["files"] == 1
    assert facts(here, REPO, "--weights", INDEX)["files"] == 2
    snapshot = here.run("pull", REPO, "-q", "--weights", WHOLE).stdout.strip()
    assert {name for name in tree(snapshot) if name.endswith("safetensors")} == {WHOLE}
    out = folder.parent / "out"
    here.run("convert", REPO, "--weights", WHOLE, "-o", out, "--to", "gguf", "-q")
    here.run("verify", out, "--against", REPO, "--weights", WHOLE, "-q")


def test_two_sets_that_hold_the_same_are_read_once(hub: FakeHub, here: Here, folder: Path) -> None:
    save_shards(folder, OURS, 2)
    save(folder / WHOLE, OURS)
    hub.add(REPO, folder)
    assert "same weights" in str(facts(here, REPO)["notes"])
    snapshot = here.run("pull", REPO, "-q").stdout.strip()
    assert {name for name in tree(snapshot) if name.endswith("safetensors")} == set(SHARDS)


def test_an_index_of_an_older_save_is_passed_over(hub: FakeHub, here: Here, folder: Path) -> None:
    for file in save_shards(folder, OTHERS, 2):
        (folder / file).unlink()
    save(folder / WHOLE, OURS)
    hub.add(REPO, folder)
    assert f"{WHOLE} is read" in str(facts(here, REPO)["notes"])
    here.run("pull", REPO, "-q")
    here.run("convert", REPO, "-o", folder.parent / "out", "-q")


def test_headers_that_contradict_an_index_count(hub: FakeHub, here: Here, folder: Path) -> None:
    save_shards(folder, {f"module.{name}": bits for name, bits in OURS.items()}, 2)
    write_index(folder, dict.fromkeys(OURS, SHARDS[0]) | {"lm_head.weight": SHARDS[1]})
    hub.add(REPO, folder)
    notes = str(facts(here, REPO)["notes"])
    assert "without module" in notes and "lm_head.weight" in notes
    assert facts(here, folder)["notes"] == facts(here, REPO)["notes"]
