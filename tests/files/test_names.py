"""Names of weight files: shards, quantization types, mmproj files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.names import is_mmproj, mmproj_rank, shard, shards_of, split_type, stem


@pytest.mark.parametrize(
    ("name", "model", "kind"),
    [
        ("gemma-3-4b-it-qat-Q4_0", "gemma-3-4b-it-qat", "Q4_0"),
        ("gemma-3-4b-it.q4_k_m", "gemma-3-4b-it", "q4_k_m"),
        ("gemma-3-4b-it-UD-Q4_K_XL", "gemma-3-4b-it", "UD-Q4_K_XL"),
        ("gemma-3-4b-it-IQ4_NL", "gemma-3-4b-it", "IQ4_NL"),
        ("gemma-3-4b-it-TQ1_0", "gemma-3-4b-it", "TQ1_0"),
        ("gemma-3-4b-it-MXFP4", "gemma-3-4b-it", "MXFP4"),
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
    assert min(names, key=mmproj_rank) == "gemma-mmproj-f16.gguf"
