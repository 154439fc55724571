"""Names of weight files: shards, quantization types, mmproj files, drafters."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.names import (
    Parts,
    base,
    is_drafter,
    is_imatrix,
    is_mmproj,
    model_in,
    models_among,
    parts,
    shard,
    shards_of,
    split_type,
    stem,
    without_marks,
)


@pytest.mark.parametrize(
    ("name", "model", "kind"),
    [
        ("gemma-3-4b-it-qat-Q4_0", "gemma-3-4b-it-qat", "Q4_0"),
        ("gemma-3-4b-it.q4_k_m", "gemma-3-4b-it", "q4_k_m"),
        ("gemma-3-4b-it-UD-Q4_K_XL", "gemma-3-4b-it", "UD-Q4_K_XL"),
        ("gemma-3-4b-it-IQ4_NL", "gemma-3-4b-it", "IQ4_NL"),
        ("gemma-3-4b-it-TQ1_0", "gemma-3-4b-it", "TQ1_0"),
        ("gemma-3-4b-it-MXFP4", "gemma-3-4b-it", "MXFP4"),
        ("gemma-4-26B-A4B-it-MXFP4_MOE", "gemma-4-26B-A4B-it", "MXFP4_MOE"),
        ("gemma-4-31B-it-NVFP4", "gemma-4-31B-it", "NVFP4"),
        ("gemma-3-270m-4.60bpw", "gemma-3-270m", "4.60bpw"),
        ("gemma-3-4b-it_BF16", "gemma-3-4b-it", "BF16"),
        ("gemma-3-4b-it-fp16", "gemma-3-4b-it", "fp16"),
        ("gemma-3-4b-it", "gemma-3-4b-it", None),
        ("Q4_0", "Q4_0", None),
    ],
)
def test_type_at_the_end_of_a_name(name: str, model: str, kind: str | None) -> None:
    assert split_type(name) == (model, kind)


def test_floats_may_be_part_of_the_name() -> None:
    assert split_type("gemma-3-4b-it-bf16", floats=False) == ("gemma-3-4b-it-bf16", None)
    assert split_type("gemma-3-4b-it-q4_0", floats=False) == ("gemma-3-4b-it", "q4_0")


def test_shards() -> None:
    part = shard("folder/gemma-3-27b-it-Q4_0-00002-of-00003.gguf")
    assert part is not None
    assert (part.stem, part.number, part.count) == ("folder/gemma-3-27b-it-Q4_0", 2, 3)
    assert part.siblings[2] == "folder/gemma-3-27b-it-Q4_0-00003-of-00003.gguf"
    assert stem("a-Q4_0-00001-of-00002.gguf") == stem("a-Q4_0.gguf") == "a-Q4_0"
    assert shard("gemma-3-27b-it-Q4_0.gguf") is None


def test_shards_on_disk(tmp_path: Path) -> None:
    paths = [tmp_path / f"a-{n:05}-of-00002.gguf" for n in (1, 2)]
    paths[1].touch()
    with pytest.raises(NotFoundError, match=r"a-00001-of-00002\.gguf does not exist"):
        shards_of(paths[1])
    paths[0].touch()
    assert shards_of(paths[1]) == paths
    with pytest.raises(InputError, match="named shard 3 of 2"):
        shards_of(tmp_path / "a-00003-of-00002.gguf")


def test_mmproj_files() -> None:
    names = ["mmproj-gemma-F32.gguf", "MMPROJ-model-BF16.gguf", "gemma-mmproj-f16.gguf"]
    assert all(map(is_mmproj, names)) and not is_mmproj("gemma-3-4b-it-Q4_0.gguf")


@pytest.mark.parametrize(
    ("name", "model", "kind"),
    [
        ("BF16/gemma-3-4b-it-BF16-00001-of-00002.gguf", "gemma-3-4b-it", "BF16"),
        ("mmproj-gemma-3-4b-it-qat-F16.gguf", "gemma-3-4b-it-qat", "F16"),
        ("gemma-3-4b-it.mmproj-f16.gguf", "gemma-3-4b-it", "f16"),
        ("gemma-3-4b-it-f16-mmproj.gguf", "gemma-3-4b-it", "f16"),
        ("mmproj-google_gemma-3-4b-it-f16.gguf", "google_gemma-3-4b-it", "f16"),
        ("mmproj-gemma-4-E2B-it-Q8_0.gguf", "gemma-4-E2B-it", "Q8_0"),
        ("mmproj-model-f16-4B.gguf", "model-f16-4B", None),
        ("MMPROJ-BF16.gguf", "", "BF16"),
        ("mmproj.gguf", "", None),
        ("mtp-gemma-4-12B-it.gguf", "gemma-4-12B-it", None),
        ("mtp-gemma-4-12B-it-Q4_0.gguf", "gemma-4-12B-it", "Q4_0"),
        ("gemma-mtp-3-Q4_0.gguf", "gemma-mtp-3", "Q4_0"),
    ],
)
def test_the_model_in_the_name_of_a_file(name: str, model: str, kind: str | None) -> None:
    assert model_in(name) == (model, kind)


def test_a_path_without_folders() -> None:
    assert base("a/b/c.gguf") == base("c.gguf") == "c.gguf"


def test_drafters_are_known_by_the_beginning_of_their_names() -> None:
    assert is_drafter("mtp-gemma-4-E2B-it-Q8_0.gguf")
    assert not any(map(is_drafter, ("gemma-4-E2B-it-mtp-Q4_0.gguf", "mmproj-gemma-4-E2B-it-F16.gguf")))


def test_models_among_files() -> None:
    files = ["a-Q4_0.gguf", "mmproj-a-F16.gguf", "mtp-a.gguf", "x/mtp-b.gguf"]
    assert models_among(files) == ["a-Q4_0.gguf"]
    assert models_among(files[1:]) == ["mtp-a.gguf", "x/mtp-b.gguf"], "a drafter alone is a model"


def test_importance_matrices_are_no_models() -> None:
    matrices = ["gemma-3-4b-it.imatrix.gguf", "imatrix.gguf", "x/Gemma-3-4b-it-iMatrix.gguf"]
    models = ["gemma-3-4b-it-Q4_K_M.gguf", "gemma-3-imatrix-Q4_K_M.gguf", "imatrix/gemma-3-4b-it.gguf"]
    assert all(map(is_imatrix, matrices)) and not any(map(is_imatrix, models))
    assert models_among([*matrices, *models]) == models
    assert parts((models[0], matrices[0])) == Parts((models[0],))


def test_the_weight_files_of_a_folder() -> None:
    shards = ("gemma-4-E2B-it-Q4_0-00001-of-00002.gguf", "gemma-4-E2B-it-Q4_0-00002-of-00002.gguf")
    beside = ("mtp-gemma-4-E2B-it-Q8_0.gguf", "mmproj-gemma-4-E2B-it-F16.gguf")
    assert parts((*beside, *reversed(shards))) == Parts(shards, projector=beside[1], drafter=beside[0])
    assert parts(shards) == Parts(shards)
    assert parts(beside[:1]) == Parts(beside[:1])


@pytest.mark.parametrize("name", ["mtp-model", "mmproj-model", "mtp-mmprojmtp-model-MMPROJ", "model", "mmproj", "mtp-"])
def test_a_name_without_marks_is_that_of_a_model(name: str) -> None:
    assert without_marks(name) == "model"
