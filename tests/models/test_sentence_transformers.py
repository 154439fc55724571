"""Files of sentence-transformers: which belong to a model, and what they say."""

from __future__ import annotations

from typing import Any

import pytest

from gemmaq.models import sentence_transformers as modules


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode_max_tokens": True}, None),
        ({}, None),
    ],
)
def test_pooling_is_read_in_every_spelling(settings: dict[str, Any], kind: str | None) -> None:
    assert modules.pooling(settings) == kind


def test_only_modules_with_a_number_belong_to_the_model() -> None:
    paths = ("1_Pooling/config.json", "2_Dense/model.safetensors", "onnx/config.json", "2_Dense/README.md")
    assert [modules.is_module(path) for path in paths] == [True, True, False, False]
    assert [modules.is_head(path) for path in paths] == [False, True, False, False]


def test_dense_heads_have_names_and_widths() -> None:
    assert modules.head_name("2_Dense") == "dense_2.weight" and modules.head_name("4_Dense") is None
    assert modules.head_keys("dense_2.weight", (3072, 768)) == {"dense_2_feat_in": 768, "dense_2_feat_out": 3072}
    assert modules.kind({"type": "sentence_transformers.models.Dense"}) == "Dense"
