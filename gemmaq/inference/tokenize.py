"""Tokenize text with the tokenizer of a checkpoint, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.tokenizer import Tokenizer
from gemmaq.checkpoint.tokenizer_files import to_files
from gemmaq.errors import InputError
from gemmaq.files.whole import read_bytes
from gemmaq.inference import chat
from gemmaq.inference.documents import Document, Text, by_kind, windows

if TYPE_CHECKING:
    from gemmaq.inference.documents import Tokens

_QUARTER = 4
"""The first quarter of a passage becomes the user's turn of a made-up exchange."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer that is ready to encode.

    Attributes:
        tokenizer: Tokenizer of the checkpoint.
        backend: The same as a `tokenizers.Tokenizer`.
        bos: Id of the token that begins a sequence, None if the model has none.
    """

    tokenizer: Tokenizer
    backend: Any
    bos: int | None

    @property
    def chats(self) -> bool:
        """Whether the model has a chat template."""
        return self.tokenizer.chat_template is not None

    def encode(self, text: str) -> list[int]:
        """Tokens of a text with no token added; special tokens in the text are recognized."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def prompt(self, text: str) -> str:
        """What a model continues: the text as a user's turn in the chat template, or after BOS where there is none.

        Raises:
            InputError: The template refuses it.
        """
        if self.chats:
            return self._rendered([{"role": "user", "content": text}], answer=True)
        return text if self.bos is None else self.tokenizer.pieces[self.bos] + text

    def conversation(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Tokens of a conversation in the model's chat template, BOS included.

        Raises:
            InputError: The template refuses it.
        """
        return self.encode(self._rendered(messages))

    def _rendered(self, messages: Sequence[dict[str, str]], *, answer: bool = False) -> str:
        """A conversation in the chat template; with `answer`, the model's turn has begun."""
        template = self.tokenizer.chat_template
        assert template is not None
        special = {f"{role}_token": self.tokenizer.pieces[at] for role, at in self.tokenizer.special.items()}
        return chat.render(template, messages, special, answer=answer)


def load_encoder(checkpoint: Checkpoint) -> Encoder:
    """Load the tokenizer of a checkpoint for encoding.

    Raises:
        InputError: It is missing or broken.
    """
    import tokenizers

    ready = checkpoint.tokenizer_files.verbatim.get("tokenizer.json")
    vocabulary, context = checkpoint.family.vocabulary, checkpoint.config.max_position_embeddings
    files = {} if ready else to_files(checkpoint.tokenizer, vocabulary, context)
    content = read_bytes(ready) if ready else files["tokenizer.json"]
    try:
        backend = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as error:  # the library has no class of its own for it
        raise InputError(f"the tokenizer of {checkpoint.location} is unusable: {error}") from error
    # Words are cached for each thread, and stay when the tokenizer goes. To Gemma a whole text is one word, so that the
    # cache is of no use.
    if resize := getattr(backend.model, "_resize_cache", None):
        resize(0)
    backend.no_truncation()
    backend.no_padding()
    return Encoder(checkpoint.tokenizer, backend, checkpoint.tokenizer.special.get("bos"))


def plain(text: Text, encoder: Encoder, *, in_template: bool = False) -> Tokens:
    """Tokens of the text of all documents, one after the other: i64 [tokens].

    Args:
        text: Documents.
        encoder: Tokenizer of the model.
        in_template: Put conversations into the chat template, if the model has one.
    """
    return np.concatenate(
        [
            np.asarray(
                encoder.conversation(document.messages)
                if in_template and document.messages and encoder.chats
                else encoder.encode(document.text),
                np.int64,
            )
            for document in text.documents
        ]
    )


def calibration(text: Text, encoder: Encoder, *, length: int, limit: int) -> Tokens:
    """Sequences like those of the model's use: in the chat template if it has one, else plain text.

    A plain text becomes exchanges for a chat model: the first quarter of every passage is the user's turn, the rest the
    answer. Of several kinds of text each gives as many sequences, as far as it has them; the user's own text as many as
    all others together. Kinds take turns.

    Args:
        text: Documents.
        encoder: Tokenizer of the model.
        length: Tokens of a sequence.
        limit: Maximum number of sequences.

    Returns:
        i64 [sequences, length].

    Raises:
        InputError: The text is too short for one sequence.
    """
    groups = by_kind(text)
    if len(groups) > 1:
        return _spread(text, groups, encoder, length=length, limit=limit)
    if encoder.chats:
        turns = [_exchanges(document, encoder, length) for document in text.documents]
        ids = [token for turn in turns for conversation in turn for token in conversation]
        sequences = windows(ids, length, None, limit=limit)
    else:
        sequences = windows(plain(text, encoder), length, encoder.bos, limit=limit)
    if not len(sequences):
        names = ", ".join(text.names)
        raise InputError(f"{names}: fewer than {length} tokens of text", "give more text, or use shorter sequences")
    return sequences


def _spread(
    text: Text, groups: Mapping[str, tuple[Document, ...]], encoder: Encoder, *, length: int, limit: int
) -> Tokens:
    """Sequences of several kinds of text; arguments and errors as in `calibration`."""
    found: dict[str, Tokens] = {}
    for kind, documents in groups.items():
        try:
            found[kind] = calibration(replace(text, documents=documents), encoder, length=length, limit=1 << 60)
        except chat.Exhausted:
            raise
        except InputError:  # of one kind there may be too little
            continue
    if not found:
        raise InputError(
            f"{', '.join(text.names)}: fewer than {length} tokens of each", "give more text, or use shorter sequences"
        )
    shares = _shares({kind: len(of_kind) for kind, of_kind in found.items()}, limit)
    placed = []
    for order, (kind, of_kind) in enumerate(found.items()):
        count = shares[kind]
        chosen = np.linspace(0, len(of_kind) - 1, count).round().astype(int)
        placed += [((at + 0.5) / count, order, of_kind[index]) for at, index in enumerate(chosen)]
    return np.stack([sequence for *_, sequence in sorted(placed, key=lambda entry: entry[:2])])


def _shares(available: Mapping[str, int], limit: int) -> dict[str, int]:
    """How many sequences each kind gives: alike, the user's own (the empty name) as many as all others together."""
    shares = dict.fromkeys(available, 0)
    for _ in range(min(limit, sum(available.values()))):
        left = [kind for kind in available if shares[kind] < available[kind]]
        others = sum(count for kind, count in shares.items() if kind)
        shares[min(left, key=lambda kind: shares[kind] if kind else (shares[""] - others) * limit)] += 1
    return shares


def _exchanges(document: Document, encoder: Encoder, length: int) -> list[list[int]]:
    """Tokens of the conversations that a document becomes."""
    if document.messages:
        return [encoder.conversation(document.messages)]
    ids = encoder.encode(document.text)
    passage = max(length - 16, 8)  # about a sequence, together with the tokens around turns
    conversations = []
    for start in range(0, len(ids), passage):
        part = ids[start : start + passage]
        question, answer = part[: len(part) // _QUARTER], part[len(part) // _QUARTER :]
        messages = [
            {"role": "user", "content": encoder.backend.decode(question, skip_special_tokens=False)},
            {"role": "assistant", "content": encoder.backend.decode(answer, skip_special_tokens=False)},
        ]
        conversations.append(encoder.conversation(messages))
    return conversations
