"""What will be written: every tensor with its name, type and bytes. The single truth behind sizes and real runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from gemmaq.advice import advise
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.errors import InputError
from gemmaq.gemma import names, vision
from gemmaq.methods import CALIBRATED, Choice
from gemmaq.methods.lattice import Verdict
from gemmaq.recipe import Recipe, encoding_for

MMPROJ = ("f16", "bf16", "f32")
"""Types that the vision side can have in a GGUF file."""


@dataclass(frozen=True, slots=True)
class PieceSpec:
    """One array of a tensor in a container.

    Attributes:
        suffix: what its name has in place of `weight`, as in `scales`.
        dtype: safetensors name of its numbers.
        columns: numbers a row.
        row_bytes: bytes a row.
    """

    suffix: str
    dtype: str
    columns: int
    row_bytes: int


@dataclass(frozen=True, slots=True)
class Format:
    """What a container demands of the tensors in it.

    Attributes:
        name: `gguf`, `mlx`, `safetensors`.
        encodings: names of the encodings it can hold.
        embedding_encodings: the same for the embedding.
        rename: canonical tensor name -> its name in the container.
        vector: encoding of one-dimensional tensors, None for that of the recipe's body, or BF16 if that is quantized.
        norm_shift: what it adds to norm weights.
        default_embedding: encoding of the body -> name of that of the embedding if nothing else is asked for.
        pieces: encoding and columns -> the arrays a tensor is stored in.
        portable: whether its scales are BF16, so that codes must be chosen for scales that BF16 and FP16 hold exactly.
        text_prefix: what names of the text side begin with in a model that has a vision side too.
        rename_vision: canonical name of a tensor of the vision side -> its name in the container.
        vision: such a tensor, and the type asked for -> its encoding; None for that of vectors.
        channels_last: whether kernels of a convolution have their channels last.
        repeats_head: whether a model with a vision side has the embedding a second time, as its head.
    """

    name: str
    encodings: frozenset[str]
    embedding_encodings: frozenset[str]
    rename: Callable[[str], str]
    vector: Encoding | None
    norm_shift: float
    default_embedding: Callable[[Encoding], str]
    pieces: Callable[[Encoding, int], tuple[PieceSpec, ...]]
    portable: bool
    text_prefix: str = ""
    rename_vision: Callable[[str], str] = str
    vision: Callable[[Tensor, str], Encoding] | None = None
    channels_last: bool = False
    repeats_head: bool = False


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor to be written.

    Attributes:
        source: where its weights come from.
        name: in the container.
        encoding: to be written in.
        pieces: the arrays it is stored in.
        choice: how codes are chosen.
        shift: to be added to the decoded source weights.
        reason: why the encoding is not the one asked for, or None.
        channels_last: whether the kernels of a convolution are to have their channels last.
        solved: its codes and scales where they have been chosen already, on disk, to be taken over.
    """

    source: Tensor
    name: str
    encoding: Encoding
    pieces: tuple[PieceSpec, ...]
    choice: Choice
    shift: float
    reason: str | None = None
    channels_last: bool = False
    solved: Tensor | None = None

    @property
    def stored(self) -> Tensor:
        """What is read to write it."""
        return self.solved or self.source

    @property
    def shape(self) -> tuple[int, ...]:
        """As it is written, rows first."""
        if not self.channels_last:
            return self.source.shape
        rows, channels, height, width = self.source.shape
        return rows, height, width, channels

    @property
    def moved(self) -> bool:
        """Whether its axes are in another order than in the source."""
        return self.channels_last != self.source.channels_last

    @property
    def nbytes(self) -> int:
        """Bytes of its codes and scales."""
        return self.source.rows * sum(piece.row_bytes for piece in self.pieces)

    @property
    def keeps_codes(self) -> bool:
        """Whether the source's codes mean the same here and are taken over."""
        return self.encoding.same_codes(self.stored.encoding) and self.shift == 0

    @property
    def copied(self) -> bool:
        """Whether the very bytes of the source are taken over."""
        same = self.encoding == self.stored.encoding and self.shift == 0 and not self.moved
        return same and self.stored.layout == "plain" and len(self.pieces) == 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a conversion writes into one container, before any of it is.

    Attributes:
        format: of the container.
        recipe: it was made with.
        tensors: of the text model, in file order.
        warnings: what the user should know, a sentence each.
        beside: the vision side, and a head where the container repeats one.
        mmproj: type asked for the vision side, None for a model without one.
    """

    format: str
    recipe: Recipe
    tensors: tuple[PlannedTensor, ...]
    warnings: tuple[str, ...]
    beside: tuple[PlannedTensor, ...] = ()
    mmproj: str | None = None

    @property
    def everything(self) -> tuple[PlannedTensor, ...]:
        """All tensors that are written."""
        return (*self.tensors, *self.beside)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the text model's tensors, without headers and padding."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def elements(self) -> int:
        """Weights in all."""
        return sum(tensor.source.elements for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Over all tensors."""
        return 8 * self.tensor_bytes / self.elements

    @property
    def body(self) -> Encoding:
        """The encoding of the layers' matrices: as asked for, or that of most of their bytes if the source decides."""
        if not self.recipe.keep:
            return self.recipe.body
        sizes: Counter[Encoding] = Counter()
        for tensor in self.tensors:
            if len(tensor.source.shape) == 2 and tensor.source.name not in (names.EMBEDDING, names.HEAD):
                sizes[tensor.encoding] += tensor.nbytes
        return sizes.most_common(1)[0][0]

    @property
    def label(self) -> str:
        """The types as file names show them: as asked for, or that of the body if the source decides."""
        return self.body.label if self.recipe.keep else self.recipe.label

    @property
    def counts(self) -> Mapping[str, int]:
        """Type -> how many tensors have it, the most frequent first."""
        return dict(Counter(tensor.encoding.name for tensor in self.tensors).most_common())


def make_plan(
    checkpoint: Checkpoint,
    recipe: Recipe,
    target: Format,
    verdicts: Mapping[str, Verdict] | None = None,
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
    portable_methods = {"nearest": common, "lattice": portable, "importance": common, "gptq": common}
    layers = checkpoint.config.num_hidden_layers
    planned = tuple(
        _planned(tensor, layers, recipe, target, (verdicts or {}).get(tensor.name), portable_methods, scales)
        for tensor in checkpoint.tensors.values()
    )
    beside: tuple[PlannedTensor, ...] = ()
    if mmproj is not None and checkpoint.vision:
        planned = tuple(replace(tensor, name=target.text_prefix + tensor.name) for tensor in planned)
        head = [tensor for tensor in planned if tensor.source.name == names.EMBEDDING and target.repeats_head]
        if names.HEAD in checkpoint.tensors:
            head = []
        beside = (
            *(replace(tensor, name=target.text_prefix + names.HEAD) for tensor in head),
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
    planned = []
    for name, shape in vision.shapes(checkpoint.vision_config, checkpoint.config.hidden_size):
        tensor = checkpoint.vision.get(name)
        if tensor is None or tensor.shape != shape:
            what = "lacks" if tensor is None else f"has the shape {list(tensor.shape)}, not {list(shape)}, for"
            raise InputError(
                f"{checkpoint.location}: the vision side {what} {name}", "--mmproj none converts the text model alone"
            )
        encoding = target.vision(tensor, mmproj) if target.vision else _vector(recipe, target)
        name_there = target.rename_vision(name)
        suffix = "weight" if name_there.endswith("weight") else ""
        piece = PieceSpec(suffix, encoding.label, tensor.columns, encoding.row_bytes(tensor.columns))
        shift = tensor.shift + (target.norm_shift if name == vision.PROJECTOR_NORM else 0.0)
        last = target.channels_last and name == vision.PATCH_EMBEDDING
        choice = Choice("nearest", False)
        planned.append(PlannedTensor(tensor, name_there, encoding, (piece,), choice, shift, channels_last=last))
    return planned


def _vector(recipe: Recipe, target: Format) -> Encoding:
    return target.vector or (recipe.body if recipe.body.is_float else ENCODINGS["bf16"])


def _check_held(target: Format, encoding: Encoding, label: str, what: str, allowed: frozenset[str]) -> None:
    if encoding.name not in allowed:
        raise InputError(
            f"{target.name} cannot hold {label}{what}", f"{target.name} holds{what}: {', '.join(sorted(allowed))}"
        )


def _planned(
    tensor: Tensor,
    layers: int,
    recipe: Recipe,
    target: Format,
    verdict: Verdict | None,
    portable: Mapping[str, bool],
    scales: str,
) -> PlannedTensor:
    shift = tensor.shift + (target.norm_shift if names.is_norm(tensor.name) else 0.0)
    reason = None
    if len(tensor.shape) < 2:
        encoding = _vector(recipe, target)
    else:
        embedding = target.default_embedding(recipe.body)
        if portable["nearest"] and embedding == "q6_k":
            embedding = "q8_0"  # the same in every container that can hold it
        encoding, reason = encoding_for(recipe, tensor, layers, embedding, _allowed(tensor, target))
    method = _method(recipe.method_for(tensor.name), tensor, encoding, verdict)
    pieces = target.pieces(encoding, tensor.columns)
    if scales == "f16" and len(pieces) > 1:
        pieces = (pieces[0], *(replace(piece, dtype="F16") for piece in pieces[1:]))
    return PlannedTensor(
        tensor, target.rename(tensor.name), encoding, pieces, Choice(method, portable[method]), shift, reason
    )


def _method(asked: str, tensor: Tensor, encoding: Encoding, verdict: Verdict | None) -> str:
    """The method a tensor gets: not every one is for every tensor.

    Raises:
        InputError: a calibrated method cannot write the encoding.
    """
    if asked == "auto":
        fits_grid = verdict is not None and verdict.on_grid and encoding.name == "q4_0"
        return "lattice" if fits_grid else "nearest"
    if asked == "lattice":
        return asked if encoding.name == "q4_0" else "nearest"
    if asked in CALIBRATED:
        if encoding.is_float or len(tensor.shape) < 2 or tensor.name in (names.EMBEDDING, names.HEAD):
            return "nearest"  # looked up, not multiplied with activations that could be gathered; or nothing to choose
        if encoding.name not in CALIBRATED[asked]:
            raise InputError(
                f"method {asked} cannot write {encoding.label}, which {tensor.name} would be",
                f"it writes {', '.join(CALIBRATED[asked])}",
            )
    return asked


def _allowed(tensor: Tensor, target: Format) -> frozenset[str]:
    return target.embedding_encodings if tensor.name in (names.EMBEDDING, names.HEAD) else target.encodings
