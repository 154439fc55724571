"""Models that are refused by name, with what works."""

from __future__ import annotations

import pytest

from gemmaq.errors import InputError
from gemmaq.models.families import FAMILIES, of_config, of_gguf
from gemmaq.models.unsupported import UNSUPPORTED, find


@pytest.mark.parametrize("kind", UNSUPPORTED, ids=lambda kind: kind.title)
def test_a_model_is_refused_by_every_name_it_goes_by(kind) -> None:
    for name in kind.names:
        assert find(name) is kind
        for refuse in (
            lambda name=name: of_config({"architectures": [name]}),
            lambda name=name: of_config({"model_type": name}),
            lambda name=name: of_gguf({"general.architecture": name}),
        ):
            with pytest.raises(InputError, match=f"^{kind.title} is not supported: ") as refused:
                refuse()
            assert "inspect" in str(refused.value.hint)


def test_no_name_is_both_read_and_refused() -> None:
    names = [name for kind in UNSUPPORTED for name in kind.names]
    assert len(set(names)) == len(names)
    assert not {name for family in FAMILIES for name in family.architectures} & set(names)
    assert find("LlamaForCausalLM") is None and find(["x"]) is None
