"""Decide how every tensor of a checkpoint is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.checkpoint.stacks import padded
from gemmaq.encodings import ENCODINGS, Encoding, Kind, listed
from gemmaq.errors import InputError, UsageError
from gemmaq.methods import AUTO, METHODS, Choice, Needs, calibrated
from gemmaq.methods.lattice import GridFit, Verdict
from gemmaq.models.roles import Role
from gemmaq.models.slices import Slice
from gemmaq.planning.advice import advise, remark
from gemmaq.planning.format import Constant, Format, Stacking, pieces_of
from gemmaq.planning.plan import Plan, PlannedTensor
from gemmaq.planning.recipe import Recipe, encoding_for
from gemmaq.planning.request import Matrix, Request
from gemmaq.planning.towers import TEXT_ALONE, plan_towers


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
    def with_towers(self) -> bool:
        """Whether the towers are written too."""
        return self.request.mmproj is not None and bool(self.checkpoint.towers)

    def named(self, name: str) -> str:
        """Name in the container of a text tensor with that canonical name."""
        family, target = self.checkpoint.family, self.target
        if target.gguf_names:
            return family.names.to_gguf(name)
        if target.hf_names:
            return family.names.nested_hf(name) if self.with_towers else family.to_hf(name)
        is_nested = self.with_towers or (target.nested and family.configs.NESTED)
        return family.names.nested(name) if is_nested else name

    @property
    def norm_shift(self) -> float:
        """Added to the weights of norms."""
        return self.checkpoint.family.gguf.NORM_SHIFT if self.target.gguf_names else 0.0

    @property
    def vector(self) -> Encoding:
        """The encoding of tensors that are not quantized."""
        body = self.request.recipe.body
        return self.target.vector or (body if body.is_float else ENCODINGS["bf16"])

    @property
    def shares_codes(self) -> bool:
        """Whether other containers than GGUF take the same codes, or could."""
        return self.request.portable or self.shared or self.target.portable

    def portable(self, method: str, encoding: Encoding | None = None) -> bool:
        """Whether a method chooses scales that every container holds: BF16 and FP16, or no divisor in any."""
        if encoding is not None and encoding.divisor != 1:
            return self.request.portable or not self.target.divides_scales or len(self.request.to) > 1
        return self.request.portable or (self.shares_codes and METHODS[method].portable_when_shared)


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
        UsageError: the source is a drafter, and the container or a method is not for drafters; or a type needs an
            importance matrix, and the method has none.
        InputError: the container cannot hold what the recipe asks for, or the towers cannot be read.
    """
    recipe = request.recipe.resolved(checkpoint)
    request = replace(request, recipe=recipe)
    if checkpoint.family.drafts:
        _check_drafter(checkpoint, recipe, target)
    _check_held(target, recipe.body, recipe.label)
    if recipe.embedding is not None:
        _check_held(target, recipe.embedding, recipe.embedding.label, for_embedding=True)
    if request.mmproj is not None and (error := checkpoint.towers_error) is not None:
        raise InputError(error.message, f"{error.hint}; {TEXT_ALONE}" if error.hint else TEXT_ALONE)
    context = _Context(checkpoint, request, target, fits or {}, shared)
    sources = (*_heads(context), *checkpoint.tensors.values(), *(checkpoint.idle.values() if target.idle else ()))
    planned = tuple(_planned(context, tensor) for tensor in sources)
    extra: tuple[PlannedTensor, ...] = ()
    if context.with_towers:
        towers = checkpoint.family.towers
        assert towers is not None
        tied = target.repeats_head and towers.REPEATS_HEAD and checkpoint.head is None
        heads = [tensor for tensor in planned if tied and tensor.source.place.role == Role.EMBEDDING]
        extra = (
            *(replace(tensor, name=context.named(checkpoint.family.names.HEAD)) for tensor in heads),
            *plan_towers(
                checkpoint, target, request.mmproj or "", vector=context.vector, norm_shift=context.norm_shift
            ),
        )
    return Plan(
        target.name,
        request,
        planned,
        tuple(advise(checkpoint, planned, recipe=recipe, container=target.name, fits=context.fits)),
        extra,
        request.mmproj if extra else None,
        _generated(context),
        notes=tuple(remark(checkpoint, planned, with_towers=bool(extra))),
        matrix=_matrix(request, planned),
    )


def _matrix(request: Request, planned: Sequence[PlannedTensor]) -> Matrix | None:
    """The importance matrix that some of the tensors are weighed with."""
    weighed = any(tensor.needs is Needs.IMPORTANCE for tensor in planned)
    return request.calibration.matrix if weighed and request.calibration is not None else None


def _check_drafter(checkpoint: Checkpoint, recipe: Recipe, target: Format) -> None:
    """Refuse what a drafter cannot have."""
    title = checkpoint.family.title
    if not target.gguf_names:
        raise UsageError(
            f"a {title} is not written to {target.name}",
            "its runtimes load the folder that it comes in; --to gguf is for llama.cpp and Ollama",
        )
    if recipe.needs_importance:
        raise UsageError(f"{recipe.label} needs an importance matrix, and there is none of a {title}", "--quant q4_0")
    running = [name for name in recipe.methods if name in METHODS and METHODS[name].is_calibrated]
    if running:
        raise UsageError(
            f"method {running[0]} runs the model, and a {title} runs beside its target alone",
            f"--method {AUTO} finds the grid of a drafter with QAT",
        )


def _heads(context: _Context) -> tuple[Tensor, ...]:
    """The dense heads of a model that embeds, if they are asked for and the container has a place for them.

    Raises:
        InputError: they are asked for, and the source has none.
    """
    if not context.request.dense_heads or not context.target.gguf_names:
        return ()
    embedder = context.checkpoint.embedder
    if embedder is None or not embedder.heads:
        raise InputError("has no dense heads", "leave out --dense-heads", path=context.checkpoint.location)
    return tuple(embedder.heads.values())


def _generated(context: _Context) -> tuple[Constant, ...]:
    """The tensors that llama.cpp wants besides those of the checkpoint."""
    if not context.target.gguf_names:
        return ()
    arrays = context.checkpoint.family.gguf.generated(context.checkpoint.config)
    return tuple(Constant(name, "F32", array.shape, array.tobytes()) for name, array in arrays.items())


def _check_held(target: Format, encoding: Encoding, label: str, *, for_embedding: bool = False) -> None:
    """Refuse a type that the container cannot hold."""
    held, what = (target.embedding_encodings, " for the embedding") if for_embedding else (target.encodings, "")
    if encoding.name not in held:
        raise InputError(
            f"{target.name} cannot hold {label}{what}", f"{target.name} holds{what}: {', '.join(listed(sorted(held)))}"
        )


def _planned(context: _Context, tensor: Tensor) -> PlannedTensor:
    """Plan a tensor of the text model.

    llama.cpp looks up rows of layer embeddings for every token, other runtimes for those that have any.
    """
    recipe, target, role = context.request.recipe, context.target, tensor.place.role
    fit = context.fits.get(tensor.name)
    if target.gguf_names and role is Role.LAYER_EMBEDDING:
        tensor = padded(tensor, context.checkpoint.config.vocab_size)
    encoding, reason = _encoding(context, tensor)
    pieces = pieces_of(target, encoding, tensor.columns, context.request.scales)
    asked = recipe.method_for(tensor.name)
    method = _method(asked, tensor, encoding, fit)
    if not METHODS[method].keeps_grid and _is_solved(context, tensor, encoding, asked):
        method = asked
    planned = PlannedTensor(
        tensor,
        context.named(tensor.name),
        encoding,
        pieces,
        Choice(method, context.portable(method, encoding)),
        tensor.shift + (context.norm_shift if role == Role.NORM else 0.0),
        reason,
        slices=_slices(context, tensor, encoding),
        tuned=_is_tuned(context, tensor),
    )
    if recipe.weighs(encoding) and planned.needs is Needs.NOTHING and not (role.is_table or planned.keeps_codes):
        raise UsageError(
            f"{tensor.name} cannot be {encoding.label} without an importance matrix: it would be of no use",
            f"add --method {' or '.join(name for name in calibrated() if METHODS[name].writes(encoding))}",
        )
    if not (planned.keeps_codes or METHODS[method].writes(encoding)):
        raise UsageError(
            f"{tensor.name} cannot be {encoding.label}: no importance matrix has data for rows that are looked up",
            "--embedding iq3_s is the smallest type of its kind that does without",
        )
    return planned


def _is_tuned(context: _Context, tensor: Tensor) -> bool:
    """Whether the tensor is a norm that is tuned: one of the layers, or the final one, beside quantized matrices."""
    checkpoint, request = context.checkpoint, context.request
    asked = request.calibration is not None and request.calibration.refine is not None
    if not asked or request.recipe.body.is_float or checkpoint.family.drafts or tensor.place.role is not Role.NORM:
        return False
    inside = tensor.place.layer is not None and tensor.name in checkpoint.tensors
    return inside or tensor.name == checkpoint.family.names.FINAL_NORM


def _encoding(context: _Context, tensor: Tensor) -> tuple[Encoding, str | None]:
    """The encoding of a text tensor, and the reason if it is not the requested one."""
    checkpoint, recipe, target, role = context.checkpoint, context.request.recipe, context.target, tensor.place.role
    if role is Role.ROUTER:
        router = target.router(recipe.body)
        return (router if router and router.fits(tensor.columns) else context.vector), None
    fallback = None
    if role in (Role.LAYER_PROJECTION, Role.FLOAT):
        default = recipe.body if recipe.body.is_float else target.projection
    elif role.is_table:
        default = _default_table(context, tensor)
        rounded = target.gguf_names and not _is_looked_up(context, tensor)  # llama-quantize's choice for heads
        fallback = "q8_0" if rounded else default.fallback
    elif not role.is_quantizable:
        return context.vector, None
    else:
        default = recipe.body_for(tensor, checkpoint, shared=context.shares_codes)
        fallback = default.fallback
        if recipe.weighs(default) and not role.is_layer_matrix and fallback is not None:
            default = ENCODINGS[fallback]  # no layer's matrix, so that there is no data to weigh its errors with
    held = target.embedding_encodings if role.is_table else target.encodings
    return encoding_for(recipe, tensor, default=default, fallback=fallback, allowed=held)


def _is_solved(context: _Context, tensor: Tensor, encoding: Encoding, method: str) -> bool:
    """Whether the head of a model is written by a method that knows the Hessian of its inputs.

    With eight bits there is nothing to gain.
    """
    checkpoint = context.checkpoint
    if method == AUTO or METHODS[method].needs is not Needs.HESSIAN or checkpoint.family.embeds:
        return False
    is_head = tensor is (checkpoint.head or checkpoint.embedding)
    return is_head and METHODS[method].writes(encoding) and encoding.bits < 8


def _is_looked_up(context: _Context, tensor: Tensor) -> bool:
    """Whether the rows of a table are only looked up: the model has a head besides."""
    return context.checkpoint.head is not None and tensor.place.role is not Role.HEAD


def _default_table(context: _Context, tensor: Tensor) -> Encoding:
    """The encoding of a table for which the recipe has none."""
    recipe, target, fit = context.request.recipe, context.target, context.fits.get(tensor.name)
    body, mixture = recipe.body, recipe.mixture
    trained = fit is not None and fit.on_grid and context.checkpoint.family.tables_on_grid
    if trained and target.holds_embedding(body):
        method = _method(recipe.method_for(tensor.name), tensor, body, fit)
        if METHODS[method].keeps_grid:
            return body
    if target.gguf_names and not recipe.keep and not context.shares_codes and _is_looked_up(context, tensor):
        return (mixture and mixture.table) or body
    default = ENCODINGS[target.default_embedding(body)]
    if mixture and (target.gguf_names or (mixture.file_type is None and tensor.place.role is Role.HEAD)):
        default = mixture.head
    if context.portable("nearest") and default.kind is Kind.SUPER:
        return ENCODINGS[default.fallback or default.name]  # the same in every container that can hold it
    return default


def _slices(context: _Context, tensor: Tensor, encoding: Encoding) -> tuple[Slice, ...]:
    """The tensors that the container has in place of a stack, under their names there."""
    stacking = context.target.experts(encoding)
    if context.target.gguf_names or (tensor.place.role is Role.EXPERTS and stacking is Stacking.WHOLE):
        return ()
    names = context.checkpoint.family.names
    slices = names.slices(tensor.name, tensor.shape, per_expert=stacking is Stacking.SINGLE)
    return tuple(replace(part, name=context.named(part.name)) for part in slices)


def _method(name: str, tensor: Tensor, encoding: Encoding, fit: GridFit | None) -> str:
    """The method for a tensor, given the name in the recipe: not every method suits every tensor.

    Raises:
        InputError: a calibrated method cannot write the encoding.
    """
    if name == AUTO:
        trained = fit is not None and fit.verdict is not Verdict.NONE
        return "lattice" if trained and METHODS["lattice"].writes(encoding) else "nearest"
    method = METHODS[name]
    if encoding.is_float:
        return "nearest"  # nothing to choose
    if method.is_calibrated and not tensor.place.role.is_layer_matrix:
        return _method(AUTO, tensor, encoding, fit)  # rows that are looked up have no inputs to calibrate on
    if method.writes(encoding) or (name == "nearest" and not encoding.plain):  # `_planned` says what it needs
        return name
    if method.fallback is None:
        raise InputError(
            f"method {name} cannot write {encoding.label}, which {tensor.name} would be",
            f"--method nearest writes {encoding.label}; {name} writes {', '.join(listed(method.encodings))}",
        )
    return method.fallback
