"""Everything a user can ask of a conversion."""

from __future__ import annotations

from dataclasses import dataclass, field

from gemmaq.planning.recipe import Recipe

TOKENS = 32768
CONTEXT = 512


@dataclass(frozen=True, slots=True)
class Matrix:
    """What a file says of the importance matrix that it was weighed with.

    Attributes:
        file: name of the matrix's file, without its folder.
        datasets: names of the texts that it was computed from.
        entries: number of its entries.
        chunks: number of sequences, 0 if unknown.
        size: bytes of the matrix's file beside the model; 0 if it is not kept.
    """

    file: str
    datasets: tuple[str, ...]
    entries: int
    chunks: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class Refinement:
    """How norm weights are tuned to codes that are chosen, and what came of it.

    Attributes:
        minutes: time for it, None if a number of steps was asked for.
        steps: steps of the learning rate's schedule: as asked for, or as the time allowed; 0 while that is not known.
        kept: steps after which the norms are those of the artifact: 0 for those of the source, None while not known.
        before: mean KL divergence from the source in nats, on text that was held out, with the norms of the source.
        after: the same with the norms of the artifact.
        seconds: how long it took; on no record, as no time is.
    """

    minutes: float | None
    steps: int = 0
    kept: int | None = None
    before: float = 0.0
    after: float = 0.0
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Settings of a calibration and the identity of its text: all that is needed to repeat it.

    Attributes:
        texts: names of the text files without folders; empty if an importance matrix was given.
        digest: SHA-256 of the texts, or of the importance matrix, in hex.
        tokens: maximum number of tokens of the texts to use.
        context: tokens in a sequence.
        damping: share of its mean that GPTQ adds to the Hessian's diagonal.
        order: order in which GPTQ takes columns, `importance` or `columns`.
        sweeps: passes of coordinate descent after GPTQ; None if that is left to the number of tokens.
        used: number of tokens that the texts had of these, or that the importance matrix saw; 0 if unknown.
        matrix: the importance matrix, given or computed; None if no method weighs with one.
        refine: how norm weights are tuned afterwards, None if they stay the source's.
    """

    texts: tuple[str, ...]
    digest: str
    tokens: int = TOKENS
    context: int = CONTEXT
    damping: float = 0.01
    order: str = "importance"
    sweeps: int | None = None
    used: int = 0
    matrix: Matrix | None = None
    refine: Refinement | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What types were chosen for, tensor by tensor, and what that is predicted to give.

    Attributes:
        target: the bytes that they may take, in words.
        sensitivities: SHA-256 of the sensitivities that they were chosen by, in hex.
        predicted: predicted mean KL divergence from the source, in nats.
        uniform: label of the best single type, or mixture with a name, within these bytes; empty if none fits.
        uniform_predicted: its predicted mean KL divergence; 0 if none fits.
    """

    target: str
    sensitivities: str
    predicted: float
    uniform: str = ""
    uniform_predicted: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """Everything a user can ask of a conversion.

    Attributes:
        recipe: types and methods.
        to: names of the containers, in order.
        portable: whether scales must fit every container exactly.
        scales: type of the scales in containers that store them in arrays of their own, `bf16` or `f16`.
        mmproj: type of the towers in containers that leave a choice; None leaves them out of all.
        dense_heads: whether dense heads of a model that embeds go into containers that have no folders for them.
        draft: whether the drafter of the source is written beside the model, in containers that have a place for it.
        shard_bytes: maximum size of a file, None for each container's default.
        calibration: settings of calibrated methods, None if there are none.
        budget: what the types were chosen for, None if the user chose them.
    """

    recipe: Recipe
    to: tuple[str, ...]
    portable: bool = False
    scales: str = "bf16"
    mmproj: str | None = "f16"
    dense_heads: bool = False
    draft: bool = False
    shard_bytes: int | None = None
    calibration: Calibration | None = None
    budget: Budget | None = None
