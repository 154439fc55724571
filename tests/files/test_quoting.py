"""Names of strangers in other languages mean the same there, and begin nothing of their own."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ollama_rules
from gemmaq.errors import InputError
from gemmaq.files import quoting
from gemmaq.hub import is_repository

NASTY = (
    'a "b".gguf', "it's", "$(touch x)", "`touch x`", "a;b", "a|b", "a\\b", "a\\", "-rf", "--help", "a b", " a ", "~",
    "*", "a\nb", "a\r\nb", "a\tb", "\x1b[2J", "\u202egpj", "\u2028", "[x](http://e.vil)", "![x](y)", "<script>", "&lt;",
    "#", '"""', 'a"""b', '"', "'", "{{ x }}", "{0}", "%s", "| a | b |", "``", "`", "a`", "```", "**b**", "_b_", "é",
    "模型", "🙂", "a\udcffb", "<!-- x -->", "$x$", "!x", "a=b", "\\`", "\\|", "x" * 300,
)  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("program", ["sh", "bash", "zsh"])
def test_a_word_of_a_command_line_is_the_text(text: str, program: str) -> None:
    if shutil.which(program) is None or (program == "sh" and quoting.shell(text).startswith("$'")):
        pytest.skip("is not there, or knows no such quotes")
    word = quoting.shell(text)
    assert "\n" not in word and "\x1b" not in word
    done = subprocess.run([program, "-c", f"printf '%s|' x{word} {word}"], capture_output=True)
    expected = (f"./{text}" if text.startswith("-") else text).encode("utf-8", "surrogateescape")
    assert done.stdout == b"x" + expected + b"|" + expected + b"|"


def shown(markdown: str) -> str:
    """What CommonMark shows of a line that holds nothing but escapes and letters."""
    assert not re.search(r"(?<!\\)(\\\\)*[`*{}\[\]()<>#|!~&$]", re.sub(r"\\[^A-Za-z0-9\s]", "", markdown))
    return re.sub(r"\\([^A-Za-z0-9\s])", r"\1", markdown)


@given(st.text() | st.sampled_from(NASTY))
def test_a_text_in_markdown_shows_as_it_is(text: str) -> None:
    assert shown(quoting.markdown(text)) == quoting.line(text)
    assert "\n" not in quoting.markdown(text)


@given(st.text(min_size=1) | st.sampled_from(NASTY))
def test_code_in_markdown_shows_as_it_is(text: str) -> None:
    found = quoting.code(text)
    assert "|" not in found and "\n" not in found
    if found.startswith("<code>"):
        assert html.unescape(found.removeprefix("<code>").removesuffix("</code>")) == quoting.line(text)
        assert not re.search(r"[`*_\[\]|!<>]", found[6:-7])
        return
    fence = re.match("`+", found)
    assert fence is not None and found.endswith(fence[0])
    inner = found[len(fence[0]) : -len(fence[0])]
    assert fence[0] not in re.findall("`+", inner)
    if inner.strip(" ") and inner[0] == inner[-1] == " ":
        inner = inner[1:-1]
    assert inner.strip(" ") == quoting.line(text).strip(" ")


@given(st.text() | st.sampled_from(NASTY))
def test_a_path_is_one_target_of_a_link(text: str) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return
    target = quoting.path(text)
    assert unquote(target) == text and re.fullmatch(r"[A-Za-z0-9._~%/-]*", target)


@pytest.mark.parametrize("text", ["https://ai.google.dev/gemma/terms", "http://a.org/x?y=1&z=2#part", "https://a.org"])
def test_an_address_is_a_link(text: str) -> None:
    assert quoting.url(text) == text


@pytest.mark.parametrize(
    "text", ["javascript:alert(1)", "https://a.org/)[x](y", "https://a.org/ b", "x<y", "https://a.org/\n"]
)
def test_what_is_no_address_is_text(text: str) -> None:
    assert quoting.url(text) == quoting.markdown(text)


@given(st.text() | st.sampled_from(NASTY))
def test_names_are_those_of_repositories(text: str) -> None:
    found = quoting.name(text)
    assert is_repository(f"a/{found}") or found[0] == "_" or found.endswith(".gguf")
    assert quoting.name(found) == found


def test_usual_names_stay() -> None:
    for usual in ("gemma-3-4b-it", "Model_1.5", "a"):
        assert quoting.name(usual) == usual == quoting.markdown(usual) == quoting.shell(usual)
        assert quoting.code(usual) == f"`{usual}`"
    assert quoting.name("my model (v2)!") == "my-model-v2"
    assert [quoting.name(text) for text in ("", "...", "模型", "\n")] == ["model"] * 4


@pytest.mark.parametrize("text", [f"./{text}.gguf" for text in NASTY])
def test_a_value_in_a_modelfile_is_the_text_or_refused(text: str) -> None:
    try:
        written = quoting.modelfile(text)
    except InputError as told:
        assert '"""' in text or any(ord(c) < 32 or not c.isprintable() for c in text), told
        return
    assert ollama_rules.commands(f"FROM {written}\nPARSER x\n") == [("from", text), ("parser", "x")]


def test_values_of_several_lines() -> None:
    assert quoting.modelfile("a\nb", several=True) == '"""a\nb"""'
    for bad in ('a"""b', 'a"'):
        with pytest.raises(InputError, match="Modelfile"):
            quoting.modelfile(bad, several=True)
