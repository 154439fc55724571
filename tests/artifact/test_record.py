"""gemmaq.json as it is written."""

from __future__ import annotations

import json

from gemmaq.artifact import record


def test_tensors_have_a_line_each_so_that_differences_can_be_read() -> None:
    entry = {"type": "Q4_0", "tensors": [{"name": "a"}, {"name": "b"}], "warnings": []}
    text = record.text("gguf", [entry, entry | {"type": "Q8_0"}]).decode()
    document = json.loads(text)
    assert document == {"schema": "gemmaq.artifact/2", "container": "gguf", "models": [entry, entry | {"type": "Q8_0"}]}
    assert sum(line.strip().rstrip(",") in ('{"name": "a"}', '{"name": "b"}') for line in text.splitlines()) == 4
