"""Results of an evaluation as a table and as JSON."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.cli.views.evaluate import COLUMNS, cells, document, plan, scored, table
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
    rows = [cells(one) for one in RESULTS]
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert rows[0][0] == "whole (reference)" and rows[0][4:] == ("",) * 4
    assert rows[2][0] == "small, q8_0 cache" and rows[2][4] == "0.5000" and rows[2][7] == "100.00 %"


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
