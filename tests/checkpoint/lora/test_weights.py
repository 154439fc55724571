"""The file of an adapter: every spelling of its names, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lora_files
from gemmaq.checkpoint import rows
from gemmaq.checkpoint.lora import weights
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.span import Reader
from synthetic import write_safetensors

ONE = np.zeros((2, 2), np.float32)


def read(folder: Path, *names: str) -> weights.AdapterWeights:
    return weights.read(lora_files.write(folder, {}, dict.fromkeys(names, ONE)))


def test_names_are_sorted_by_what_they_are(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "base_model.model.a.q.lora_A.weight",
        "base_model.model.a.q.lora_B.default.weight",
        "base_model.model.a.q.lora_magnitude_vector.weight",
        "base_model.model.e.lora_embedding_A",
        "base_model.model.e.lora_embedding_B.default",
        "base_model.model.e.base_layer.weight",
        "base_model.model.t.token_adapter.trainable_tokens_delta",
        "base_model.model.t.token_adapter.base_layer.weight",
        "base_model.model.h.modules_to_save.default.weight",
        "base_model.model.h.original_module.weight",
        "base_model.model.n.weight",
    )
    assert {module: set(parts) for module, parts in found.parts.items()} == {
        "a.q": {"lora_A", "lora_B", "lora_magnitude_vector"},
        "e": {"lora_embedding_A", "lora_embedding_B"},
        "t": {"trainable_tokens_delta"},
    }
    assert set(found.bases) == {"e.weight", "t.weight", "h.weight"}
    assert set(found.saved) == {"h.weight"}
    assert set(found.loose) == {"n.weight"}
    assert len(found.tensors) == 11


def test_two_tensors_of_one_meaning_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two tensors"):
        read(tmp_path, "base_model.model.a.lora_A.weight", "base_model.model.a.lora_A.default.weight")


def test_other_types_are_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path / weights.NAME, {"a.lora_A.weight": ("I64", (2, 2))}, None)
    with pytest.raises(InputError, match="I64"):
        weights.read(tmp_path)


def test_a_tensor_without_weights_is_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path / weights.NAME, {"a.lora_A.weight": ("F32", (0,))}, None)
    with pytest.raises(InputError, match="spread over devices"):
        weights.read(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"adapter_model\.safetensors"):
        weights.read(tmp_path)


def test_a_file_of_torch_is_read_as_one_of_safetensors(tmp_path: Path) -> None:
    """A transposed view among its arrays, and nothing that a pickle could run."""
    torch = pytest.importorskip("torch")
    a, b = torch.randn(4, 64), torch.randn(4, 96).T
    names = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "layers.0.self_attn.q_proj.lora_B.weight"
    torch.save({names[0]: a, names[1]: b}, tmp_path / weights.PICKLED)
    found = weights.read(tmp_path)
    with Reader() as reader:
        for part, array in zip(found.tensors, (a, b), strict=True):
            np.testing.assert_array_equal(rows.weights(part, 0, part.rows, reader), array.numpy())
    (tmp_path / weights.PICKLED).write_bytes(b"x")
    with pytest.raises(InputError, match=r"adapter_model\.bin"):
        weights.read(tmp_path)
