"""Have a runtime decode an artifact, and compare what it decodes with what gemmaq computes from the same weights.

The runtime continues a prompt greedily. gemmaq then computes, in f32, the logits of every token after all tokens before
it, those of the runtime included, so one choice of another token does not make all that follow differ. The two agree if
for every token

* its logit is at most a margin below the best one: rounding may swap tokens that are nearly as likely, and
* its log-probability is at most the same margin from that which the runtime reports, where it reports one.

The margin is a share of the standard deviation of gemmaq's logits over the vocabulary (`Engine.share`): 0.05 for
runtimes that compute in F32, 0.2 for llama.cpp, which rounds activations to 8 bits, 0.8 for BF16. The best of 262,144
logits lies four to seven standard deviations above their mean, so a token that has nothing to do with the weights falls
short by several.

Runtime and gemmaq read the same file. Whether its weights are the right ones, digests and the source say (`examine`,
`against`); here it is seen whether the runtime reads them, and all that goes with them, as they are meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, UsageError, VerificationError
from gemmaq.files.names import all_shards
from gemmaq.progress import Progress, ProgressCallback
from gemmaq.verify.engines import Installed, process

if TYPE_CHECKING:
    from gemmaq.encodings import F32
    from gemmaq.inference.device import Device
    from gemmaq.inference.tokenize import Encoder

PROMPT = "Name the four seasons of the year."
"""What chat models are asked."""
BEGINNING = "The four seasons of the year are"
"""What models without a chat template continue."""
MOST_TOKENS = 256
_ROOM = 64


@dataclass(frozen=True, slots=True)
class Wish:
    """What to decode.

    Attributes:
        prompt: Text to continue, or to answer in the chat template; None for gemmaq's own.
        tokens: Number of tokens to decode.
        threads: Threads of the runtime.
        timeout: Seconds that it has.
    """

    prompt: str | None = None
    tokens: int = 16
    threads: int = 1
    timeout: float = process.TIMEOUT


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a runtime ran a model.

    Attributes:
        runtime: Name of the runtime.
        version: Its version, None if it did not answer.
        prompt: What it continued, special tokens included.
        tokens: Token ids that it decoded.
        text: The same as text.
        shortfall: How far the worst of the tokens lies below the best one, in logits of gemmaq; None if none was
            decoded.
        drift: Largest difference between the runtime's and gemmaq's log-probability of a token, in nats; None if the
            runtime says none.
        margin: How large both may be.
        source_same: Number of tokens that the source would have chosen, too; None if it was not asked.
        problems: A sentence for each reason why the two do not agree.
        notes: What is no reason.
    """

    runtime: str
    version: str | None
    prompt: str
    tokens: tuple[int, ...] = ()
    text: str = ""
    shortfall: float | None = None
    drift: float | None = None
    margin: float | None = None
    source_same: int | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def agreed(self) -> bool:
        """Whether the runtime computes what the artifact holds."""
        return not self.problems


def check_model(model: Checkpoint) -> None:
    """Check that a model decodes tokens at all.

    Raises:
        InputError: It does not, or not alone.
    """
    if model.family.embeds:
        raise InputError(
            f"is an {model.family.title}: it makes vectors of texts and decodes no tokens, which --run compares",
            "leave out --run",
            path=model.location,
        )
    if model.family.drafts:
        raise InputError(
            f"is a {model.family.title}: it runs beside its target alone",
            "leave out --run, or run the target",
            path=model.location,
        )


def run(
    model: Checkpoint,
    runtime: Installed,
    wish: Wish,
    *,
    device: Device,
    progress: ProgressCallback,
    source: Checkpoint | None = None,
) -> Outcome:
    """Have a runtime decode a model, and compare.

    Args:
        model: The artifact.
        runtime: The runtime, which loads its format.
        wish: What to decode.
        device: Device on which gemmaq computes.
        progress: Called after every layer.
        source: Checkpoint that the artifact was made of, to count the tokens that it would have chosen, too; or None.

    Raises:
        InputError: The model decodes no tokens, or its weights cannot be read.
        UsageError: The prompt is longer than the model's context.
    """
    from gemmaq.inference.tokenize import load_encoder

    check_model(model)
    encoder = load_encoder(model)
    default = PROMPT if encoder.chats else BEGINNING
    text = encoder.prompt(default if wish.prompt is None else wish.prompt)
    ids = encoder.encode(text)
    needed, longest = len(ids) + wish.tokens, model.config.max_position_embeddings
    if needed > longest:
        raise UsageError(f"prompt and answer have {needed} tokens: the context of the model ends at {longest}")
    job = {"model": str(_path(model)), "ids": ids, "text": text, "tokens": wish.tokens, "threads": wish.threads}
    blank = Outcome(runtime.engine.name, None, text, notes=_notes(model))
    progress(Progress(f"decoding in {runtime.engine.name}", 0, 1, "steps"))
    try:
        answer = process.ask(runtime, {**job, "context": min(needed + _ROOM, longest)}, wish.timeout)
        if max(answer.tokens) >= model.embedding.rows or min(answer.tokens) < 0:
            raise VerificationError(f"{runtime.engine.name} decoded tokens that the vocabulary does not have")
    except VerificationError as error:
        return replace(blank, problems=(error.message,))
    outcome = replace(
        blank,
        version=answer.version,
        tokens=answer.tokens,
        text=encoder.backend.decode(list(answer.tokens), skip_special_tokens=False),
    )
    sequence = [*ids, *answer.tokens]
    logits = predictions(model, sequence, len(ids), device=device, progress=progress)
    outcome = _judged(outcome, logits, answer, encoder, runtime.engine.share)
    if source is not None and source.config.vocab_size == model.config.vocab_size:
        chosen = predictions(source, sequence, len(ids), device=device, progress=progress).argmax(-1)
        outcome = replace(outcome, source_same=int((chosen == answer.tokens).sum()))
    if list(answer.prompt) == ids:
        return outcome
    differs = f"{runtime.engine.name} makes other tokens of the prompt than the tokenizer of the file does"
    if wish.prompt is None:
        return replace(outcome, problems=(*outcome.problems, differs))
    return replace(outcome, notes=(*outcome.notes, f"{differs}; it was given the latter"))


def predictions(
    model: Checkpoint, sequence: list[int], first: int, *, device: Device, progress: ProgressCallback
) -> F32:
    """Logits of the tokens of a sequence from the one numbered `first` on, each after all before it.

    Returns:
        f32 [tokens, vocabulary].

    Raises:
        InputError: The weights cannot be read, or the activations are not finite.
    """
    import torch

    from gemmaq.inference.decoder import decoder

    with decoder(model, device) as opened:
        batches = opened.embed(np.asarray([sequence], np.int64))
        for index in range(opened.layers):
            progress(Progress(model.location, index, opened.layers, "layers"))
            opened.through(opened.layer(index), index, batches)
        states = opened.normed(batches[0].hidden[:, first - 1 : -1])[0]
        head = model.head or model.embedding
        slabs = [states @ torch.from_numpy(rows).to(states.device).T for _, rows in opened.read_slabs(head)]
        logits, cap = torch.cat(slabs, -1), model.config.final_logit_softcapping
        capped: F32 = (logits if cap is None else (logits / cap).tanh() * cap).cpu().numpy()
    progress(Progress(model.location, 1, 1, "layers"))
    return capped


def _judged(outcome: Outcome, logits: F32, answer: process.Answer, encoder: Encoder, share: float) -> Outcome:
    """The outcome with the distances between runtime and gemmaq, and what is wrong with them."""
    places, tokens = np.arange(len(answer.tokens)), np.array(answer.tokens)
    best, found = logits.max(-1), logits[places, tokens]
    total = best + np.log(np.exp((logits - best[:, None]).astype(np.float64)).sum(-1))
    said = np.array([np.nan if value is None else value for value in answer.logprobs])
    short, drift = best - found, np.nan_to_num(np.abs(found - total - said))
    margin = share * float(logits.std(-1).mean())
    problems = []
    name = f"{outcome.runtime} {answer.version}"
    if short[at := int(short.argmax())] > margin:
        problems.append(
            f"{name} does not compute what the file holds: token {at + 1}, {_shown(encoder, tokens[at])}, is "
            f"{short[at]:.2f} logits below {_shown(encoder, logits[at].argmax())}, the best by the file's weights; "
            f"{margin:.2f} are allowed"
        )
    elif drift[at := int(drift.argmax())] > margin:
        problems.append(
            f"{name} does not compute what the file holds: the log-probability of token {at + 1}, "
            f"{_shown(encoder, tokens[at])}, is {said[at]:.2f}, by the file's weights "
            f"{found[at] - total[at]:.2f}; they may differ by {margin:.2f}"
        )
    return replace(
        outcome,
        shortfall=float(short.max()),
        drift=None if np.isnan(said).all() else float(drift.max()),
        margin=margin,
        problems=(*outcome.problems, *problems),
    )


def _shown(encoder: Encoder, token: int) -> str:
    return repr(encoder.backend.decode([int(token)], skip_special_tokens=False))


def _notes(model: Checkpoint) -> tuple[str, ...]:
    notes = []
    if model.towers:
        notes.append("the text model was run, the towers for images and sound were not")
    if model.drafter is not None:
        notes.append("the model was run without the drafter beside it")
    return tuple(notes)


def _path(model: Checkpoint) -> Path:
    """What a runtime loads: the folder, or the first file of a GGUF model."""
    path = model.embedding.span.paths[0]
    if model.format != "gguf":
        return path.parent
    return path.with_name(all_shards(path.name)[0])
