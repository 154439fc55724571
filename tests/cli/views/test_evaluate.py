"""Results of an evaluation as a table and as JSON."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gemmaq.cli.views.evaluate import COLUMNS, document, grid, plan, scored, table
from gemmaq.evaluate.chunks import Chunks
from gemmaq.evaluate.result import Result
from gemmaq.evaluate.score import Score

CHUNKS = Chunks(np.zeros((2, 16), np.int64), 5, (("chat", 1), ("code", 1)))


def result(label: str, kl: float, *, kv_type: str = "", is_reference: bool = False) -> Result:
    surprise, same = np.linspace(1, 2, CHUNKS.scored), np.ones(CHUNKS.scored, bool)
    score = Score(surprise, np.full(CHUNKS.scored, kl), same)
    return Result(f"dir/{label.partition(',')[0]}", label, 2_000_000, 4.5, score, is_reference, kv_type)


RESULTS = [
    result("whole", 0, is_reference=True),
    result("small", 0.25),
    result("small, q8_0 cache", 0.5, kv_type="q8_0"),
]


def test_a_row_has_a_cell_for_every_column() -> None:
    names, *rows = grid(RESULTS)
    assert names == COLUMNS and all(len(row) == len(COLUMNS) for row in rows)
    assert rows[0][0] == "whole (reference)" and set(rows[0][4:]) == {""}
    cells = dict(zip(names, rows[2], strict=True))
    assert cells["model"] == "small, q8_0 cache" and cells["top-1"] == "100.00 %"
    assert cells["mean KL"] == cells["median KL"] == cells["99 % KL"] == cells["99.9 % KL"] == "0.5000"
    assert cells["KL ±"] == "0" and cells["RMS Δp"] == "0.00 %"


def test_what_quantization_changes_in_the_probability_of_the_text() -> None:
    """From 1/2 to 1/4 on half of the tokens, and from 1/2 to 3/4 on the others."""
    whole, other = RESULTS[:2]
    half = np.arange(CHUNKS.scored) % 2 == 0
    whole = replace(whole, score=replace(whole.score, surprise=np.full(CHUNKS.scored, np.log(2))))
    other = replace(other, score=replace(other.score, surprise=-np.log(np.where(half, 0.25, 0.75))))
    assert grid([whole, other])[2][-1] == "25.00 %"
    delta = document([whole, other], CHUNKS, {})["models"][0]["delta_p"]
    assert delta["rms"] == pytest.approx(0.25) and abs(delta["mean"]) < 0.25


def test_the_table_has_models_and_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    table(RESULTS, CHUNKS)
    said = capsys.readouterr().out
    assert scored(CHUNKS) in said and "2 of 5 chunks of 16 tokens" in said
    assert "by kind of text" in said and "chat" in said and "small, q8_0 cache" in said


def test_json_names_the_cache_where_there_is_one() -> None:
    missed = {"dir/small": [], "dir/small, q8_0 cache": ["mean KL"]}
    found = document(RESULTS, CHUNKS, missed)
    assert [entry.get("kv_type") for entry in (found["reference"], *found["models"])] == [None, None, "q8_0"]
    assert [entry["passed"] for entry in found["models"]] == [True, False]
    assert found["models"][0]["kl"]["mean"] == 0.25 and set(found["models"][0]["kinds"]) == {"chat", "code"}
    assert "passed" not in document(RESULTS, CHUNKS, {})["models"][0]


def test_the_plan() -> None:
    found = plan("whole", [("small", ""), ("small", "q8_0")], CHUNKS)
    assert found["models"] == [{"model": "small"}, {"model": "small", "kv_type": "q8_0"}]
    assert found["reference"] == {"model": "whole"} and found["tokens"] == CHUNKS.scored
