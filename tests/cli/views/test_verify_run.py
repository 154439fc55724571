"""A runtime's run as text and JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gemmaq.cli.views.verify_run import entry, show
from gemmaq.verify.running import Outcome

GOOD = Outcome("xllamacpp", "1.2", "<bos>a", (5, 6), " b\n", 0.25, 0.5, 0.875, 1)


def test_a_good_run_is_shown_with_its_margin(capsys: pytest.CaptureFixture[str]) -> None:
    show(GOOD)
    said = capsys.readouterr().out
    for words in ("xllamacpp 1.2 continues '<bos>a'", "2 tokens: ' b\\n'", "0.25", "0.50", "0.88", "choose 1 of the 2"):
        assert words in said
    show(replace(GOOD, drift=None, source_same=None))
    said = capsys.readouterr().out
    assert "log-prob" not in said and "source" not in said
    show(Outcome("xllamacpp", None, "<bos>a", problems=("it crashed",)))
    assert capsys.readouterr().out == ""


def test_json_has_every_field() -> None:
    said = json.loads(json.dumps(entry(GOOD)))
    assert said["agreed"] is True and said["tokens"] == [5, 6] and said["text"] == " b\n"
    assert (said["runtime"], said["version"], said["margin"], said["source_same"]) == ("xllamacpp", "1.2", 0.875, 1)
    failed = entry(Outcome("xllamacpp", None, "<bos>a", problems=("it crashed",)))
    assert failed["agreed"] is False and failed["margin"] is None
