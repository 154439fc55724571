"""Decide how every tensor of a checkpoint is to be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.encodings import ENCODINGS, Encoding, Kind
from gemmaq.errors import InputError
from gemmaq.methods import AUTO, METHODS, Choice
from gemmaq.methods.lattice import GridFit
from gemmaq.models.family import Family
from gemmaq.models.roles import Role
from gemmaq.planning.advice import advise
from gemmaq.planning.plan import Format, PieceSpec, Plan, PlannedTensor
from gemmaq.planning.recipe import Recipe, encoding_for


def make_plan(
    checkpoint: Checkpoint,
    recipe: Recipe,
    target: Format,
    verdicts: Mapping[str, GridFit] | None = None,
    portable: bool = False,
    shared: bool = False,
    scales: str = "bf16",
    mmproj: str | None = None,
) -> Plan:
    """Decide how every tensor of a checkpoint is to be written.

    Args:
        checkpoint: the source.
        recipe: what was asked for.
        target: the container's demands.
        verdicts: tensor -> the grid it lies on, for the methods that ask for it.
        portable: scales that every container holds exactly, those of a recovered grid too.
        shared: the codes also go to a container with BF16 scales: choose scales that both hold.
        scales: type of the scales where the container has them in arrays of their own, `bf16` or `f16`.
        mmproj: type of the vision side where the container leaves a choice, one of MMPROJ; None leaves it out.

    Raises:
        InputError: the container cannot hold what the recipe asks for, or the vision side is not complete.
    """
    _check_held(target, recipe.body, recipe.label, "", target.encodings)
    if recipe.embedding is not None:
        label = recipe.embedding.label
        _check_held(target, recipe.embedding, label, " for the embedding", target.embedding_encodings)
    common = portable or shared or target.portable
    portable_methods = {name: common if m.portable_when_shared else portable for name, m in METHODS.items()}
    planned = tuple(
        _planned(tensor, checkpoint, recipe, target, (verdicts or {}).get(tensor.name), portable_methods, scales)
        for tensor in checkpoint.tensors.values()
    )
    beside: tuple[PlannedTensor, ...] = ()
    if mmproj is not None and checkpoint.vision:
        planned = tuple(replace(tensor, name=target.text_prefix + tensor.name) for tensor in planned)
        tied = target.repeats_head and checkpoint.head is None
        head = [tensor for tensor in planned if tied and tensor.source.place.role == Role.EMBEDDING]
        beside = (
            *(replace(tensor, name=target.text_prefix + checkpoint.family.names.HEAD) for tensor in head),
            *_vision(checkpoint, target, recipe, mmproj),
        )
    warnings = advise(checkpoint, planned, verdicts or {}, with_vision=bool(beside))
    return Plan(target.name, recipe, planned, tuple(warnings), beside, mmproj if beside else None)


def _vision(checkpoint: Checkpoint, target: Format, recipe: Recipe, mmproj: str) -> list[PlannedTensor]:
    """The vision side in file order.

    Raises:
        InputError: a tensor of it is missing or has another shape.
    """
    assert checkpoint.vision_config is not None
    vision = checkpoint.family.vision
    planned = []
    for name, shape in vision.shapes(checkpoint.vision_config, checkpoint.config.hidden_size):
        tensor = checkpoint.vision.get(name)
        if tensor is None or tensor.shape != shape:
            what = "lacks" if tensor is None else f"has the shape {list(tensor.shape)}, not {list(shape)}, for"
            raise InputError(
                f"{checkpoint.location}: the vision side {what} {name}", "--mmproj none converts the text model alone"
            )
        if target.gguf_names:
            encoding = ENCODINGS[vision.mmproj_type(name, len(shape), mmproj)]
        else:
            encoding = _vector(recipe, target)
        name_there = vision.to_gguf(name) if target.gguf_names else name
        suffix = "weight" if name_there.endswith("weight") else ""
        piece = PieceSpec(suffix, encoding.label, tensor.columns, encoding.row_bytes(tensor.columns))
        shift = tensor.shift + (_norm_shift(checkpoint.family, target) if vision.is_norm(name) else 0.0)
        last = target.channels_last and vision.is_patch_kernel(name)
        choice = Choice("nearest", False)
        planned.append(PlannedTensor(tensor, name_there, encoding, (piece,), choice, shift, channels_last=last))
    return planned


def _norm_shift(family: Family, target: Format) -> float:
    """Added to the weights of norms in a container."""
    return family.gguf.NORM_SHIFT if target.gguf_names else 0.0


def _vector(recipe: Recipe, target: Format) -> Encoding:
    return target.vector or (recipe.body if recipe.body.is_float else ENCODINGS["bf16"])


def _check_held(target: Format, encoding: Encoding, label: str, what: str, allowed: frozenset[str]) -> None:
    if encoding.name not in allowed:
        raise InputError(
            f"{target.name} cannot hold {label}{what}", f"{target.name} holds{what}: {', '.join(sorted(allowed))}"
        )


def _planned(
    tensor: Tensor,
    checkpoint: Checkpoint,
    recipe: Recipe,
    target: Format,
    verdict: GridFit | None,
    portable: Mapping[str, bool],
    scales: str,
) -> PlannedTensor:
    family, role = checkpoint.family, tensor.place.role
    shift = tensor.shift + (_norm_shift(family, target) if role == Role.NORM else 0.0)
    reason = None
    if not role.is_quantizable:
        encoding = _vector(recipe, target)
    else:
        embedding = target.default_embedding(recipe.body)
        if portable["nearest"] and ENCODINGS[embedding].kind is Kind.SUPER:
            embedding = ENCODINGS[embedding].fallback or embedding  # the same in every container that can hold it
        encoding, reason = encoding_for(recipe, tensor, checkpoint.config, embedding, _allowed(tensor, target))
    method = _method(recipe.method_for(tensor.name), tensor, encoding, verdict)
    pieces = target.pieces(encoding, tensor.columns)
    if scales == "f16" and len(pieces) > 1:
        pieces = (pieces[0], *(replace(piece, dtype="F16") for piece in pieces[1:]))
    name = family.names.to_gguf(tensor.name) if target.gguf_names else tensor.name
    return PlannedTensor(tensor, name, encoding, pieces, Choice(method, portable[method]), shift, reason)


def _method(asked: str, tensor: Tensor, encoding: Encoding, verdict: GridFit | None) -> str:
    """The method a tensor gets: not every one is for every tensor.

    Raises:
        InputError: a calibrated method cannot write the encoding.
    """
    if asked == AUTO:
        on_grid = verdict is not None and verdict.on_grid and METHODS["lattice"].writes(encoding)
        return "lattice" if on_grid else "nearest"
    method = METHODS[asked]
    if method.is_calibrated and (encoding.is_float or not tensor.place.role.is_layer_matrix):
        return "nearest"  # looked up, not multiplied with activations that could be gathered; or nothing to choose
    if method.writes(encoding):
        return asked
    if method.fallback is None:
        raise InputError(
            f"method {asked} cannot write {encoding.label}, which {tensor.name} would be",
            f"it writes {', '.join(method.encodings)}",
        )
    return method.fallback


def _allowed(tensor: Tensor, target: Format) -> frozenset[str]:
    return target.embedding_encodings if tensor.place.role.is_table else target.encodings
