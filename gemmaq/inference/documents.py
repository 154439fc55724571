"""Read documents from files, and cut tokens into sequences of equal length."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tokens = NDArray[np.int64]

DEFAULT = Path(__file__).with_name("calibration.jsonl")
"""Conversations that gemmaq ships for calibration, under the license of this project."""
JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Document:
    """A text, or a conversation.

    Attributes:
        name: Name of its file, without the folder.
        text: The text; for a conversation, its messages as paragraphs.
        messages: Messages of a conversation, with the keys `role` (`user`, `assistant`, or `system` in front) and
            `content`; empty for a text.
    """

    name: str
    text: str
    messages: tuple[dict[str, str], ...] = ()


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


def read(paths: Sequence[Path]) -> Text:
    """Read plain text files (one document each) and JSON Lines files (one document a line: `messages` or `text`).

    Raises:
        NotFoundError: A file is missing.
        InputError: A file cannot be read or is malformed, or no file holds text.
    """
    documents: list[Document] = []
    digest = sha256()
    for path in paths:
        content = _content(path)
        digest.update(len(content).to_bytes(8, "little") + content)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"is not UTF-8 text: byte {error.start}", path=path) from error
        if path.suffix.lower() in JSON_LINES:
            documents += _lines(path, text)
        elif text.strip():
            documents.append(Document(path.name, text))
    if not documents:
        raise InputError(f"there is no text in {', '.join(map(str, paths)) or 'nothing'}")
    return Text(tuple(documents), tuple(path.name for path in paths), digest.hexdigest())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError("does not exist", path=path) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error


def _lines(path: Path, text: str) -> Iterable[Document]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:  # of numbers with thousands of digits no JSONDecodeError
            raise InputError(f"is not JSON: {error}", path=f"{path}, line {number}") from error
        yield _document(path.name, entry if isinstance(entry, dict) else {"messages": entry}, f"{path}, line {number}")


def _document(name: str, entry: dict[str, Any], where: str) -> Document:
    if isinstance(entry.get("text"), str):
        document = Document(name, entry["text"])
    else:
        messages = _messages(entry.get("messages", entry.get("conversations")), where)
        document = Document(name, "\n\n".join(message["content"] for message in messages), messages)
    try:
        document.text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"holds half a character: \\u{ord(document.text[error.start]):04x}", path=where) from error
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
