"""Files of torch.save: tensors found where they lie, whatever their layout, and nothing in them is run."""

from __future__ import annotations

import collections
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damage import corrupted
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files import torch_file
from gemmaq.files.safetensors_header import Entry
from gemmaq.files.span import FileSpan, Reader
from gemmaq.files.strided import Strided

torch = pytest.importorskip("torch")


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def entries(path: Path) -> dict[str, Entry]:
    return {entry.name: entry for entry in torch_file.parse(FileSpan.of(path))}


def content(path: Path, entry: Entry) -> bytes:
    """The bytes of a tensor in its own order."""
    with Reader() as reader:
        if entry.strides is None:
            return bytes(reader.bytes(FileSpan.of(path), entry.offset, entry.nbytes))
        item = entry.nbytes // int(np.prod(entry.shape))
        rows = int(np.prod(entry.shape[:-1]))
        return (
            Strided(entry.shape, entry.strides, item).read(reader, FileSpan.of(path), entry.offset, (0, rows)).tobytes()
        )


def raw(tensor: Any) -> bytes:
    return bytes(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())


def test_tensors_of_every_kind_are_found(tmp_path: Path) -> None:
    whole = torch.arange(4000, dtype=torch.float32).reshape(40, 100)
    stack = torch.arange(2 * 3 * 4 * 5, dtype=torch.int32).reshape(2, 3, 4, 5)
    made = {
        "whole": whole,
        "tied": whole,
        "rows": whole[3:7],
        "columns": whole[:, 5:9],
        "transposed": whole.t(),
        "spread": whole[::2, ::3],
        "expanded": torch.ones(1, dtype=torch.bfloat16).expand(3, 4),
        "channels last": stack.to(memory_format=torch.channels_last),
        "half": torch.ones(3, 5, dtype=torch.float16) / 3,
        "bf16": torch.randn(7, 9).bfloat16(),
        "scalar": torch.tensor(2.5),
        "double": torch.ones(2, dtype=torch.float64),
        "fp8": torch.ones(4, 4).to(torch.float8_e4m3fn),
        "byte": torch.arange(6, dtype=torch.uint8),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
    }
    path = saved(tmp_path / "x.bin", collections.OrderedDict(made) | {"step": 3, "name": "x", "none": None})
    found = entries(path)
    assert list(found) == list(made)
    for name, tensor in made.items():
        assert found[name].shape == tuple(tensor.shape)
        assert content(path, found[name]) == raw(tensor if tensor.ndim else tensor.reshape(1)), name
    assert found["tied"].offset == found["whole"].offset and found["tied"].dtype == "F32"


@pytest.mark.parametrize("key", ["state_dict", "model", "module", "model_state_dict"])
def test_the_weights_of_a_trainer_are_found_beside_its_optimizer(tmp_path: Path, key: str) -> None:
    weights = {f"w{n}": torch.full((32, 32), float(n)) for n in range(4)}
    states = [{"exp_avg": torch.full((32, 32), 9.0), "step": 3} for _ in range(40)]
    path = saved(tmp_path / "x.bin", {key: weights, "optimizer": {"state": states}, "epoch": 1})
    found = {name: content(path, entry) for name, entry in entries(path).items()}
    assert found == {name: raw(tensor) for name, tensor in weights.items()}


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


class Strange:
    """A class that only its author has."""


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = saved(tmp_path / "x.bin", {"a": Evil(tmp_path / "mark")}, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError) as refused:
        entries(path)
    assert not (tmp_path / "mark").exists()
    assert legacy or ("posix.system" in refused.value.message and "refused" in refused.value.message)


def test_classes_and_functions_are_refused(tmp_path: Path) -> None:
    for value in ({"a": Strange()}, Strange(), {"a": print}, [torch.ones(2)], torch.ones(2)):
        with pytest.raises(InputError):
            entries(saved(tmp_path / "x.bin", value))


def test_a_file_of_an_old_version_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"before 1\.6") as refused:
        entries(saved(tmp_path / "x.bin", {"a": torch.ones(2)}, _use_new_zipfile_serialization=False))
    assert "torch.save" in str(refused.value.hint)


def test_tensors_without_numbers_one_behind_the_other_are_named(tmp_path: Path) -> None:
    for tensor in (torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(InputError, match="tensor odd"):
            entries(saved(tmp_path / "x.bin", {"odd": tensor, "b": torch.ones(2)}))


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.bin", {"a": torch.ones(1000)})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "y.bin", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(InputError):
        entries(tmp_path / "y.bin")


@pytest.mark.parametrize("content", [b"", b"x" * 200, b"PK\x03\x04" + b"x" * 200, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.bin"):
        entries(tmp_path / "x.bin")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = saved(tmp_path_factory.mktemp("good") / "x.bin", {"a": torch.ones(5, 7), "b": torch.ones(3).bfloat16()})
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(
    data: st.DataObject, good: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(data.draw(corrupted(good)))
    try:
        found = entries(path)
    except InputError as error:
        assert str(path) in error.message and len(error.message) < 1000
    else:
        assert all(each.offset >= 0 and each.offset + each.nbytes <= path.stat().st_size for each in found.values())


def test_without_torch_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.bin", {"a": torch.ones(2)})
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    with pytest.raises(NotFoundError, match=r"torch 2\.5\.1"):
        entries(path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NotFoundError) as refused:
        entries(path)
    assert "pip install torch" in str(refused.value.hint)
