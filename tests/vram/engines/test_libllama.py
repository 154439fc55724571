"""llama.cpp as a library: logits of a whole batch, and the whole context in every layer."""

from __future__ import annotations

import pytest

from memory import MIB, K, at

LOGITS_MIB = {"270m": 514.5, "1b": 516.5, "4b": 522.13, "12b": 527.13, "27b": 533.13}
"""Model -> MiB of the compute buffer at 8192 tokens where the logits of a whole batch are kept."""


@pytest.mark.parametrize("model", LOGITS_MIB)
def test_the_library_keeps_all_logits_and_the_whole_context(model: str) -> None:
    got = at(model, 8 * K, "libllama", swa_full=False)
    assert got.compute / MIB == pytest.approx(LOGITS_MIB[model], abs=0.00501)
    assert got.kv_local == at(model, 8 * K).kv_local
    by_default = at(model, 8 * K, "libllama")
    assert by_default.kv_local == at(model, 8 * K, swa_full=True).kv_local > got.kv_local
    assert by_default.notes
