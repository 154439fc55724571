"""Read documents from files and from the texts that ship, and cut tokens into sequences of equal length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.errors import InputError, unknown
from gemmaq.files import lfs
from gemmaq.files.malformed import parse_json
from gemmaq.files.whole import read_bytes, reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tokens = NDArray[np.int64]

KINDS = ("prose", "code", "chat", "long", "non-latin", "tools")
"""Kinds of text that ship: texts/SOURCES.md says where they are from, and under which licences."""
DEFAULT = KINDS
"""Kinds of text to calibrate on where nothing is asked for."""
_LARGEST_TEXT = 1 << 32
"""Bytes of a text of the user's own."""
_FOLDER = Path(__file__).with_name("texts")
_FIRST = "calibration.jsonl"
"""Conversations that calibration read before there were kinds: kept so that what was made with them can be verified."""
JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Document:
    """A text, or a conversation.

    Attributes:
        name: Name of its file, without the folder.
        text: The text; for a conversation, its messages as paragraphs.
        messages: Messages of a conversation, with the keys `role` (`user`, `assistant`, or `system` in front) and
            `content`; empty for a text.
        kind: Kind of a text that ships; empty for the user's own.
    """

    name: str
    text: str
    messages: tuple[dict[str, str], ...] = ()
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """Documents, and the files that they came from.

    Attributes:
        documents: Documents in the order of the files.
        names: Names of the files, without their folders.
        digest: SHA-256 over all files, in hex.
    """

    documents: tuple[Document, ...]
    names: tuple[str, ...]
    digest: str


def read(paths: Sequence[Path], kinds: Iterable[str] = (), *, held_out: bool = False) -> Text:
    """Read plain text files (one document each) and JSON Lines files (one document a line: `messages` or `text`).

    Args:
        paths: The user's files.
        kinds: Kinds of text that ship; they follow the user's files, in the order of `KINDS`.
        held_out: Take the texts that ship for scoring instead of those for calibration.

    Raises:
        UsageError: A kind is unknown.
        NotFoundError: A file is missing.
        InputError: A file cannot be read or is malformed, or no file holds text.
    """
    ours = [(path, kind) for kind in known(kinds) for path in _files(kind, held_out)]
    return _read([*((path, "") for path in paths), *ours])


def shipped(kinds: Iterable[str] = DEFAULT) -> Text:
    """The texts that ship for calibration; errors as in `read`."""
    return read((), kinds)


def held_out(kinds: Iterable[str] = KINDS) -> Text:
    """The texts that ship for scoring, none of which is a part of those for calibration; errors as in `read`."""
    return read((), kinds, held_out=True)


def known(kinds: Iterable[str]) -> tuple[str, ...]:
    """Check names of kinds, and put them in the order of `KINDS`, each once.

    Raises:
        UsageError: One is unknown.
    """
    asked = list(kinds)
    for kind in asked:
        if kind not in KINDS:
            raise unknown("kind of text", kind, KINDS)
    return tuple(kind for kind in KINDS if kind in asked)


def recorded(names: Sequence[str], paths: Sequence[Path] = ()) -> Text | None:
    """Read again the texts that a record names: the user's files first, then texts that ship.

    Args:
        names: Names of all files on record.
        paths: The user's files.

    Returns:
        The texts; None if a name is neither that of a file given nor of a text that ships.
    """
    ours = {path.name: (path, kind) for kind in KINDS for path in _files(kind, False)}
    ours[_FIRST] = (_FOLDER / _FIRST, "")
    rest = list(names[len(paths) :])
    if not all(name in ours for name in rest) or not (paths or rest):
        return None
    return _read([*((path, "") for path in paths), *(ours[name] for name in rest)])


def _files(kind: str, held_out: bool) -> tuple[Path, ...]:
    """Files of a kind. Their names go on record: a text that changes gets another number."""
    return (_FOLDER / f"{kind}-{'held-out-' if held_out else ''}1.jsonl",)


def _read(files: Iterable[tuple[Path, str]]) -> Text:
    """Read files, each with the kind of its documents."""
    documents: list[Document] = []
    names: list[str] = []
    digest = sha256()
    for path, kind in files:
        names.append(path.name)
        content = _content(path)
        digest.update(len(content).to_bytes(8, "little") + content)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"is not UTF-8 text: byte {error.start}", path=path) from error
        if path.suffix.lower() in JSON_LINES:
            documents += [replace(document, kind=kind) for document in _lines(path, text)]
        elif text.strip():
            documents.append(Document(path.name, text, kind=kind))
    if not documents:
        raise InputError(f"there is no text in {', '.join(names) or 'nothing'}")
    return Text(tuple(documents), tuple(names), digest.hexdigest())


def by_kind(text: Text) -> dict[str, tuple[Document, ...]]:
    """Documents of every kind, in the order of the text; those of the user's own under the empty name."""
    groups: dict[str, list[Document]] = {}
    for document in text.documents:
        groups.setdefault(document.kind, []).append(document)
    return {kind: tuple(group) for kind, group in groups.items()}


def _content(path: Path) -> bytes:
    with reading(path):
        is_pipe = path.is_fifo()  # <(command) of a shell, which has no size
        content = path.read_bytes() if is_pipe else read_bytes(path, _LARGEST_TEXT)
    lfs.refuse(content, path)
    return content


def _lines(path: Path, text: str) -> Iterable[Document]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
        except ValueError as error:
            raise InputError(f"is not JSON: {error}", path=f"{path}, line {number}") from error
        yield _document(path.name, entry if isinstance(entry, dict) else {"messages": entry}, f"{path}, line {number}")


def _document(name: str, entry: dict[str, Any], where: str) -> Document:
    if isinstance(entry.get("text"), str):
        document = Document(name, entry["text"])
    else:
        messages = _messages(entry.get("messages", entry.get("conversations")), where)
        document = Document(name, "\n\n".join(message["content"] for message in messages), messages)
    return document


def _messages(value: Any, where: str) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise InputError(
            "has neither text nor messages", '{"messages": [{"role": "user", "content": "..."}]}', path=where
        )
    messages = []
    for message in value:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):  # parts, as image processors take them: the text ones count
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(content, str) or message.get("role") not in ("system", "user", "assistant", "model"):
            raise InputError("a message needs a role (user, assistant, system) and a content", path=where)
        role = "assistant" if message["role"] == "model" else message["role"]
        messages.append({"role": role, "content": content})
    return tuple(messages)


def windows(tokens: Sequence[int] | Tokens, length: int, first: int | None, *, limit: int | None = None) -> Tokens:
    """Cut tokens into sequences that do not overlap.

    Args:
        tokens: Tokens of all documents, one document after the other.
        length: Tokens of a sequence.
        first: Token put in front of every sequence (it counts in the length), None for none.
        limit: Maximum number of sequences, spread evenly over the tokens; None for all.

    Returns:
        i64 [sequences, length]; an incomplete sequence at the end is dropped.
    """
    step = length - (first is not None)
    count = len(tokens) // step
    cut = np.asarray(tokens[: count * step], np.int64).reshape(count, step)
    if limit is not None and limit < count:
        cut = cut[np.linspace(0, count - 1, limit).round().astype(int)]
    if first is None:
        return cut
    return np.concatenate([np.full((len(cut), 1), first, np.int64), cut], axis=1)
