"""Conversations in chat templates: as transformers renders them, and within limits whatever a template does."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from damage import small_model
from gemmaq.errors import InputError
from gemmaq.inference import chat, render_chat
from inprocess import refused

pytest.importorskip("jinja2")

USER, ANSWER = {"role": "user", "content": "17 * 24?"}, {"role": "assistant", "content": "408 é🙂"}
SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>"}

USUAL = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}{{ eos_token }}\n{% endfor %}",
    "{% if tools is none and documents is none %}none{% endif %}\n  {% if add_generation_prompt %}go{% endif %}\n",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ dict(a=1) | tojson(separators=(',', ':')) }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}",
    "{% generation %}{% set x = 1 %}{{ messages[0].content }}{% endgeneration %}{{ x is defined }}",
    "{% macro turn(m) %}<{{ m.role }}>{{ caller() }}{% endmacro %}{% call turn(messages[0]) %}x{% endcall %}",
    "{{ dict.fromkeys([1, 2]) }} {{ messages[0].get('tool_calls', 'no') }} {{ nothing }} {{ 'é' | upper }}",
)


@pytest.mark.parametrize("template", USUAL)
@pytest.mark.parametrize("answer", [False, True])
def test_templates_are_rendered_as_transformers_does(template: str, answer: bool) -> None:
    library = pytest.importorskip("transformers.utils.chat_template_utils")
    expected = library.render_jinja_template(
        [[USER, ANSWER]], chat_template=template, add_generation_prompt=answer, **SPECIAL
    )[0][0]
    assert chat.render(template, [USER, ANSWER], SPECIAL, answer=answer) == expected


HOSTILE = {
    "an endless loop": "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
    "nested ranges that write": "{% for a in range(90000) %}{% for b in range(90000) %}xxxx{% endfor %}{% endfor %}",
    "a long text": "{{ 'a' * 10**10 }}",
    "a text that doubles": (
        "{% set ns = namespace(s='a') %}{% for _ in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}"
    ),
    "a huge join": "{{ (['a' * 10**6] * 10**4) | join('b') }}",
    "a list of lists": "{{ [[[0] * 10**5] * 10**5] * 10**5 | list }}",
    "a large power": "{{ 9 ** (9 ** 9) }}",
    "a large power that is hidden": "{% set n = 9 %}{{ n ** (n ** n) }}",
    "a large product": "{% set x = namespace(v=3) %}{% for _ in range(60) %}{% set x.v = x.v * x.v %}{% endfor %}",
    "a macro that calls itself": "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 2) }}{% endmacro %}{{ m(0) }}",
    "two macros that call each other": (
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}"
    ),
    "a loop that calls itself": "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
    "a wide format": "{{ '%9999999999d' % 1 }}",
    "another wide format": "{{ '{:>9999999999}'.format(1) }}",
    "a centred text": "{{ 'a' | center(10**10) }}",
    "a replacement": "{{ ('a' * 10**6) | replace('a', 'a' * 10**5) }}",
    "a sum of lists": "{{ range(99999) | map('string') | map('center', 10**5) | list }}",
    "an indented text": "{{ ('\n' * 10**6) | indent(10**5, blank=true) }}",
    "a slice without end": "{{ messages | slice(10**9) | list }}",
    "a batch without end": "{{ messages | batch(10**9, 'x') | list }}",
    "words without end": "{{ lipsum(n=10**9) }}",
    "a product of all": "{% for a in range(99999) %}{{ (range(99999) | list | sort | unique | list) }}{% endfor %}",
    "deep brackets": "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
    "deep lists": "{{ " + "[" * 500 + "]" * 500 + " }}",
    "deep conditions": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "half a character": "{{ '\\ud800' }}",
    "a long refusal": "{{ raise_exception('x' * 10**7) }}",
    "a class of all": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a function's insides": "{{ raise_exception.__globals__['os'].system('true') }}",
    "a name of the namespace": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "a file": "{% include '/etc/passwd' %}",
    "macros of a file": "{% import '/etc/passwd' as x %}{{ x }}",
    "a parent": "{% extends '/etc/passwd' %}",
    "a range of a trillion": "{% for x in range(10**12) %}x{% endfor %}",
    "a cycler of all": "{% set c = cycler(*range(99999)) %}{% for _ in range(99999) %}{{ c.next() }}{% endfor %}" * 20,
    "an error of its own": "{{ raise_exception('no system') }}",
    "a name that is not there": "{{ nothing.at.all }}",
}
HARMLESS = ("deep lists", "deep conditions", "a large product")
"""Templates that may also come to an end, by the version of jinja2."""


def limit_of_memory() -> int:
    """Bytes of address space that the process may take; 0 where no limit is known."""
    assert chat._RENDERER.process is not None
    if not hasattr(resource, "prlimit"):
        return 0
    limit = resource.prlimit(chat._RENDERER.process.pid, resource.RLIMIT_AS)[0]
    assert limit > render_chat.MEMORY  # RLIM_INFINITY is negative
    return limit


def peak() -> int:
    """Bytes of memory that the process has taken at most, 0 where it has ended or nobody knows."""
    process = chat._RENDERER.process
    status = Path(f"/proc/{process.pid}/status") if process is not None else Path()
    if not status.is_file():
        return 0
    return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_within_its_limits(name: str) -> None:
    chat.render("", [USER], SPECIAL)  # the process is there
    assert limit_of_memory() < 600 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        text = chat.render(HOSTILE[name], [USER], SPECIAL)
    except InputError as told:
        assert told.exit_code == 3 and "the chat template" in told.message and len(told.message) < 400
    else:
        assert name in HARMLESS and len(text) < 10_000
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime < chat.SECONDS + 3
    assert peak() < 300 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10
    assert chat.render("{{ bos_token }}!", [USER], SPECIAL) == "<bos>!"  # the next one is not harmed


@pytest.mark.parametrize(
    "template",
    [
        "{{ lipsum.__globals__['os'].system(command) }}",
        "{{ cycler.__init__.__globals__.os.system(command) }}",
        "{{ (lipsum | attr('__globals__'))['os'].system(command) }}",
        "{{ namespace.__init__.__globals__['sys'].modules['os'].system(command) }}",
        "{{ raise_exception.__builtins__['__import__']('os').system(command) }}",
        "{{ '{0.__globals__[os]}'.format(lipsum).system(command) }}",
        "{{ dict.__call__.__globals__['os'].system(command) }}",
        "{% set f = ''.__class__.__base__.__subclasses__ %}{% for x in f() %}{{ x(command, shell=true) }}{% endfor %}",
    ],
)
def test_a_template_runs_nothing(template: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the chat template refuses"):
        chat.render(template, [USER], {"command": f"touch {tmp_path}/run"})
    assert not list(tmp_path.iterdir())


def test_time_is_counted_over_all_conversations() -> None:
    slow = "{% for a in range(3000) %}{% for b in range(3000) %}{% endfor %}{% endfor %}x"
    chat._RENDERER.end()
    with pytest.raises(chat.Exhausted, match="more than 2 seconds"):
        for _ in range(40):
            chat.render(slow, [USER], SPECIAL)


def test_one_process_serves_all_and_another_one_follows_it() -> None:
    chat.render("a", [USER], {})
    first = chat._RENDERER.process
    assert first is not None
    threads = [threading.Thread(target=chat.render, args=("b", [USER], {})) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert chat._RENDERER.process is first
    first.kill()
    first.wait()
    assert chat.render("{{ messages[0].content }}", [USER], {}) == USER["content"]
    assert chat._RENDERER.process is not first
    first.stdin.close()
    first.stdout.close()


def test_a_forked_process_has_its_own() -> None:
    chat.render("a", [USER], {})
    ours = chat._RENDERER.process
    child = os.fork()
    if not child:
        good = chat.render("b", [USER], {}) == "b" and chat._RENDERER.process is not ours
        chat._RENDERER.end()
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert chat.render("c", [USER], {}) == "c" and chat._RENDERER.process is ours


def test_a_process_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    chat._RENDERER.end()
    monkeypatch.setattr(chat, "PATIENCE", 0.0)
    with pytest.raises(chat.Exhausted):
        chat.render("a", [USER], {})
    monkeypatch.undo()
    assert chat.render("a", [USER], {}) == "a"


def test_two_hundred_conversations_take_less_than_half_a_second() -> None:
    chat.render(USUAL[0], [USER], SPECIAL)
    started = time.process_time()
    for _ in range(200):
        chat.render(USUAL[0], [USER, ANSWER], SPECIAL)
    assert time.process_time() - started < 0.5


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_ends_with_its_parent() -> None:
    run = """
from gemmaq.inference import chat
chat.render("a", [], {})
print(chat._RENDERER.process.pid, flush=True)
input()
"""
    command = [sys.executable, "-c", run]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path(f"/proc/{int(parent.stdout.readline())}")
        assert child.exists()
        parent.kill()
        parent.wait()
        until = time.monotonic() + 20
        while child.exists() and "\nState:\tZ" not in (child / "status").read_text():
            assert time.monotonic() < until, "it outlives its parent"
            time.sleep(0.02)


def test_a_command_tells_of_a_hostile_template(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model = small_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text("{{ 'a' * 10**10 }}")
    (tmp_path / "text.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    arguments = ("imatrix", model, "--text", tmp_path / "text.jsonl", "-o", tmp_path / "out.gguf")
    refused(3, ("chat template", "memory"), *arguments, under=tmp_path)
