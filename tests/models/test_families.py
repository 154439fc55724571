"""Which family a checkpoint belongs to, and the published sizes by the names that people type."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq.errors import InputError, UsageError
from gemmaq.models import families
from gemmaq.models.families import (
    FAMILIES,
    TODAY,
    drafters,
    namesakes,
    of_config,
    of_gguf,
    of_size,
    require_size,
    short_names,
    size_by_name,
    size_label,
    sizes,
)


def test_a_family_is_found_by_every_name_that_it_reads() -> None:
    for family in FAMILIES:
        for name in family.architectures:
            assert of_config({"architectures": [name], **dict.fromkeys(family.marks, True)}) is family
        assert of_gguf({"general.architecture": family.gguf.ARCHITECTURE}) is family
        assert all(of_size(size) is family for size in family.sizes)


@pytest.mark.parametrize("document", [{}, {"architectures": ["LlamaForCausalLM"]}, {"model_type": ["x"]}])
def test_another_architecture_is_refused_with_those_that_are_read(document: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is not supported") as refused:
        of_config(document)
    assert FAMILIES[0].title in str(refused.value.hint)
    with pytest.raises(InputError, match="GGUF architecture"):
        of_gguf({"general.architecture": "llama"})


def test_drafters_are_listed_apart_from_models() -> None:
    assert {size.family for size in drafters()} == {"gemma4_drafter"}
    assert not set(drafters()) & set(sizes())
    with pytest.raises(UsageError) as refused:
        require_size("no such size", drafters())
    assert refused.value.hint == "known: " + ", ".join(size.name for size in drafters())


def test_a_size_is_found_by_label_name_and_repository() -> None:
    first = {size.label: size for size in reversed(sizes())}
    for size in sizes():
        organization = of_size(size).organization
        assert size_by_name(size.label) is first[size.label]
        for name in (size.name, f"{organization}/{size.name}", size.name.upper(), f"{size.family}:{size.label}"):
            assert size_by_name(name) is size
        assert size_label(of_size(size), size.config) == size.label
    assert size_by_name("no such size") is None
    with pytest.raises(UsageError, match="unknown model"):
        require_size("no such size")


def test_a_label_that_families_share_means_the_older_one() -> None:
    """Commands that were written for it go on to mean it."""
    older, newer = require_size("12b"), require_size("gemma-4-12b")
    assert (older.name, newer.name) == ("gemma-3-12b", "gemma-4-12B")
    assert namesakes(older) == (newer,) and namesakes(newer) == (older,)
    assert namesakes(require_size("27b")) == ()
    assert require_size("E2B").name == "gemma-4-E2B"
    assert require_size("26b") is require_size("26B-A4B")


def test_names_are_short_where_that_tells_them_apart() -> None:
    assert short_names(["gemma-3-27b", "gemma-4-E2B", "a model"]) == {
        "gemma-3-27b": "27b",
        "gemma-4-E2B": "E2B",
        "a model": "a model",
    }
    both = ["gemma-3-12b", "gemma-4-12B"]
    assert short_names(both) == {name: name for name in both}
    assert TODAY.sizes and TODAY in FAMILIES


def test_of_two_families_that_read_a_class_the_marks_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = replace(FAMILIES[0], name="toy", title="Toy", marks=("is_toy",), sizes=())
    monkeypatch.setattr(families, "FAMILIES", (FAMILIES[0], toy))
    name = FAMILIES[0].architectures[0]
    assert of_config({"architectures": [name], "is_toy": True}) is toy
    assert of_config({"architectures": [name], "is_toy": False}) is of_config({"architectures": [name]}) is FAMILIES[0]


def test_a_model_of_the_same_dimensions_is_found_by_its_own_name() -> None:
    assert require_size("google/medgemma-4b") is require_size("gemma-3-4b")


def test_a_family_that_is_registered_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = replace(FAMILIES[0], name="toy", title="Toy", architectures=("ToyForCausalLM",), sizes=())
    monkeypatch.setattr(families, "FAMILIES", (*FAMILIES, toy))
    assert of_config({"architectures": ["ToyForCausalLM"]}) is toy
    with pytest.raises(InputError) as refused:
        of_config({"architectures": ["Other"]})
    assert "ToyForCausalLM (Toy)" in str(refused.value.hint)


def test_experts_that_are_stored_whole_have_no_slices() -> None:
    name, shape = "language_model.model.layers.0.experts.down_proj", (2, 64, 32)
    assert families.slices(name, shape, per_expert=None) == ()
    (stack,) = families.slices(name, shape, per_expert=False)
    assert stack.name == "language_model.model.layers.0.experts.switch_glu.down_proj.weight" and stack.shape == shape
    assert len(families.slices(name, shape, per_expert=True)) == 2
