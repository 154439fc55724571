"""A base model and an adapter make one checkpoint, whose weights are merged while they are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from gemmaq.checkpoint import Adapter, Checkpoint, Tensor
from gemmaq.checkpoint.assemble import same
from gemmaq.checkpoint.lora import weights as arrays
from gemmaq.checkpoint.lora.config import LoraConfig
from gemmaq.checkpoint.lora.merged import LowRank, LowRankStack, LowRankTable, Merged, Replaced, Step
from gemmaq.checkpoint.lora.weights import AdapterWeights
from gemmaq.checkpoint.lora.work import OTHER_BASE, Work
from gemmaq.errors import InputError


def merged(base: Checkpoint, config: LoraConfig, weights: AdapterWeights) -> Checkpoint:
    """A base model with an adapter: its name and files are the base's, its weights those of both.

    Args:
        base: The base model.
        config: The adapter's config.
        weights: The adapter's tensors.

    Raises:
        InputError: The adapter belongs to another model, or holds what cannot be merged.
    """
    work = Work(base, config, weights, {**base.tensors, **base.towers})
    if base.untied and work.is_tied:
        embedding = base.embedding
        work.tensors[work.head] = replace(embedding, name=work.head, place=base.family.names.place(work.head))
    saved = _whole(work)
    for module, parts in sorted(weights.parts.items(), key=lambda item: work.is_head(item[0])):
        _add(work, module, parts)  # PEFT merges the embedding before the head, too
    changed = _carried_out(work, saved)
    _check_left(work, changed)
    if work.passed:
        more = f" and {len(work.passed) - 1} more" if work.passed[1:] else ""
        work.notes.append(f"the adapter also changes {work.passed[0]}{more}, which no runtime reads")
    tensors = {name: work.tensors[name] for name in (*base.tensors, work.head) if name in work.tensors}
    config_ = base.config
    if tensors[work.table].rows != base.embedding.rows:
        config_ = base.family.configs.with_vocabulary(config_, tensors[work.table].rows)
        work.notes.append(f"the adapter's vocabulary has {tensors[work.table].rows} tokens, not {base.embedding.rows}")
    ranks = [tensor.shape[0] for parts in weights.parts.values() for name, tensor in parts.items() if name == arrays.A]
    return replace(
        base,
        config=config_,
        tensors=tensors,
        towers={name: work.tensors[name] for name in base.towers},
        notes=(*base.notes, *work.notes),
        adapter=Adapter(
            "DoRA" if config.magnitudes else "LoRA",
            max(ranks, default=0),
            len(changed),
            weights.tensors,
            config.path,
            base,
        ),
    )


def as_stored(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint with its tensors as files hold them, before an adapter is merged: for sizes, not for weights."""
    if checkpoint.adapter is None:
        return checkpoint
    tensors, towers = (
        {name: tensor.decoder.base if isinstance(tensor.decoder, Merged) else tensor for name, tensor in every.items()}
        for every in (checkpoint.tensors, checkpoint.towers)
    )
    return replace(checkpoint, tensors=tensors, towers=towers)


def _whole(work: Work) -> dict[str, Tensor]:
    """Put the adapter's own tensors in place of the base's, but return those of modules that are stored whole."""
    saved: dict[str, Tensor] = {}
    names = work.base.family.names
    tied = work.is_tied
    every = [(name, tensor, False) for name, tensor in work.weights.bases.items()]
    for name, tensor in work.weights.loose.items():
        every.append((name, tensor, work.config.saves(name.rpartition(".")[0])))
    every += [(name, tensor, True) for name, tensor in work.weights.saved.items()]
    for name, tensor, is_saved in every:
        canonical = work.found(name)
        if canonical is None and work.is_unused(name):
            work.passed.append(name)
            continue
        is_table = canonical is not None and work.tensors[canonical].place.role.is_table
        is_bias = name.endswith(".bias") and work.config.biases != "none"
        if canonical is None or not (is_saved or is_table or is_bias):
            work.drop([tensor], untargeted=canonical is not None)
            continue
        made = replace(tensor, name=canonical, place=work.tensors[canonical].place)
        if is_saved:
            own = names.canonical(name) == work.head
            saved[work.head if own else canonical] = replace(made, name=work.head) if own else made
        elif not (tied and names.canonical(name) == work.head and work.tensors[canonical].span == tensor.span):
            work.tensors[canonical] = _checked(work, tensor, made, grows=is_table)
    return saved


def _checked(work: Work, tensor: Tensor, made: Tensor, *, grows: bool) -> Tensor:
    """A tensor of the adapter that fits the one it stands for; tables may have another number of rows."""
    old = work.tensors[made.name]
    if tensor.shape != old.shape and not (grows and tensor.shape[1:] == old.shape[1:]):
        raise work.misfit(tensor, old)
    if old.arrangement is not None:
        raise InputError(f"is stored in another order in {work.base.location}", OTHER_BASE, tensor=tensor.name)
    return made


def _add(work: Work, module: str, parts: Mapping[str, Tensor]) -> None:
    """Add the steps of one module."""
    rest, config = dict(parts), work.config
    tokens = rest.pop(arrays.TOKENS, None)
    if tokens is not None:
        _add_tokens(work, module, tokens)
    if not rest:
        return
    is_table = arrays.TABLE_A in rest or arrays.TABLE_B in rest
    names = (arrays.TABLE_A, arrays.TABLE_B) if is_table else (arrays.A, arrays.B)
    missing = [name for name in names if name not in rest]
    if missing:
        raise InputError(f"lacks {missing[0]} of {module}", "download the adapter again", path=work.weights.span)
    if work.is_head(module) and work.is_tied and config.ties:
        work.notes.append(
            f"the adapter's {work.table} is tied to the head: its change is added once, as in training; PEFT's "
            "merge_and_unload adds it twice"
        )
        return
    a, b = (rest.pop(name) for name in names)
    magnitude = rest.pop(arrays.MAGNITUDE, None)
    work.drop(rest.values())
    if (magnitude is None) == config.magnitudes:
        what = "lacks" if magnitude is None else "has"
        raise InputError(
            f"{what} the norms ({arrays.MAGNITUDE}) of {module}, but its config says "
            f"use_dora {str(config.magnitudes).lower()}",
            "take the config that was saved with it",
            path=work.weights.span,
        )
    if config.parameters and (name := _parameter(work, module, a, b)) is not None:
        stack = work.tensors[name]
        step: Step = LowRank(a, b, config.scaling(module))
        if len(stack.shape) == 3:
            step = LowRankStack(a, b, config.scaling(module), stack.shape[0])
        work.steps.setdefault(name, []).append(step)
        return
    canonical = work.found(f"{module}.weight")
    if canonical is None and work.is_unused(f"{module}.weight"):
        work.passed.append(module)
    elif canonical is None or not config.changes(module):
        work.drop([a, b], untargeted=canonical is not None)
    else:
        _add_matrix(work, module, canonical, (a, b, magnitude), is_table=is_table)


def _add_matrix(
    work: Work, module: str, name: str, found: tuple[Tensor, Tensor, Tensor | None], *, is_table: bool
) -> None:
    """Add the step of a matrix of low rank, if it fits."""
    a, b, magnitude = found
    old, rank = work.tensors[name], work.config.rank_of(module)
    outer = (old.columns, old.rows) if is_table else (old.rows, old.columns)
    if len(old.shape) != 2 or old.arrangement is not None:
        raise InputError(f"changes {old.name}, which is not stored as a matrix", OTHER_BASE, path=a.span)
    if a.shape[0] != rank or b.shape[-1] != rank:
        raise InputError(
            f"has the shape {list((a if a.shape[0] != rank else b).shape)}, its config says rank {rank}",
            "take the config that was saved with it",
            path=a.span,
            tensor=(a if a.shape[0] != rank else b).name,
        )
    if a.shape != (rank, outer[1]) or b.shape != (outer[0], rank):
        raise work.misfit(a if a.shape != (rank, outer[1]) else b, old)
    if magnitude is not None and magnitude.elements != outer[0]:
        raise work.misfit(magnitude, old)
    kind = LowRankTable if is_table else LowRank
    work.steps.setdefault(name, []).append(kind(a, b, work.config.scaling(module), magnitude))


def _parameter(work: Work, module: str, a: Tensor, b: Tensor) -> str | None:
    """Canonical name of the parameter that two matrices change, by its name in the config and by their shapes."""
    holder = module
    while holder.endswith(".base_layer"):
        holder = holder.removesuffix(".base_layer")
    rank, fitting = work.config.rank_of(module), []
    for parameter in work.config.parameters:
        canonical = work.found(f"{holder}.{parameter.rpartition('.')[2]}")
        if canonical is None or not f"{holder}.{parameter.rpartition('.')[2]}".endswith(parameter):
            continue
        shape = work.tensors[canonical].shape
        count = shape[0] if len(shape) == 3 else 1
        if (a.shape, b.shape) == ((rank * count, shape[-1]), (shape[-2], rank * count)):
            fitting.append(canonical)
    if len(fitting) > 1:
        raise InputError(f"changes {fitting[0]} or {fitting[1]}: its shapes leave that open", path=a.span)
    return fitting[0] if fitting else None


def _add_tokens(work: Work, module: str, rows: Tensor) -> None:
    """Add the step of rows of a table."""
    canonical = work.found(f"{module}.weight")
    tokens = next(
        (tokens for name, tokens in work.config.tokens.items() if module == name or module.endswith(f".{name}")),
        work.config.tokens.get("") if canonical == work.table else None,
    )
    if tokens is None and work.is_head(module) and work.is_tied:
        return  # a copy of those of the embedding
    if canonical is None or tokens is None:
        work.drop([rows], untargeted=canonical is not None)
        return
    table = work.tensors[canonical]
    if rows.shape != (len(tokens), table.columns) or max(tokens, default=0) >= table.rows:
        raise InputError(
            f"has the shape {list(rows.shape)}, for {len(tokens)} tokens up to {max(tokens, default=0)} of "
            f"{table.name} {list(table.shape)}",
            OTHER_BASE,
            path=rows.span,
            tensor=rows.name,
        )
    work.steps.setdefault(canonical, []).append(Replaced(tokens, rows))


def _carried_out(work: Work, saved: Mapping[str, Tensor]) -> list[str]:
    """Put merged tensors and those stored whole in place; returns the canonical names of all that change."""
    old = dict(work.base.tensors) | dict(work.base.towers)
    for name, steps in work.steps.items():
        work.tensors[name] = Merged(work.tensors[name], tuple(steps)).tensor()
    if work.table in work.steps and work.is_tied and not work.config.ties:
        work.notes.append(
            f"the adapter changes {work.table}, which is also the head: both change, as with PEFT's merge_and_unload"
        )
    embedding, tied = work.tensors[work.table], work.is_tied
    for name, tensor in saved.items():
        if name == work.head and tied:
            continue
        work.tensors[name] = _checked(work, tensor, tensor, grows=tensor.place.role.is_table)
    if tied and (work.head in saved or (work.table in saved and not work.config.ties)):
        _untie(work, embedding, saved.get(work.head))
    head = work.tensors.get(work.head)
    if head is not None and head.rows != work.tensors[work.table].rows:
        raise InputError(
            f"has {work.tensors[work.table].rows} rows in {work.table} and {head.rows} in {work.head}: the adapter "
            "grew one of them and stores no other",
            "save it again with PEFT's save_embedding_layers=True",
            path=work.weights.span,
        )
    return [name for name, tensor in work.tensors.items() if tensor is not old.get(name)]


def _untie(work: Work, before: Tensor, own: Tensor | None) -> None:
    """Give the model a head of its own: the adapter's, or the embedding before the adapter's took its place."""
    embedding = work.tensors[work.table]
    place = work.base.family.names.place(work.head)
    head = replace(own or before, name=work.head, place=place)
    if own is None and head.rows != embedding.rows:
        work.notes.append(f"the adapter's {work.table} has other rows than the base's: it is the head, too")
    elif head.shape != embedding.shape:
        raise work.misfit(head, embedding)
    elif own is None or not same(head, embedding):
        work.tensors[work.head] = head
        what = "a head of its own" if own is not None else "an embedding of its own, and the base's is the head"
        work.notes.append(f"the adapter has {what}: they are no longer tied, as with PEFT's merge_and_unload")


def _check_left(work: Work, changed: Collection[str]) -> None:
    """Refuse an adapter of which something is left over, or that changes nothing."""
    for names, what, hint in (
        (work.left, f"which {work.base.location} has no place for", OTHER_BASE),
        (work.untargeted, f"which {work.config.path.name} does not name", "take the config that was saved with it"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if names[1:] else ""
            raise InputError(f"holds {names[0]}{more}, {what}", hint, path=work.weights.span)
    if not changed:
        raise InputError(f"changes no tensor of {work.base.location}", OTHER_BASE, path=work.weights.span)
