"""The towers in config.json and in the processor's file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gemma4_towers
from gemma4_towers import KINDS
from gemmaq.errors import InputError
from gemmaq.models.gemma4 import hf_config, towers_hf
from gemmaq.models.gemma4.sizes import SIZES
from gemmaq.models.gemma4.towers_config import AudioTower, TowersConfig, VisionTower


def settings(config: Any) -> dict[str, Any]:
    """The processor's settings as a folder gives them."""
    document = towers_hf.processor_files(config)["processor_config.json"]
    return {**document, **document["image_processor"]}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.label)
def test_a_config_comes_back(size: Any) -> None:
    config = replace(size.towers_config, image_tokens=560, image_mean=(0.5, 0.5, 0.5))
    document = towers_hf.with_towers(hf_config.to_hf(size.config, "bfloat16"), size.config, config)
    assert towers_hf.from_hf(document, settings(config)) == config
    assert hf_config.from_hf(document) == size.config


@pytest.mark.parametrize("kind", KINDS)
def test_config_json_is_that_of_a_release(kind: str) -> None:
    """The dtype goes by its older name, and the size of the vocabulary stands at both places."""
    model = KINDS[kind]
    theirs = gemma4_towers.config_json(model)
    towers = towers_hf.from_hf(theirs, gemma4_towers.processor_json(model))
    ours = towers_hf.with_towers(hf_config.to_hf(model.text, "bfloat16"), model.text, towers)
    for section in ("vision_config", "audio_config", "text_config"):
        if theirs[section] is None:
            assert ours.pop(section) is theirs.pop(section) is None
            continue
        differing = ours.pop(section).items() ^ theirs.pop(section).items()
        assert {key for key, _ in differing} <= {"dtype"}, section
    assert ours.pop("torch_dtype") == theirs.pop("dtype")
    assert ours.pop("vocab_size") == model.text.vocab_size
    assert ours.pop("eos_token_id") == 1 and theirs.pop("eos_token_id")[0] == 1
    assert ours == theirs


@pytest.mark.parametrize("kind", KINDS)
def test_the_processor_is_that_of_a_release(kind: str) -> None:
    document = gemma4_towers.processor_json(KINDS[kind])
    towers = towers_hf.from_hf(gemma4_towers.config_json(KINDS[kind]), document)
    assert towers_hf.processor_files(towers) == {"processor_config.json": document}


def test_defaults_are_those_of_transformers() -> None:
    from_nothing = towers_hf.from_hf({"vision_config": {}, "audio_config": {}}, {})
    assert from_nothing == TowersConfig(VisionTower(), AudioTower(), bidirectional=False)
    unified = towers_hf.from_hf({"model_type": "gemma4_unified", "vision_config": {}, "audio_config": {}}, {})
    assert unified == next(size.towers_config for size in SIZES if size.label == "12B")
    assert towers_hf.from_hf({"vision_config": {}, "audio_config": None}, {}).hears is None


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("vision_config", {"hidden_size": 0}),
        ("vision_config", {"hidden_size": 100}),
        ("vision_config", {"num_hidden_layers": 5000}),
        ("vision_config", {"num_hidden_layers": "x"}),
        ("vision_config", {"rms_norm_eps": True}),
        ("vision_config", {"standardize": 1}),
        ("vision_config", {"head_dim": 32}),
        ("vision_config", {"num_key_value_heads": 1}),
        ("vision_config", {"pooling_kernel_size": 2}),
        ("vision_config", {"rope_parameters": {"rope_theta": 10000.0}}),
        ("vision_config", {"rope_parameters": [1]}),
        ("audio_config", {"subsampling_conv_channels": [128]}),
        ("audio_config", {"subsampling_conv_channels": [64, 32]}),
        ("audio_config", {"attention_chunk_size": 13}),
        ("audio_config", {"use_clipped_linears": None, "conv_kernel_size": -1}),
    ],
)
def test_dimensions_that_make_no_sense_are_refused(section: str, change: dict[str, object]) -> None:
    document = gemma4_towers.config_json(KINDS["effective"])
    with pytest.raises(InputError):
        towers_hf.from_hf({**document, section: document[section] | change}, {})


@pytest.mark.parametrize("change", [{"model_patch_size": 32}, {"output_proj_dims": 128}, {"mm_posemb_size": 1.5}])
def test_dimensions_of_embedders_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    document = gemma4_towers.config_json(KINDS["unified"])
    with pytest.raises(InputError, match="vision_config"):
        towers_hf.from_hf({**document, "vision_config": document["vision_config"] | change}, {})


@pytest.mark.parametrize(
    ("document", "processor"),
    [
        ({}, {}),
        ({"vision_config": [1]}, {}),
        ({"vision_config": {}, "image_token_id": "x"}, {}),
        ({"vision_config": {}}, {"image_mean": [0.5]}),
        ({"vision_config": {}}, {"image_std": ["x", 1, 1]}),
        ({"vision_config": {}}, {"image_mean": [10**400, 1, 1]}),
        ({"vision_config": {}}, {"image_mean": [float("nan"), 1, 1]}),
        ({"vision_config": {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}}, {}),
        ({"vision_config": {}}, {"max_soft_tokens": 0}),
        ({"vision_config": {}}, {"audio_seq_length": "x"}),
    ],
)
def test_what_is_no_config_is_refused(document: dict[str, Any], processor: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        towers_hf.from_hf(document, processor)


def test_the_end_of_sound_has_two_spellings() -> None:
    for spelling in ("eoa_token_id", "eoa_token_index"):
        assert towers_hf.from_hf({"vision_config": {}, spelling: 77}, {}).tokens.eoa_token_id == 77


@pytest.mark.parametrize(("label", "seen"), [("E2B", None), ("31B", "vision")])
def test_without_a_word_tokens_of_an_image_see_each_other_in_models_without_layer_embeddings(
    label: str, seen: str | None
) -> None:
    size = next(size for size in SIZES if size.label == label)
    assert isinstance(size.towers_config, TowersConfig)
    config = replace(size.towers_config, bidirectional=None)
    document = towers_hf.with_towers(hf_config.to_hf(size.config, "bfloat16"), size.config, config)  # type: ignore[arg-type]
    assert document["text_config"]["use_bidirectional_attention"] == seen


SECTIONS = st.sampled_from(["vision_config", "audio_config", "text_config"])
NAMES = {*gemma4_towers.CLIPPED, *gemma4_towers.SOUND, *gemma4_towers.PATCHES, "audio_embed_dim"}
FIELDS = st.sampled_from(sorted(NAMES))
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["x", [1, 2], {"x": 1}]))


@given(SECTIONS, st.dictionaries(FIELDS, VALUES), st.sampled_from(sorted(KINDS)), st.dictionaries(FIELDS, VALUES))
def test_other_values_are_read_or_refused(
    section: str, change: dict[str, Any], kind: str, processor: dict[str, Any]
) -> None:
    document = gemma4_towers.config_json(KINDS[kind])
    try:
        found = towers_hf.from_hf({**document, section: (document[section] or {}) | change}, processor)
        assert found.sees is not None
    except InputError as error:
        assert error.message
