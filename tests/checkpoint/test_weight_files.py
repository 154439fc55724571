"""Which files count where several may be the weights: headers say, and what is not certain is never guessed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.folder import open_folder
from gemmaq.errors import InputError, NotFoundError
from gemmaq.models.gemma3.names import EMBEDDING, FINAL_NORM, HEAD
from weight_folders import (
    INDEX,
    WHOLE,
    bare_folder,
    holds,
    made,
    save,
    save_shards,
    shard_names,
    split,
    write_index,
)

MATRIX = "model.layers.1.mlp.up_proj.weight"
OURS, OTHERS = made(0), made(1)
SHARDS = shard_names(3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bare_folder(tmp_path / "m")


def opened(folder: Path, wanted: str | None = None) -> Checkpoint:
    return open_folder(folder, "m", str(folder), wanted)


def said(checkpoint: Checkpoint) -> str:
    return "\n".join(checkpoint.notes)


def changed(name: str) -> dict[str, np.ndarray]:
    """The weights with one number of a tensor changed, in the middle of it."""
    bits = OURS[name].copy()
    bits.reshape(-1)[bits.size // 2] ^= 1
    return {**OURS, name: bits}


@pytest.mark.parametrize("name", [FINAL_NORM, MATRIX, "model.layers.0.self_attn.q_norm.weight"])
@pytest.mark.parametrize("indexed", [True, False])
def test_shards_beside_a_whole_file_that_differs_are_refused_until_one_is_chosen(
    folder: Path, name: str, indexed: bool
) -> None:
    """The sizes, names, shapes and dates are the same."""
    save_shards(folder, OURS, 3, index=indexed)
    save(folder / WHOLE, changed(name))
    shards = INDEX if indexed else SHARDS[0]
    with pytest.raises(InputError) as refused:
        opened(folder)
    for word in (shards, WHOLE, name):
        assert word in refused.value.message
    assert f"--weights {shards}" in str(refused.value.hint) and f"--weights {WHOLE}" in str(refused.value.hint)
    assert holds(opened(folder, WHOLE), changed(name))
    for choice in (shards, SHARDS[1]):
        assert holds(opened(folder, choice), OURS)


def test_shards_beside_a_whole_file_with_the_same_numbers_are_read_with_a_note(folder: Path) -> None:
    save_shards(folder, OURS, 3)
    save(folder / WHOLE, OURS)
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS) and "same weights" in said(checkpoint)
    assert WHOLE not in {path.name for path in checkpoint.files}


def test_the_same_numbers_under_another_prefix_are_the_same(folder: Path) -> None:
    save_shards(folder, OURS, 3)
    save(folder / WHOLE, {f"language_model.{name}": bits for name, bits in OURS.items()})
    assert holds(opened(folder), OURS)


@pytest.mark.parametrize("other", [{**OURS, "model.layers.7.x.weight": OURS[FINAL_NORM]}, OTHERS])
def test_a_whole_file_with_more_or_other_tensors_differs(folder: Path, other: dict[str, np.ndarray]) -> None:
    save_shards(folder, OURS, 2)
    save(folder / WHOLE, other)
    with pytest.raises(InputError, match="two sets of weights that differ"):
        opened(folder)


def test_a_whole_file_that_is_one_of_the_shards_is_no_rival(folder: Path) -> None:
    """As MLX and others write an index for a single file."""
    files = split(OURS, [WHOLE, "extra.safetensors"])
    for file, part in files.items():
        save(folder / file, part)
    write_index(folder, {name: file for file, part in files.items() for name in part})
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS) and checkpoint.notes == ()


def test_an_index_that_an_older_save_left_gives_way_to_the_whole_file(folder: Path) -> None:
    """save_pretrained takes away older shards, but not their index."""
    for file in save_shards(folder, OTHERS, 3):
        (folder / file).unlink()
    save(folder / WHOLE, OURS)
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS)
    assert INDEX in said(checkpoint) and SHARDS[0] in said(checkpoint) and f"{WHOLE} is read" in said(checkpoint)


def test_shards_of_an_older_save_are_not_read(folder: Path) -> None:
    save_shards(folder, OTHERS, 5)
    save_shards(folder, OURS, 3)
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS) and "model-00001-of-00005.safetensors is not read" in said(checkpoint)


def test_an_index_of_an_older_save_gives_way_to_all_shards_of_another(folder: Path) -> None:
    for file in save_shards(folder, OTHERS, 5):
        (folder / file).unlink()
    save_shards(folder, OURS, 3, index=False)
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS) and INDEX in said(checkpoint)


@pytest.mark.parametrize("extra", ["vision_tower.post_layernorm.weight", "model.layers.2.mlp.up_proj.weight"])
def test_a_missing_shard_is_not_made_up_for_by_files_that_lack_its_tensors(folder: Path, extra: str) -> None:
    save_shards(folder, {**OURS, extra: OURS[FINAL_NORM]}, 3)
    (folder / SHARDS[2]).unlink()
    save(folder / WHOLE, OURS)
    with pytest.raises(NotFoundError, match=SHARDS[2]):
        opened(folder)


@pytest.mark.parametrize("missing", [[0], [1], [2], [1, 2]])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("beside", [None, "adapter_model.safetensors", "extra.safetensors"])
def test_a_missing_shard_is_told_as_a_missing_shard(
    folder: Path, missing: list[int], index: bool, beside: str | None
) -> None:
    save_shards(folder, OURS, 3, index=index)
    for at in missing:
        (folder / SHARDS[at]).unlink()
    if beside is not None:
        save(folder / beside, {"model.other.weight": OURS[FINAL_NORM]})
    with pytest.raises(NotFoundError) as refused:
        opened(folder)
    assert SHARDS[missing[0]] in refused.value.message and "lacks" not in refused.value.message
    assert ("1 more" in refused.value.message) == (len(missing) > 1)


@pytest.mark.parametrize("name", ["consolidated.safetensors", "model-old.safetensors"])
@pytest.mark.parametrize("differs", [True, False])
def test_a_consolidated_file_beside_an_index_is_not_read(folder: Path, name: str, differs: bool) -> None:
    save_shards(folder, OURS, 3)
    save(folder / name, OTHERS if differs else OURS)
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS) and f"{name} is not read" in said(checkpoint)
    assert holds(opened(folder, name), OTHERS if differs else OURS)


def test_a_consolidated_file_beside_shards_without_index_must_hold_the_same(folder: Path) -> None:
    save_shards(folder, OURS, 3, index=False)
    save(folder / "consolidated.safetensors", OURS)
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS) and "consolidated.safetensors is not read" in said(checkpoint)
    save(folder / "consolidated.safetensors", OTHERS)
    with pytest.raises(InputError, match=r"consolidated\.safetensors"):
        opened(folder)


def test_a_consolidated_file_stands_in_for_shards_of_which_one_is_missing(folder: Path) -> None:
    save_shards(folder, OURS, 3, index=False)
    (folder / SHARDS[1]).unlink()
    save(folder / "consolidated.safetensors", OURS)
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS) and SHARDS[1] in said(checkpoint)


def test_files_without_index_that_complete_each_other_are_joined(folder: Path) -> None:
    for file, part in split(OURS, ["a.safetensors", "b.safetensors"]).items():
        save(folder / file, part)
    assert holds(opened(folder), OURS)
    shutil.copy(folder / "a.safetensors", folder / "c.safetensors")
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS) and "c.safetensors is not read" in said(checkpoint)


def test_shards_that_count_from_zero_are_read_without_index(folder: Path) -> None:
    names = [f"model-{n:05}-of-00003.safetensors" for n in range(3)]
    for file, part in split(OURS, names).items():
        save(folder / file, part)
    assert holds(opened(folder), OURS)
    (folder / names[1]).unlink()
    with pytest.raises(NotFoundError, match=names[1]):
        opened(folder)


Edit = Callable[[dict[str, str]], object]
INDEXES: dict[str, tuple[Edit, tuple[str, ...]]] = {
    "a tied head that is in no file": (lambda i: i.update({HEAD: SHARDS[0]}), (HEAD, "no file holds", "the embedding")),
    "a wrong file": (lambda i: i.update({FINAL_NORM: SHARDS[0]}), (FINAL_NORM, SHARDS[0], SHARDS[2])),
    "a file that is not there": (lambda i: i.update({FINAL_NORM: "x.safetensors"}), ("x.safetensors", SHARDS[2])),
    "too little": (lambda i: i.pop(EMBEDDING), (EMBEDDING, "does not name")),
    "something else": (lambda i: i.update({"vision_tower.x": SHARDS[1]}), ("vision_tower.x", "no file holds")),
}


@pytest.mark.parametrize("case", INDEXES)
def test_headers_count_where_an_index_contradicts_them(folder: Path, case: str) -> None:
    edit, words = INDEXES[case]
    save_shards(folder, OURS, 3)
    places = {name: file for file, part in split(OURS, SHARDS).items() for name in part}
    edit(places)
    write_index(folder, places)
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS)
    for word in words:
        assert word in said(checkpoint)


@pytest.mark.parametrize("prefix", ["language_model.", "model.language_model.", "base_model.model."])
def test_an_index_with_the_prefix_of_another_model_is_no_obstacle(folder: Path, prefix: str) -> None:
    save_shards(folder, OURS, 3)
    places = {prefix + name: file for file, part in split(OURS, SHARDS).items() for name in part}
    write_index(folder, places)
    checkpoint = opened(folder)
    assert holds(checkpoint, OURS)
    assert "the files have model.embed_tokens.weight: the headers count" in said(checkpoint)


def test_a_tensor_in_two_shards_counts_where_the_index_says(folder: Path) -> None:
    save_shards(folder, OURS, 2)
    first, second = split(OURS, shard_names(2)).items()
    save(folder / first[0], {**first[1], FINAL_NORM: OTHERS[FINAL_NORM] + 1})
    assert holds(opened(folder), OURS)
    write_index(folder, {name: first[0] for name in first[1]} | {MATRIX: second[0]})
    with pytest.raises(InputError, match=f"{FINAL_NORM} is in two files"):
        opened(folder)
    save(folder / first[0], {**first[1], FINAL_NORM: OURS[FINAL_NORM]})
    assert holds(opened(folder), OURS)


def test_a_file_that_is_not_there_cannot_be_chosen(folder: Path) -> None:
    save(folder / WHOLE, OURS)
    with pytest.raises(NotFoundError, match=r"no weight file x\.safetensors") as refused:
        opened(folder, "x.safetensors")
    assert WHOLE in str(refused.value.hint)
