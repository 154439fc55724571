"""Opening a Hugging Face folder: every layout in the wild is read, every broken one refused with a word on what."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gemma3n
import gemma4_drafter
from damage import SMALL, add_tensor, edit_header, edit_json, header_of, small_model, stored
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import GemmaqError, InputError, NotFoundError
from gemmaq.models.gemma3.names import EMBEDDING, FINAL_NORM, HEAD, shapes
from gemmaq.sources.open import open_source
from synthetic import write_checkpoint

INDEX = "model.safetensors.index.json"
NAMES = [name for name, _ in shapes(SMALL)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "gemma-3-tiny")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return small_model(tmp_path / "gemma-3-tiny", shard_bytes=50_000)


def notes(folder: Path) -> str:
    return "\n".join(open_source(str(folder)).notes)


@pytest.mark.parametrize(
    "prefix", ["model.", "language_model.model.", "model.language_model.", "model.language_model.model.", ""]
)
def test_every_prefix_of_tensor_names_is_read(prefix: str, tmp_path: Path) -> None:
    checkpoint = open_source(str(small_model(tmp_path / "m", prefix=prefix)))
    assert list(checkpoint.tensors) == NAMES
    assert checkpoint.notes == ()


def test_shards_are_joined_in_the_order_of_the_model(sharded: Path) -> None:
    checkpoint = open_source(str(sharded))
    assert list(checkpoint.tensors) == NAMES
    assert len(checkpoint.files) == len(list(sharded.glob("*.safetensors"))) > 2


def test_shards_without_an_index_are_joined(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    assert list(open_source(str(sharded)).tensors) == NAMES


@pytest.mark.parametrize("name", [HEAD, "language_model.lm_head.weight", "model.lm_head.weight"])
@pytest.mark.parametrize("differs", [False, True])
def test_a_head_is_dropped_if_it_repeats_the_embedding_and_kept_if_not(name: str, differs: bool, model: Path) -> None:
    head = stored(model, EMBEDDING)
    head[-1, -1] ^= differs
    add_tensor(model, name, head)
    checkpoint = open_source(str(model))
    assert list(checkpoint.tensors) == ([*NAMES, HEAD] if differs else NAMES)
    assert ("kept" if differs else "dropped") in "\n".join(checkpoint.notes)


def test_embedding_rows_beyond_the_vocabulary_are_cut(tmp_path: Path) -> None:
    folder = small_model(tmp_path / "m", replace(SMALL, vocab_size=384))
    edit_json(folder / "config.json", lambda c: c.update(vocab_size=320))
    assert open_source(str(folder)).tensors[EMBEDDING].shape == (320, SMALL.hidden_size)


def test_the_vocabulary_is_that_of_the_embedding_where_the_config_names_none(model: Path) -> None:
    edit_json(model / "config.json", lambda c: c.pop("vocab_size"))
    assert open_source(str(model)).config.vocab_size == SMALL.vocab_size


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("vision_tower.post_layernorm.weight", 1),
        ("model.multi_modal_projector.mm_soft_emb_norm.weight", 1),
        ("vision_tower.vision_model.head.weight", 0),
    ],
)
def test_vision_tensors_are_kept_apart(name: str, known: int, model: Path) -> None:
    """A tower that is not whole is no part of the model; the pooling head is needed by none."""
    add_tensor(model, name, np.zeros((3, 5), np.uint16))
    checkpoint = open_source(str(model))
    assert list(checkpoint.tensors) == NAMES and not checkpoint.towers
    assert f"the vision side lacks multi_modal_projector.mm_input_projection_weight and {438 - known}" in notes(model)


def test_a_tensor_that_belongs_to_no_gemma_is_left_out_and_named(model: Path) -> None:
    add_tensor(model, "model.layers.0.self_attn.q_proj.gate.weight", np.zeros((2, 2), np.uint16))
    assert "q_proj.gate" in notes(model)


def test_a_multimodal_config_is_read(model: Path) -> None:
    text = json.loads((model / "config.json").read_text())
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "vision_config": {}}
    (model / "config.json").write_text(json.dumps(whole))
    assert open_source(str(model)).config == SMALL


@pytest.mark.parametrize(
    ("architecture", "prefix"),
    [
        ("Gemma3TextModel", ""),
        ("Gemma3Model", "language_model."),
        ("Gemma3Model", "language_model.model."),
        ("ShieldGemma2ForImageClassification", "model.model.language_model.model."),
    ],
)
def test_a_model_without_a_head_of_its_class_is_a_causal_model(tmp_path: Path, architecture: str, prefix: str) -> None:
    """As AutoModel saves it; the embedding is the head."""
    folder = write_checkpoint(tmp_path / "m", SMALL, prefix=prefix)
    edit_json(folder / "config.json", lambda c: c.update(architectures=[architecture]))
    checkpoint = open_source(str(folder))
    assert list(checkpoint.tensors) == NAMES and checkpoint.head is None and checkpoint.config == SMALL
    assert ("Yes and No" in "\n".join(checkpoint.losses)) == architecture.startswith("Shield")


Damage = Callable[[Path], object]


def rename(old: str, new: str) -> Damage:
    return lambda folder: edit_header(folder / "model.safetensors", lambda h: h.update({new: h.pop(old)}))


def entry(name: str, **changes: object) -> Damage:
    return lambda folder: edit_header(folder / "model.safetensors", lambda h: h[name].update(changes))


def config(**changes: object) -> Damage:
    return lambda folder: edit_json(folder / "config.json", lambda c: c.update(changes))


def write(name: str, content: str | bytes) -> Damage:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1])


def place(shard: object) -> Damage:
    return lambda folder: edit_json(folder / INDEX, lambda index: index["weight_map"].update({FINAL_NORM: shard}))


def refusal(folder: Path, damage: Damage, kind: type[GemmaqError], words: tuple[str, ...]) -> None:
    damage(folder)
    with pytest.raises(kind) as refused:
        open_source(str(folder))
    for word in words:
        assert word in refused.value.message


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (rename(FINAL_NORM, "model.other.weight"), (FINAL_NORM, "lacks")),
        (rename("model.layers.1.mlp.up_proj.weight", "x"), ("model.layers.1.mlp.up_proj.weight",)),
        (rename("model.layers.0.self_attn.q_norm.weight", "language_model.model.norm.weight"), (FINAL_NORM, "two")),
        (entry(EMBEDDING, shape=[640, 32]), (EMBEDDING, "[640, 32]", "[320, 64]")),
        (entry(FINAL_NORM, shape=[1, 64]), (FINAL_NORM, "[1, 64]")),
        (entry(FINAL_NORM, dtype="I16"), (FINAL_NORM, "I16")),
        (entry(FINAL_NORM, dtype="F8_E4M3", shape=[128]), (FINAL_NORM, "F8_E4M3")),
        (entry(FINAL_NORM, shape=[], data_offsets=[0, 2]), ("overlaps",)),
        (cut("model.safetensors"), ("model.safetensors", "truncated")),
        (config(num_hidden_layers=3, layer_types=None), ("model.layers.2.",)),
        (config(hidden_size=128), (EMBEDDING, "[320, 64]")),
        (config(vocab_size=321), (EMBEDDING, "[321, 64]")),
        (config(quantization_config={"quant_method": "torchao"}), ("quanti", "torchao")),
        (config(architectures=["LlamaForCausalLM"]), ("LlamaForCausalLM",)),
        (config(architectures=None, model_type="gemma2"), ("Gemma 2 is not supported",)),
        (write("config.json", "{"), ("config.json", "JSON")),
        (write("config.json", "[]"), ("config.json", "object")),
        (write("config.json", b"\xff{}"), ("config.json", "UTF-8")),
        (write("config.json", "[" * 200_000), ("config.json", "JSON")),
        (write("config.json", '{"x": "\\ud800"}'), ("config.json", "JSON")),
        (write("generation_config.json", "nonsense"), ("generation_config.json", "JSON")),
        (write(INDEX, "{"), (INDEX, "JSON")),
        (write(INDEX, '{"weight_map": ["model.safetensors"]}'), (INDEX, "weight_map")),
        (write(INDEX, '{"weight_map": {"a": 1}}'), (INDEX, "weight_map")),
        (write(INDEX, '{"metadata": {}}'), (INDEX, "weight_map")),
    ],
)
def test_a_broken_folder_is_refused(damage: Damage, words: tuple[str, ...], model: Path) -> None:
    refusal(model, damage, InputError, words)


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (remove("model-00002-of-00004.safetensors"), NotFoundError, ("model-00002-of-00004.safetensors",)),
        (cut("model-00003-of-00004.safetensors"), InputError, ("model-00003-of-00004.safetensors", "truncated")),
        (place("../gemma-3-tiny/model-00004-of-00004.safetensors"), InputError, ("unsafe", "../gemma-3-tiny")),
        (place(".."), InputError, ("unsafe", "..")),
        (place("/etc/passwd"), InputError, ("unsafe", "/etc/passwd")),
        (place("sub\\model.safetensors"), InputError, ("unsafe", "sub")),
        (place(""), InputError, ("unsafe",)),
        (place("config.json"), InputError, ("config.json", "safetensors")),
        (place("x" * 300), GemmaqError, ("xxx",)),
        (place("nul\0"), InputError, ("nul",)),
        (place("nul\0.safetensors"), InputError, ("nul",)),
    ],
)
def test_a_broken_index_or_shard_is_refused(
    damage: Damage, kind: type[GemmaqError], words: tuple[str, ...], sharded: Path
) -> None:
    refusal(sharded, damage, kind, words)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove("config.json"), ("config.json",)),
        (remove("model.safetensors"), (".safetensors",)),
        (lambda folder: (folder / "model.safetensors").rename(folder / "optimizer.bin"), (".safetensors",)),
    ],
)
def test_a_folder_without_a_model_is_not_found(damage: Damage, words: tuple[str, ...], model: Path) -> None:
    refusal(model, damage, NotFoundError, words)


@pytest.mark.parametrize(
    "card", ["---\ndate: 2024-13-45\n---\n", "---\n" + "[" * 5000, "---\n- a: [\n---", "---", "no front matter"]
)
def test_a_card_that_is_no_yaml_is_no_obstacle(card: str, model: Path) -> None:
    (model / "README.md").write_text(card)
    checkpoint: Checkpoint = open_source(str(model))
    assert checkpoint.card == {}


def test_the_header_of_a_shard_may_hold_metadata(model: Path) -> None:
    edit_header(model / "model.safetensors", lambda header: header.update(__metadata__={"format": "pt"}))
    assert "__metadata__" in header_of(model / "model.safetensors")[0]
    assert list(open_source(str(model)).tensors) == NAMES


def test_centroids_of_a_drafter_are_no_loss(tmp_path: Path) -> None:
    drafter = open_source(str(gemma4_drafter.write(tmp_path / "drafter", gemma4_drafter.DRAFTERS["effective"])))
    assert drafter.losses == () and drafter.remarks == drafter.notes and "centroids" in drafter.notes[0]


def test_towers_that_gemmaq_does_not_write_are_a_loss(tmp_path: Path) -> None:
    folder = gemma3n.write(tmp_path / "gemma-3n-E2B")
    add_tensor(folder, "model.vision_tower.conv_stem.weight", np.zeros((4, 4), np.uint16))
    model = open_source(str(folder))
    assert model.notes == () and "vision and audio are left out" in model.losses[0]
