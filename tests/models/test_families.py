"""Which family a checkpoint belongs to, and the published sizes by the names that people type."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gemmaq.errors import InputError, UsageError
from gemmaq.models import families
from gemmaq.models.families import FAMILIES, of_config, of_gguf, of_size, require_size, size_by_name, size_label, sizes


def test_a_family_is_found_by_every_name_that_it_reads() -> None:
    for family in FAMILIES:
        for name in family.architectures:
            assert of_config({"architectures": [name]}) is family
        assert of_gguf({"general.architecture": family.gguf.ARCHITECTURE}) is family
        assert all(of_size(size) is family for size in family.sizes)


@pytest.mark.parametrize("document", [{}, {"architectures": ["LlamaForCausalLM"]}, {"model_type": ["x"]}])
def test_another_architecture_is_refused_with_those_that_are_read(document: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is not supported") as refused:
        of_config(document)
    assert FAMILIES[0].title in str(refused.value.hint)
    with pytest.raises(InputError, match="GGUF architecture"):
        of_gguf({"general.architecture": "llama"})


def test_a_size_is_found_by_label_name_and_repository() -> None:
    for size in sizes():
        organization = of_size(size).organization
        for name in (size.label, size.name, f"{organization}/{size.name}", size.name.upper()):
            assert size_by_name(name) is size
        assert size_label(of_size(size), size.config) == size.label
    assert size_by_name("no such size") is None
    with pytest.raises(UsageError, match="unknown model"):
        require_size("no such size")


def test_a_family_that_is_registered_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = replace(FAMILIES[0], name="toy", title="Toy", architectures=("ToyForCausalLM",), sizes=())
    monkeypatch.setattr(families, "FAMILIES", (*FAMILIES, toy))
    assert of_config({"architectures": ["ToyForCausalLM"]}) is toy
    with pytest.raises(InputError) as refused:
        of_config({"architectures": ["Other"]})
    assert "ToyForCausalLM (Toy)" in str(refused.value.hint)
