"""Drafters are put beside the models that they belong to, and beside no others."""

from __future__ import annotations

from pathlib import Path

import pytest

import gemma4
import gemma4_drafter
from gemma4_drafter import DRAFTERS
from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.drafters import with_drafter
from gemmaq.errors import InputError
from gemmaq.sources.open import open_source


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """Targets and drafters of two kinds."""
    root = tmp_path_factory.mktemp("models")
    made = {}
    for kind in ("dense", "effective"):
        target = gemma4.write(root / kind, gemma4.KINDS[kind])
        drafter = gemma4_drafter.write(root / f"{kind}-assistant", DRAFTERS[kind], tokenizer=False)
        made |= {kind: open_source(str(target)), f"{kind}-assistant": open_source(str(drafter))}
    return made


def test_a_model_has_its_drafter_and_its_files(models: dict[str, Checkpoint]) -> None:
    both = with_drafter(models["dense"], models["dense-assistant"])
    assert both.drafter is models["dense-assistant"]
    assert [path.parent.name for path in both.files] == ["dense", "dense-assistant"]
    assert both.parameters == models["dense"].parameters


@pytest.mark.parametrize(
    ("target", "drafter", "reason"),
    [
        ("dense", "effective-assistant", "is no drafter for .*dense: it is for sliding-window layers"),
        ("dense", "effective", "it is a model of Gemma 4, no drafter"),
        ("dense-assistant", "dense-assistant", "that is a drafter itself"),
    ],
)
def test_what_does_not_belong_to_a_model_is_refused(
    models: dict[str, Checkpoint], target: str, drafter: str, reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as refused:
        with_drafter(models[target], models[drafter])
    assert Path(str(refused.value.path)).name == drafter
