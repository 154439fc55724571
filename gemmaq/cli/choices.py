"""What a user chose by hand: containers, types, and by `--tensor-type` and `--like` those of single tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemmaq.cli.options import listed_values
from gemmaq.errors import InputError, UsageError, unknown
from gemmaq.methods import AUTO

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint, Tensor
    from gemmaq.convert.hashing import SourceDigests
    from gemmaq.planning.recipe import Recipe, RecipeFile
    from gemmaq.planning.request import Request
    from gemmaq.planning.rules import Rule

TensorTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--tensor-type",
        metavar="REGEX=TYPE",
        help="Type of the tensors whose names in GGUF files contain REGEX, whatever the container: attn_v=q8_0, "
        "'blk\\.[0-3]\\.ffn_down=q6_k'. Can be repeated; the first one that matches counts, before all other choices.",
    ),
]
Like = Annotated[
    str | None,
    typer.Option(
        "--like",
        metavar="FILE.gguf",
        help="Give every tensor the type that it has in another quantized model, a file or a repository, in place of "
        "--quant.",
    ),
]
SourceDigest = Annotated[
    bool,
    typer.Option(
        "--source-digest/--no-source-digest",
        help="Note the SHA-256 of the source's files in gemmaq.json. Without it, only those that a download noted, "
        "and gemmaq verify cannot tell whether a source is the same.",
    ),
]
DigestCache = Annotated[
    bool,
    typer.Option(
        "--digest-cache/--no-digest-cache",
        envvar="GEMMAQ_DIGEST_CACHE",
        help="Take the SHA-256 of large source files from an earlier run if they did not change since, and keep it for "
        "the next one, in $GEMMAQ_CACHE.",
    ),
]
_QUANT = "GEMMAQ_QUANT"


@dataclass(frozen=True, slots=True)
class Taken:
    """Types to be taken over.

    Attributes:
        model: the other model, its headers.
        name: its name in messages, without folders.
        quant: name of the type that its file says it has, for tensors that it lacks.
    """

    model: Checkpoint
    name: str
    quant: str


def recipes(
    quant: list[str] | None, method: str | None, types: Mapping[str, str | None], file: RecipeFile | None
) -> list[Recipe]:
    """A recipe for each type: flags before the recipe file before the defaults; `types` are those of single tensors."""
    from gemmaq.planning.recipe import of

    return [
        of(
            name,
            method=method or (file.method if file else None) or AUTO,
            rules=file.rules if file else (),
            **{name: kind or getattr(file, name, None) for name, kind in types.items()},
        )
        for name in listed_values("--quant", quant) or (file.quant if file else None) or ("q4_0",)
    ]


def digests(source_digest: bool, digest_cache: bool) -> SourceDigests:
    """How the digests of the source's files are found."""
    from gemmaq.convert.hashing import SourceDigests

    if not source_digest:
        return SourceDigests.NONE
    return SourceDigests.REMEMBERED if digest_cache else SourceDigests.READ


def mmproj(text: str) -> str | None:
    """Type of the towers, None to leave them out."""
    from gemmaq.planning.plan import MMPROJ

    if text.lower() not in (*MMPROJ, "none"):
        raise unknown("type for --mmproj", text, (*MMPROJ, "none"))
    return None if text.lower() == "none" else text.lower()


def containers(to: list[str] | None, file: RecipeFile | None) -> tuple[str, ...]:
    """Names of the containers in order, each once: flags before the recipe file before the default."""
    from gemmaq.planning.containers import check

    names = [check(name) for name in listed_values("--to", to) or (file.to if file else ()) or ("gguf",)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--to has {twice} twice", "give every container once")
    return tuple(names)


def rules(values: Sequence[str] | None) -> tuple[Rule, ...]:
    """The rules of `--tensor-type`.

    Raises:
        UsageError: one is no regular expression with a type.
    """
    from gemmaq.planning.recipe import single
    from gemmaq.planning.rules import regex

    made: list[Rule] = []
    for value in values or ():
        pattern, _, kind = value.rpartition("=")
        if not pattern or not kind:
            raise UsageError(f"--tensor-type {value!r} is not REGEX=TYPE", "attn_v=q8_0, for example")
        if any(rule.pattern == pattern for rule in made):
            raise UsageError(f"--tensor-type has {pattern!r} twice", "give every pattern once")
        made.append(regex(pattern, single(kind)))
    return tuple(made)


def take(source: str | None, quant: Sequence[str] | None) -> Taken | None:
    """Open the model of `--like`; None without one.

    Raises:
        UsageError: `--quant` is given, too.
        NotFoundError, InputError: there is no such model, or it cannot be read.
    """
    if source is None:
        return None
    if quant and list(quant) != os.environ.get(_QUANT, "").split():
        raise UsageError(f"--like takes the types of {source}, --quant names another", "give one of them")
    from gemmaq.sources.companions import Need, Wish
    from gemmaq.sources.open import open_source

    model = open_source(source, Wish(None, Need.NONE, Need.NONE))
    return Taken(model, source.rstrip("/").rpartition("/")[2], _type_of(model))


def _type_of(model: Checkpoint) -> str:
    """Name of the type that a file says it has, or that of most of its bytes."""
    from gemmaq.encodings import ENCODINGS
    from gemmaq.files import gguf_reader
    from gemmaq.planning.mixtures import MIXTURES

    keys = gguf_reader.parse(model.embedding.span).keys if model.format == "gguf" else {}
    numbers = {encoding.file_type: encoding.name for encoding in ENCODINGS.values()}
    numbers |= {mixture.file_type: mixture.name for mixture in MIXTURES.values()}
    return numbers.get(keys.get("general.file_type", -1), model.body.name)


def applied(recipes: Sequence[Recipe], tensor_types: Sequence[str] | None, taken: Taken | None) -> list[Recipe]:
    """Recipes with the choices by hand before all others.

    Raises:
        UsageError: a value of `--tensor-type` is no regular expression with a type.
        InputError: the model of `--like` has a type that gemmaq does not write.
    """
    from gemmaq.encodings import ENCODINGS

    by_hand, like = rules(tensor_types), {}
    for tensor in _free(taken.model) if taken else ():
        if tensor.encoding.name not in ENCODINGS:
            raise InputError(
                f"is {tensor.encoding.label}, which gemmaq does not write", path=tensor.span, tensor=tensor.spelled
            )
        like[tensor.name] = tensor.encoding
    return [replace(recipe, rules=(*by_hand, *recipe.rules), like=like) for recipe in recipes]


def compared(taken: Taken | None, checkpoint: Checkpoint) -> Checkpoint:
    """The source with notes on how it differs from the model of `--like`.

    Raises:
        InputError: that is another kind of model, or a row has another number of weights there.
    """
    if taken is None:
        return checkpoint
    theirs, ours = ({tensor.name: tensor for tensor in _free(model)} for model in (taken.model, checkpoint))
    if taken.model.family is not checkpoint.family:
        raise InputError(
            f"is {taken.model.family.title}, and {checkpoint.name} is {checkpoint.family.title}: not --like it",
            path=taken.model.location,
        )
    for name, tensor in ours.items():
        if name in theirs and theirs[name].columns != tensor.columns:
            raise InputError(
                f"has rows of {theirs[name].columns} weights, those of {checkpoint.name} have {tensor.columns}",
                "take a file of the same size for --like",
                path=taken.model.location,
                tensor=name,
            )
    notes = [f"types are those of {taken.name}"]
    if lacking := [name for name in ours if name not in theirs]:
        notes.append(f"{taken.name} lacks {_some(lacking)}: as in {taken.quant.upper()}")
    if others := [name for name in theirs if name not in ours]:
        notes.append(f"{taken.name} has {_some(others)} besides")
    if longer := [name for name in ours if name in theirs and theirs[name].shape != ours[name].shape]:
        notes.append(f"{taken.name} has another number of rows in {_some(longer)}")
    return replace(checkpoint, notes=(*checkpoint.notes, *notes))


def _free(model: Checkpoint) -> list[Tensor]:
    """Tensors whose type can be chosen."""
    from gemmaq.planning.rules import is_free

    heads = model.embedder.heads if model.embedder is not None else {}
    tensors = (*model.tensors.values(), *model.idle.values(), *heads.values())
    return [tensor for tensor in tensors if is_free(tensor.place.role)]


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({names[0]}{', ...' if len(names) > 1 else ''})"


def default_folder(checkpoint: Checkpoint, request: Request, recipes: Sequence[Recipe]) -> Path:
    """The folder to create where none is named: after the model, and the type and container if there is only one."""
    from gemmaq.models.identity import identify

    kind = [recipes[0].label] if len(recipes) == 1 else []
    containers = request.to if len(request.to) == 1 else ()
    return Path("-".join([identify(checkpoint.name).stem, *([*kind, *containers] or ["quantized"])]))
