"""Texts as a model sees them: documents from files, their tokens, and sequences of equal length."""

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
"""Conversations of our own, for whoever has no text at hand; under the licence of this project."""
JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Document:
    """A text, or a conversation.

    Attributes:
        name: of the file, without its folder.
        text: all of it; of a conversation what was said, a paragraph each.
        messages: of a conversation: `role` (`user` or `assistant`, perhaps `system` first) and `content`; else empty.
    """

    name: str
    text: str
    messages: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """Documents and where they came from.

    Attributes:
        documents: in the order of the files.
        names: of the files, without their folders.
        digest: SHA-256 over all files, in hex.
    """

    documents: tuple[Document, ...]
    names: tuple[str, ...]
    digest: str


def read(paths: Sequence[Path]) -> Text:
    """Read plain text (a document a file) and JSON lines (a document a line: `messages`, or `text`).

    Raises:
        NotFoundError: a file is missing.
        InputError: a file cannot be read, is not UTF-8 or not what its name says, or there is no text in any.
    """
    documents: list[Document] = []
    digest = sha256()
    for path in paths:
        content = _content(path)
        digest.update(len(content).to_bytes(8, "little") + content)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text: byte {error.start}") from error
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
        raise NotFoundError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _lines(path: Path, text: str) -> Iterable[Document]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:  # of numbers with thousands of digits no JSONDecodeError
            raise InputError(f"{path}, line {number} is not JSON: {error}") from error
        yield _document(path.name, entry if isinstance(entry, dict) else {"messages": entry}, f"{path}, line {number}")


def _document(name: str, entry: dict[str, Any], where: str) -> Document:
    if isinstance(entry.get("text"), str):
        found = Document(name, entry["text"])
    else:
        messages = _messages(entry.get("messages", entry.get("conversations")), where)
        found = Document(name, "\n\n".join(message["content"] for message in messages), messages)
    try:
        found.text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where} holds half a character: \\u{ord(found.text[error.start]):04x}") from error
    return found


def _messages(value: Any, where: str) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise InputError(f"{where} has neither text nor messages", '{"messages": [{"role": "user", "content": "..."}]}')
    found = []
    for message in value:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):  # as processors have it: parts, of which the text is taken
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(content, str) or message.get("role") not in ("system", "user", "assistant", "model"):
            raise InputError(f"{where}: a message needs a role (user, assistant, system) and a content")
        role = "assistant" if message["role"] == "model" else message["role"]
        found.append({"role": role, "content": content})
    return tuple(found)


def windows(tokens: Sequence[int] | Tokens, length: int, first: int | None, limit: int | None = None) -> Tokens:
    """Cut tokens in sequences that do not overlap.

    Args:
        tokens: of all documents, one after the other.
        length: of a sequence.
        first: token every sequence begins with, in addition to its share of the tokens; None for none.
        limit: sequences at most, spread evenly over the tokens; None for all.

    Returns:
        i64 [sequences, length]; what is left at the end is dropped.
    """
    step = length - (first is not None)
    count = len(tokens) // step
    cut = np.asarray(tokens[: count * step], np.int64).reshape(count, step)
    if limit is not None and limit < count:
        cut = cut[np.linspace(0, count - 1, limit).round().astype(int)]
    if first is None:
        return cut
    return np.concatenate([np.full((len(cut), 1), first, np.int64), cut], axis=1)
