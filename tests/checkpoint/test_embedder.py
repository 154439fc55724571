"""Modules behind a text model that embeds, from a folder and from a GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from damage import edit_header
from embedding import CONFIG, DENSE, write_model
from gemmaq.checkpoint.rows import read_rows
from gemmaq.errors import InputError
from gemmaq.files.span import Reader
from gemmaq.sources.open import open_source
from inprocess import run


def test_pooling_heads_and_files_of_a_folder(tmp_path: Path) -> None:
    checkpoint = open_source(str(write_model(tmp_path / "m")))
    assert checkpoint.config == CONFIG and checkpoint.head is None and checkpoint.notes == ()
    embedder = checkpoint.embedder
    assert embedder is not None and embedder.pooling == "mean"
    assert [tensor.shape for tensor in embedder.heads.values()] == list(DENSE.values())
    assert {"modules.json", "1_Pooling/config.json", "3_Dense/model.safetensors"} <= set(embedder.files)


def test_a_folder_without_modules_has_none(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "modules.json").unlink()
    embedder = open_source(str(folder)).embedder
    assert embedder is not None and embedder.pooling is None and not embedder.heads


@pytest.mark.parametrize("text", ["{}", "[1]", "["])
def test_a_list_of_modules_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "modules.json").write_text(text)
    with pytest.raises(InputError, match=r"modules\.json|JSON"):
        open_source(str(folder))


def test_a_head_that_is_no_matrix_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    path = folder / "2_Dense" / "model.safetensors"
    edit_header(path, lambda header: header.update({"other": header.pop("linear.weight")}))
    with pytest.raises(InputError, match=r"holds no matrix linear\.weight"):
        open_source(str(folder))


def test_gguf_gives_the_same_modules_back(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", pooling="pooling_mode_cls_token")
    run("convert", folder, "--quant", "f32", "--dense-heads", "-o", tmp_path / "out")
    source, made = open_source(str(folder)), open_source(str(tmp_path / "out"))
    assert made.family.embeds and made.config == source.config and made.notes == ()
    assert source.embedder is not None and made.embedder is not None and made.embedder.pooling == "cls"
    with Reader() as reader:
        for name, head in source.embedder.heads.items():
            theirs = made.embedder.heads[name]
            rows = [read_rows(tensor, 0, tensor.rows, reader, bytearray())[0] for tensor in (head, theirs)]
            assert theirs.place == head.place and np.array_equal(*rows)
