"""The published sizes: parameters, and bytes of Q4_0 files, to the last one."""

from __future__ import annotations

import pytest

from gemmaq.containers import gguf
from gemmaq.encodings import find
from gemmaq.errors import InputError
from gemmaq.models.families import FAMILIES, require_size, size_by_name, size_label
from gemmaq.models.gemma3.names import EMBEDDING, shapes
from gemmaq.models.gemma3.sizes import SIZES
from gemmaq.planning.planner import make_plan
from gemmaq.planning.recipe import Recipe
from gemmaq.planning.request import Request
from gemmaq.vram.weights import checkpoint_of

LABELS = ("270M", "1B", "4B", "12B", "27B")

PARAMETERS = {
    "270M": (167_772_160, 100_270_080, 55_936, 268_098_176, 0, 0, 268_098_176),
    "1B": (301_989_888, 697_761_792, 134_272, 999_885_952, 0, 0, 999_885_952),
    "4B": (671_252_480, 3_208_642_560, 368_128, 3_880_263_168, 416_866_032, 2_950_272, 4_300_079_472),
    "12B": (1_006_878_720, 10_758_389_760, 765_696, 11_766_034_176, 416_866_032, 4_424_832, 12_187_325_040),
    "27B": (1_409_630_208, 25_598_361_600, 1_354_496, 27_009_346_304, 416_866_032, 6_194_304, 27_432_406_640),
}
"""Embedding, matrices, norms, text model, vision tower, projector, all. The sums are those of the published models."""

Q4_0_BYTES = {
    "q4_0": (150_997_504, 562_897_408, 2_183_913_472, 6_621_026_304, 15_197_413_376),
    "q6_k": (None, None, 2_356_970_752, 6_880_612_224, 15_560_833_664),
    "q8_0": (234_883_584, 713_892_352, 2_519_539_712, 7_124_465_664, 15_902_228_480),
    "f16": (392_169_984, 997_007_872, 3_148_838_912, 8_068_414_464, 17_223_756_800),
}
"""Type of the embedding -> bytes of the tensors by size; None where its rows are no multiple of 256."""

GGML_ORG = {
    "270M": (241_410_624, 6_527_040),
    "1B": (720_425_600, 6_533_248),
    "4B": (2_526_080_992, 6_541_280),
    "12B": (7_131_017_792, 6_552_128),
    "27B": (15_908_791_488, 6_563_008),
}
"""Bytes of the published Q4_0 files with a Q8_0 embedding, and of all in them that is no tensor."""


def q4_0_plan(label: str, embedding: str | None):
    recipe = Recipe(find("q4_0"), find(embedding) if embedding else None, method="nearest")
    return make_plan(checkpoint_of(require_size(label)), Request(recipe, ("gguf",), mmproj=None), gguf.FORMAT)


@pytest.mark.parametrize("label", LABELS)
def test_parameters_are_those_published(label):
    size = require_size(label)
    counts = {"embedding": 0, "matrices": 0, "norms": 0}
    for name, shape in shapes(size.config):
        kind = "embedding" if name == EMBEDDING else "matrices" if len(shape) == 2 else "norms"
        counts[kind] += shape[0] * (shape[1] if len(shape) == 2 else 1)
    text = sum(counts.values())
    assert (*counts.values(), text, size.towers, size.projector, text + size.towers + size.projector) == PARAMETERS[
        label
    ]
    assert size.config.parameters == checkpoint_of(size).parameters == text


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("embedding", Q4_0_BYTES)
def test_bytes_of_q4_0_tensors(label, embedding):
    expected = Q4_0_BYTES[embedding][LABELS.index(label)]
    if expected is None:
        with pytest.raises(InputError, match="no multiple of 256"):
            q4_0_plan(label, embedding)
    else:
        assert q4_0_plan(label, embedding).tensor_bytes == expected


@pytest.mark.parametrize("label", LABELS)
def test_bytes_of_the_published_q4_0_files(label):
    file, rest = GGML_ORG[label]
    assert q4_0_plan(label, "q8_0").tensor_bytes == file - rest


@pytest.mark.parametrize("label", LABELS)
def test_the_embedding_is_q6_k_where_that_is_possible(label):
    plan = q4_0_plan(label, None)
    expected = "q8_0" if label in ("270M", "1B") else "q6_k"
    assert {tensor.name: tensor.encoding.name for tensor in plan.tensors}["token_embd.weight"] == expected
    assert plan.tensor_bytes == Q4_0_BYTES[expected][LABELS.index(label)]
    assert plan.counts["q4_0"] == 7 * require_size(label).config.num_hidden_layers


@pytest.mark.parametrize("label", LABELS)
def test_names_a_user_may_say(label):
    size = require_size(label)
    assert size.label == size_label(FAMILIES[0], size.config) == label
    for name in (label.lower(), label, f"gemma-3-{label.lower()}", f"gemma3:{label.lower()}", f"google/{size.name}"):
        assert size_by_name(name) is size, name


def test_layers_that_see_everything():
    assert [size.config.global_layers for size in SIZES] == [3, 4, 5, 8, 10]
    assert [size.config.period for size in SIZES] == [6] * 5
    assert size_by_name("2b") is None
