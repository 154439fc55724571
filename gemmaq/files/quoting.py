"""Puts names and texts of strangers into other languages: one function for each, and none is put there without it.

Names of files and folders may hold any character. Each function gives one line, so that no name begins a new one.
"""

from __future__ import annotations

import re
import shlex
from urllib.parse import quote

from gemmaq.errors import InputError

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that control a terminal or the direction of writing, end a line, or cannot be written."""
_MARKS = re.compile(r"([\\`*{}\[\]()<>#|!~&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_MARKS_IN_HTML = re.compile(r"[\\`*_{}\[\]()#|!~$]")
_URL = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~%/?&=+,;@:-]*)?(#[A-Za-z0-9._~%/-]*)?")
_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_MOST_NAME = 96


def name(text: str, other: str = "model") -> str:
    """A name as the Hub allows it for a repository: letters and digits of ASCII, `-`, `_` and `.`, at most 96 of them.

    Args:
        text: What to name so; other characters become `-`.
        other: The name of a text without such characters.
    """
    kept = _NAME.sub("-", text)[:_MOST_NAME]
    while "--" in kept or ".." in kept:
        kept = kept.replace("--", "-").replace("..", ".")
    return kept.strip("-.") or other


def shell(word: str) -> str:
    """A word of a command line of sh, bash or zsh: it means this text whatever it holds, and is no option."""
    if word.startswith("-"):
        word = f"./{word}"
    if not _UNSEEN.search(word):
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_UNSEEN.sub(lambda match: _escape(match[0]), escaped)}'"


def _escape(letter: str) -> str:
    kind = "surrogateescape" if "\udc80" <= letter <= "\udcff" else "surrogatepass"  # a byte of a file's name
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", kind))


def line(text: str) -> str:
    """A text on one line, without characters that cannot be seen."""
    return _UNSEEN.sub(" ", text)


def markdown(text: str) -> str:
    """A text within a line of Markdown, in tables, too: it shows as it is."""
    return _MARKS.sub(r"\\\1", line(text))


def code(text: str) -> str:
    """A text in Markdown, in tables, too, in the letters of programs."""
    text = line(text)
    if "|" in text or "\\" in text:  # tables read these in code, other paragraphs do not
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return f"<code>{_MARKS_IN_HTML.sub(lambda match: f'&#{ord(match[0])};', escaped)}</code>"
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if not text.strip() or text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{space}{text}{space}{fence}"


def path(target: str) -> str:
    """The path of a file as the target of a link in Markdown."""
    return quote(target.encode("utf-8", "surrogateescape"), safe="/")


def url(text: str) -> str:
    """A link to a page in Markdown where the text is an address of one, else the text."""
    return text if _URL.fullmatch(text) else markdown(text)


def modelfile(text: str, *, several: bool = False) -> str:
    """The value of an instruction in a Modelfile of Ollama.

    Its parser (parser.go, `unquote`) knows no escapes: a value ends with its line, or with the quotes it begins with.

    Args:
        text: The value.
        several: Whether it may have several lines.

    Raises:
        InputError: No Modelfile can have this value.
    """
    if '"""' in text or text.endswith('"') or (_UNSEEN.search(text) and not several):
        raise InputError(f"a Modelfile cannot hold {text!r:.80}", "rename the file")
    if several:
        return f'"""{text}"""'
    plain = text and text == text.strip() and not text.startswith('"')
    return text if plain else f'"{text}"'
