"""What several families have alike in config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from gemmaq.errors import InputError
from gemmaq.models import hf_values


def test_the_text_side_comes_before_the_whole_and_ends_the_other_way_round() -> None:
    document = {"vocab_size": 1, "eos_token_id": [1, 106], "text_config": {"vocab_size": 2, "eos_token_id": 1}}
    assert hf_values.text_side(document)["vocab_size"] == 2
    assert hf_values.ends(document) == (1, 106)
    assert hf_values.ends({}) == (1,) and hf_values.ends({"text_config": {"eos_token_id": 5}}) == (5,)


@pytest.mark.parametrize("value", ["1", [1, "2"], -1, True, [None]])
def test_ends_that_are_no_ids_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="eos_token_id"):
        hf_values.ends({"eos_token_id": value})


def test_layer_types_name_every_layer() -> None:
    kinds = ["sliding_attention", "full_attention"]
    assert hf_values.local_layers({"layer_types": kinds}, 2) == (True, False)
    assert hf_values.local_layers({}, 2) is None
    for types in (kinds[:1], "x", ["other", "other"]):
        with pytest.raises(InputError, match="layer_types"):
            hf_values.local_layers({"layer_types": types}, 2)


def test_rope_is_of_the_usual_type() -> None:
    entries = {"full_attention": {"rope_theta": 5.0}, "sliding_attention": {"rope_type": "default"}}
    assert hf_values.rope({"rope_parameters": entries}, local="default", everywhere="p") == entries
    assert hf_values.rope({}, local="default", everywhere="p") == {}
    for bad in (5, {}, entries | {"full_attention": {"rope_type": "yarn"}}):
        with pytest.raises(InputError, match="rope"):
            hf_values.rope({"rope_parameters": bad}, local="default", everywhere="p")


@dataclass(frozen=True)
class Dimensions:
    flag: bool = False
    count: int = 5
    number: float = 0.5
    pair: tuple[int, int] = (1, 2)
    maybe: int | None = None
    first: int = 3


def test_dataclasses_are_filled_with_what_is_there() -> None:
    values = {"flag": True, "count": 7, "number": 2, "pair": [3, 4], "other": "x"}
    assert hf_values.fill(Dimensions, values, "here: ") == Dimensions(True, 7, 2, (3, 4))
    assert hf_values.fill(Dimensions, {"count": None}, "here: ") == Dimensions()
    values = {"maybe": 4, "first": 0, "count": "x"}
    filled = hf_values.fill(Dimensions, values, "here: ", from_zero=("first",), skip=("count",))
    assert filled == Dimensions(maybe=4, first=0)


@pytest.mark.parametrize(
    "change",
    [
        {"flag": 1},
        {"count": 0},
        {"count": True},
        {"count": 2.0},
        {"number": "x"},
        {"number": float("nan")},
        {"number": False},
        {"maybe": 0.5},
        {"first": -1},
        {"pair": [1]},
        {"pair": [1, 0]},
        {"pair": "xy"},
        {"pair": 7},
    ],
)
def test_values_of_the_wrong_kind_are_refused_with_their_place(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^here: {next(iter(change))} is "):
        hf_values.fill(Dimensions, change, "here: ", from_zero=("first",))


@pytest.mark.parametrize(("numbers", "named"), [((4097, 4, 2), "num_hidden_layers is 4097"), ((2, 4, 3), "multiple")])
def test_no_decoder_has_such_layers(numbers: tuple[int, int, int], named: str) -> None:
    with pytest.raises(InputError, match=named):
        hf_values.check_layers(*numbers)


def test_documents_of_text_models_are_nested_without_their_class_and_dtype() -> None:
    keys = hf_values.text_keys((True, False), (1, 106), "bfloat16")
    assert keys["layer_types"] == ["sliding_attention", "full_attention"] and keys["eos_token_id"] == [1, 106]
    assert hf_values.text_keys((), (1,), "float16")["eos_token_id"] == 1
    document = hf_values.nested({**keys, "architectures": ["Text"], "vocab_size": 5}, "Whole", "whole")
    assert hf_values.text_side(document) == {**document, **keys, "model_type": "whole"}
    assert document["architectures"] == ["Whole"] and document["vocab_size"] == 5
    assert document["text_config"].keys() == {*keys, "vocab_size"} - {"torch_dtype"}


def test_colors_are_three_numbers_or_not_there() -> None:
    assert hf_values.colors({"image_std": [1, 0.5, 1]}) == {"image_std": (1.0, 0.5, 1.0)}
    for bad in ([1, 2], "abc", [1, 2, "3"], [1, 2, True], [1, 2, 10**400], [1, 2, float("nan")]):
        with pytest.raises(InputError, match="image_mean"):
            hf_values.colors({"image_mean": bad})
