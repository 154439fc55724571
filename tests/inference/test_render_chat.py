"""The script that renders chat templates: an answer for every line, whatever the line says."""

from __future__ import annotations

import json
import signal

import pytest

from gemmaq.inference import render_chat
from gemmaq.inference.render_chat import answer, serve

pytest.importorskip("jinja2")


def request(template: str, **others: object) -> bytes:
    return json.dumps({"template": template, "messages": [], "answer": False, "special": {}, **others}).encode()


def test_each_line_has_an_answer() -> None:
    written: list[bytes] = []
    lines = [
        request("a\u00e9"),
        request("{{ x"),
        request("{{ answer }}{{ bos_token }}", special={"bos_token": "<b>"}),
        b"{",
    ]
    serve(lines, written.append)
    replies = [json.loads(line) for line in written]
    assert replies[0] == {"text": "aé"} and replies[2] == {"text": "<b>"}
    assert set(replies[1]) == set(replies[3]) == {"problem"}
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ raise_exception('no ' + 'system') }}", "no system"),
        ("{{ raise_exception('x' * 999) }}", "x" * 200),
        ("{{ raise_exception('') }}", "TemplateError"),
        ("{{ '\\ud800' }}", "it writes half a character"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "it calls itself again and again"),
        ("{{ 1 // 0 }}", "integer division or modulo by zero"),
    ],
)
def test_what_a_template_fails_with_is_an_answer(template: str, problem: str) -> None:
    assert answer(request(template))["problem"].startswith(problem)


def test_the_length_of_a_result_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_chat, "ROOM", 100)
    template = "{% for _ in range(n) %}xxxx{% endfor %}"
    line = request(template, special={"n": 20})
    assert answer(line) == {"text": "xxxx" * 20}
    assert "more than" in answer(request(template, special={"n": 900}))["problem"]
