"""From text to tokens, by the tokenizer of a checkpoint of any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.tokenizer import Tokenizer, to_files
from gemmaq.errors import InputError
from gemmaq.inference.documents import Document, Text, windows

if TYPE_CHECKING:
    from gemmaq.inference.documents import Tokens

_QUARTER = 4
"""Of a passage that a chat model is shown, this part is the user's turn."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer that runs.

    Attributes:
        tokenizer: of the checkpoint.
        backend: a `tokenizers.Tokenizer`.
        bos: id that sequences begin with, None if the model has none.
    """

    tokenizer: Tokenizer
    backend: Any
    bos: int | None

    @property
    def chats(self) -> bool:
        """Whether the model is one to talk to."""
        return self.tokenizer.chat_template is not None

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, nothing added; special tokens in it are taken for what they say."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def conversation(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Tokens of a conversation in the model's chat template, BOS among them.

        Raises:
            InputError: the template refuses it.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        special: dict[str, Any] = {
            f"{role}_token": self.tokenizer.pieces[at] for role, at in self.tokenizer.special.items()
        }
        try:
            rendered: Any = render_jinja_template(
                [list(messages)], chat_template=self.tokenizer.chat_template, **special
            )
        except Exception as error:  # a template is a program
            raise InputError(f"the chat template refuses a conversation: {error}") from error
        return self.encode(rendered[0][0])


def encoder(checkpoint: Checkpoint) -> Encoder:
    """The tokenizer of a checkpoint, ready to run.

    Raises:
        InputError: it is missing or broken.
    """
    import tokenizers

    known = [path for path in checkpoint.tokenizer_files.verbatim if path.name == "tokenizer.json"]
    vocabulary, context = checkpoint.family.vocabulary, checkpoint.config.max_position_embeddings
    files = {} if known else to_files(checkpoint.tokenizer, vocabulary, context)
    content = known[0].read_bytes() if known else files["tokenizer.json"]
    try:
        backend = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as error:  # the library has no class of its own for it
        raise InputError(f"the tokenizer of {checkpoint.location} is unusable: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    return Encoder(checkpoint.tokenizer, backend, checkpoint.tokenizer.special.get("bos"))


def plain(text: Text, using: Encoder) -> Tokens:
    """Tokens of all documents as they stand, conversations too, one after the other: i64 [tokens]."""
    found = [using.encode(document.text) for document in text.documents]
    return np.concatenate([np.asarray(ids, np.int64) for ids in found])


def calibration(text: Text, using: Encoder, length: int, limit: int) -> Tokens:
    """Sequences as the model meets them in use: for a chat model in its template, else documents as they stand.

    A plain text is shown to a chat model as exchanges: the first quarter of every passage as the user's turn, the
    rest as the answer.

    Args:
        text: documents.
        using: the model's tokenizer.
        length: tokens a sequence.
        limit: sequences at most.

    Returns:
        i64 [sequences, length].

    Raises:
        InputError: there is not enough text for one sequence.
    """
    if using.chats:
        turns = [_exchanges(document, using, length) for document in text.documents]
        ids = [token for turn in turns for conversation in turn for token in conversation]
        found = windows(ids, length, None, limit)
    else:
        found = windows(plain(text, using), length, using.bos, limit)
    if not len(found):
        raise InputError(
            f"{', '.join(text.names)}: not even {length} tokens of text", "give more text, or a smaller --context"
        )
    return found


def _exchanges(document: Document, using: Encoder, length: int) -> list[list[int]]:
    """The conversations a document is shown as."""
    if document.messages:
        return [using.conversation(document.messages)]
    ids = using.encode(document.text)
    passage = max(length - 16, 8)  # with the turns' marks about a sequence
    found = []
    for start in range(0, len(ids), passage):
        part = ids[start : start + passage]
        asked, said = part[: len(part) // _QUARTER], part[len(part) // _QUARTER :]
        messages = [
            {"role": "user", "content": using.backend.decode(asked, skip_special_tokens=False)},
            {"role": "assistant", "content": using.backend.decode(said, skip_special_tokens=False)},
        ]
        found.append(using.conversation(messages))
    return found
