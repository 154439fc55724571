"""What is printed of a budget."""

from __future__ import annotations

from pathlib import Path

import pytest

import made_up
from damage import small_model
from gemmaq.budget.choose import Source
from gemmaq.budget.goal import Bits
from gemmaq.budget.run import decide
from gemmaq.cli.views.budget import document, show
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.sources.open import open_source


def test_types_candidates_and_files_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = open_source(str(small_model(tmp_path / "gemma-3-tiny")))
    source = Source(checkpoint, Request(of("q4_0"), ("gguf",)), Bits(7), made_up.sensitivities(checkpoint), {})
    decision = decide(source)
    assert decision.uniform is not None
    show(decision, None, folder=Path, seconds=None)
    out, err = capsys.readouterr()
    for word in ("embedding", "norms and others", decision.chosen.plan.label, decision.uniform.plan.label, "share"):
        assert word in out, word
    assert "nothing was written" in err and "best single type" in err
    said = document("model", decision, None, folder=Path, warnings=[], seconds=None)
    assert [each["kept"] for each in said["budget"]["candidates"]] == [True, False]
    assert said["budget"]["types"][checkpoint.embedding.name] in ("q8_0", "q5_1", "q5_0", "iq4_nl")
