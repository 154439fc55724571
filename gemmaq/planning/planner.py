"""Decide how every tensor of a checkpoint is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.encodings import ENCODINGS, Encoding, Kind
from gemmaq.errors import InputError
from gemmaq.methods import AUTO, METHODS, Choice
from gemmaq.methods.lattice import GridFit
from gemmaq.models.roles import Role
from gemmaq.planning.advice import advise
from gemmaq.planning.plan import Format, PieceSpec, Plan, PlannedTensor
from gemmaq.planning.recipe import encoding_for
from gemmaq.planning.request import Request


@dataclass(frozen=True, slots=True)
class _Context:
    """Everything that decides how a tensor is written, whichever tensor it is.

    Attributes:
        checkpoint: the source.
        request: types, methods and containers.
        target: demands of the container.
        fits: canonical name -> the grid that the weights lie on.
        shared: whether the codes also go to a container with BF16 scales.
    """

    checkpoint: Checkpoint
    request: Request
    target: Format
    fits: Mapping[str, GridFit]
    shared: bool

    @property
    def norm_shift(self) -> float:
        """Added to the weights of norms."""
        return self.checkpoint.family.gguf.NORM_SHIFT if self.target.gguf_names else 0.0

    @property
    def vector(self) -> Encoding:
        """The encoding of tensors that are not quantized."""
        body = self.request.recipe.body
        return self.target.vector or (body if body.is_float else ENCODINGS["bf16"])

    def portable(self, method: str) -> bool:
        """Whether a method chooses scales that BF16 and FP16 both hold."""
        shared = self.shared or self.target.portable
        return self.request.portable or (shared and METHODS[method].portable_when_shared)


def make_plan(
    checkpoint: Checkpoint,
    request: Request,
    target: Format,
    *,
    fits: Mapping[str, GridFit] | None = None,
    shared: bool = False,
) -> Plan:
    """Decide how every tensor of a checkpoint is written.

    Args:
        checkpoint: the source.
        request: types, methods and containers.
        target: demands of the container that the plan is for.
        fits: canonical name -> the grid that the weights lie on, for the methods that use it.
        shared: whether the codes also go to a container with BF16 scales, so that scales must fit both.

    Raises:
        InputError: the container cannot hold what the recipe asks for, or the vision side is incomplete.
    """
    recipe = request.recipe
    _check_held(target, recipe.body, recipe.label)
    if recipe.embedding is not None:
        _check_held(target, recipe.embedding, recipe.embedding.label, for_embedding=True)
    context = _Context(checkpoint, request, target, fits or {}, shared)
    planned = tuple(_planned(context, tensor) for tensor in checkpoint.tensors.values())
    extra: tuple[PlannedTensor, ...] = ()
    if request.mmproj is not None and checkpoint.vision:
        planned = tuple(replace(tensor, name=target.text_prefix + tensor.name) for tensor in planned)
        tied = target.repeats_head and checkpoint.head is None
        heads = [tensor for tensor in planned if tied and tensor.source.place.role == Role.EMBEDDING]
        extra = (
            *(replace(tensor, name=target.text_prefix + checkpoint.family.names.HEAD) for tensor in heads),
            *_vision(context, request.mmproj),
        )
    warnings = advise(checkpoint, planned, fits=context.fits, with_vision=bool(extra))
    return Plan(target.name, recipe, planned, tuple(warnings), extra, request.mmproj if extra else None)


def _check_held(target: Format, encoding: Encoding, label: str, *, for_embedding: bool = False) -> None:
    """Refuse a type that the container cannot hold."""
    held, what = (target.embedding_encodings, " for the embedding") if for_embedding else (target.encodings, "")
    if encoding.name not in held:
        raise InputError(
            f"{target.name} cannot hold {label}{what}", f"{target.name} holds{what}: {', '.join(sorted(held))}"
        )


def _planned(context: _Context, tensor: Tensor) -> PlannedTensor:
    """Plan a tensor of the text model."""
    checkpoint, recipe, target, role = context.checkpoint, context.request.recipe, context.target, tensor.place.role
    reason = None
    if not role.is_quantizable:
        encoding = context.vector
    else:
        embedding = target.default_embedding(recipe.body)
        if context.portable("nearest") and ENCODINGS[embedding].kind is Kind.SUPER:
            embedding = ENCODINGS[embedding].fallback or embedding  # the same in every container that can hold it
        held = target.embedding_encodings if role.is_table else target.encodings
        encoding, reason = encoding_for(recipe, tensor, checkpoint.config, default_embedding=embedding, allowed=held)
    pieces = target.pieces(encoding, tensor.columns)
    if context.request.scales == "f16" and len(pieces) > 1:
        pieces = (pieces[0], *(replace(piece, dtype="F16") for piece in pieces[1:]))
    method = _method(recipe.method_for(tensor.name), tensor, encoding, context.fits.get(tensor.name))
    return PlannedTensor(
        tensor,
        checkpoint.family.names.to_gguf(tensor.name) if target.gguf_names else tensor.name,
        encoding,
        pieces,
        Choice(method, context.portable(method)),
        tensor.shift + (context.norm_shift if role == Role.NORM else 0.0),
        reason,
    )


def _method(name: str, tensor: Tensor, encoding: Encoding, fit: GridFit | None) -> str:
    """The method for a tensor, given the name in the recipe: not every method suits every tensor.

    Raises:
        InputError: a calibrated method cannot write the encoding.
    """
    if name == AUTO:
        on_grid = fit is not None and fit.on_grid and METHODS["lattice"].writes(encoding)
        return "lattice" if on_grid else "nearest"
    method = METHODS[name]
    if encoding.is_float:
        return "nearest"  # nothing to choose
    if method.is_calibrated and not tensor.place.role.is_layer_matrix:
        return "nearest"  # rows that are looked up have no inputs to calibrate on
    if method.writes(encoding):
        return name
    if method.fallback is None:
        raise InputError(
            f"method {name} cannot write {encoding.label}, which {tensor.name} would be",
            f"it writes {', '.join(method.encodings)}",
        )
    return method.fallback


def _vision(context: _Context, mmproj: str) -> list[PlannedTensor]:
    """Plan the vision tensors, in file order.

    Raises:
        InputError: one is missing or has another shape.
    """
    checkpoint, target = context.checkpoint, context.target
    assert checkpoint.vision_config is not None
    vision = checkpoint.family.vision
    planned = []
    for name, shape in vision.shapes(checkpoint.vision_config, checkpoint.config.hidden_size):
        tensor = checkpoint.vision.get(name)
        if tensor is None or tensor.shape != shape:
            what = "lacks" if tensor is None else f"has the shape {list(tensor.shape)}, not {list(shape)}, for"
            raise InputError(
                f"the vision side {what} {name}",
                "--mmproj none converts the text model alone",
                path=checkpoint.location,
            )
        encoding, new_name = context.vector, name
        if target.gguf_names:
            encoding, new_name = ENCODINGS[vision.mmproj_type(name, len(shape), mmproj)], vision.to_gguf(name)
        suffix = "weight" if new_name.endswith("weight") else ""
        piece = PieceSpec(suffix, encoding.label, tensor.columns, encoding.row_bytes(tensor.columns))
        planned.append(
            PlannedTensor(
                tensor,
                new_name,
                encoding,
                (piece,),
                Choice("nearest", False),
                tensor.shift + (context.norm_shift if vision.is_norm(name) else 0.0),
                channels_last=target.channels_last and vision.is_patch_kernel(name),
            )
        )
    return planned
