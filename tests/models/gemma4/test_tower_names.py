"""Names and shapes of the tensors of the towers."""

from __future__ import annotations

import pytest

import gemma4_towers
from gemma4_towers import KINDS
from gemmaq.models.gemma4 import tower_names, towers_hf
from gemmaq.models.gemma4.sizes import SIZES
from gemmaq.models.gemma4.towers_config import TowersConfig
from gemmaq.models.size import Size


def config_of(kind: str) -> TowersConfig:
    return towers_hf.from_hf(gemma4_towers.config_json(KINDS[kind]), {})


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_are_those_of_a_release(kind: str) -> None:
    found = {tower_names.to_hf(name): shape for name, shape in tower_names.shapes(config_of(kind), 256)}
    assert found == dict(gemma4_towers.shapes(KINDS[kind]))


@pytest.mark.parametrize("prefix", ["", "model.", "model.model."])
def test_every_spelling_has_one_name(prefix: str) -> None:
    for kind in KINDS:
        for name, _ in tower_names.shapes(config_of(kind), 256):
            assert tower_names.canonical(prefix + name) == name


def test_names_in_memory_of_a_model_without_towers_are_read() -> None:
    assert tower_names.canonical("model.embed_vision.patch_dense.bias") == "vision_embedder.patch_dense.bias"
    assert tower_names.canonical("model.embed_vision.pos_embedding") == "vision_embedder.pos_embedding"
    inner = "model.embed_vision.multimodal_embedder.embedding_projection.weight"
    assert tower_names.canonical(inner) == tower_names.VISION_PROJECTION


@pytest.mark.parametrize(
    "name",
    [
        "vision_tower.encoder.rotary_emb.inv_freq",
        "vision_tower.encoder.layers.0.self_attn.q_proj.weight",
        "vision_tower.encoder.layers.x.input_layernorm.weight",
        "model.layers.0.mlp.up_proj.weight",
        "",
    ],
)
def test_what_is_not_needed_has_none(name: str) -> None:
    assert tower_names.canonical(name) is None


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("vision_tower.encoder.layers.3.self_attn.o_proj.output_min", "v.blk.3.attn_out.output_min"),
        ("vision_tower.std_scale", "v.std_scale"),
        ("audio_tower.layers.11.lconv1d.conv_norm.weight", "a.blk.11.norm_conv.weight"),
        ("audio_tower.layers.0.lconv1d.pre_layer_norm.weight", "a.blk.0.conv_norm.weight"),
        ("audio_tower.layers.0.self_attn.per_dim_scale", "a.blk.0.per_dim_scale.weight"),
        ("vision_embedder.pos_norm.bias", "v.patch_norm.3.bias"),
        (tower_names.AUDIO_PROJECTION, "mm.a.input_projection.weight"),
    ],
)
def test_names_in_an_mmproj_file_are_llama_cpps(name: str, stored: str) -> None:
    assert tower_names.to_gguf(name) == stored


@pytest.mark.parametrize(("label", "count"), [("E2B", 1411), ("12B", 11), ("26B-A4B", 356), ("31B", 356)])
def test_published_files_have_as_many_tensors(label: str, count: int) -> None:
    """llama.cpp's logs show 356 for 26B-A4B."""
    size: Size = next(size for size in SIZES if size.label == label)
    assert isinstance(size.towers_config, TowersConfig)
    assert len(dict(tower_names.shapes(size.towers_config, size.config.hidden_size))) == count
