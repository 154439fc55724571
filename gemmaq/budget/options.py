"""The types that each group of tensors can have in a container, with the bytes and the predicted loss of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gemmaq import containers
from gemmaq.calibration.activations import sites
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.methods import AUTO, METHODS, Needs
from gemmaq.planning.allocation import Group, Option, united
from gemmaq.planning.format import pieces_of
from gemmaq.planning.plan import Plan, PlannedTensor
from gemmaq.planning.recipe import Recipe
from gemmaq.planning.request import Request
from gemmaq.planning.sensitivities import NEAREST, Sensitivities
from gemmaq.planning.sensitivities import Group as Sensitive


@dataclass(frozen=True, slots=True)
class Losses:
    """Predicted losses of the tensors of a model, by the method that chooses their codes.

    Attributes:
        sensitivities: what was measured.
        method: name of the method, `auto` included.
    """

    sensitivities: Sensitivities
    method: str

    def of(self, group: Sensitive, encoding: Encoding) -> float | None:
        """Loss of the model when only these tensors are in a type, in nats; None if it is not known."""
        loss = group.loss(encoding.name, self.method)
        return 0.0 if loss is None and encoding.is_float else loss

    def predicted(self, plan: Plan) -> float | None:
        """Mean KL divergence of a plan's model from the source, in nats; None if it has types whose loss is not known.

        Losses add up. Tensors that were not measured count for nothing.
        """
        tensors = {tensor.source.name: tensor for tensor in plan.tensors}
        found = []
        for group in self.sensitivities.groups:
            for name in group.names:
                tensor = tensors.get(name)
                if tensor is None or tensor.keeps_codes:
                    continue
                loss = self.of(group, tensor.encoding)
                if loss is None:
                    return None
                found.append(loss * group.share(name))
        return math.fsum(found)


def candidates(container: str) -> list[Encoding]:
    """Types to choose from in a container: all that it holds, and BF16 of those that are not quantized."""
    return [
        encoding
        for encoding in ENCODINGS.values()
        if containers.writer(container).FORMAT.holds(encoding) and (not encoding.is_float or encoding.name == "bf16")
    ]


def writable(recipe: Recipe, tensor: Tensor, encoding: Encoding, *, portable: bool) -> bool:
    """Whether the method of a recipe writes a tensor in a type, without an importance matrix if it has none."""
    if encoding.is_float or encoding.same_codes(tensor.encoding):
        return True
    if portable and not encoding.holds_portable:
        return False
    name, looked_up = recipe.method_for(tensor.name), not tensor.place.role.is_layer_matrix
    if name == AUTO or (looked_up and METHODS[name].is_calibrated):
        name = NEAREST
    method = METHODS[name]
    if encoding.needs_importance and method.needs is Needs.NOTHING and not looked_up:
        return False
    return method.writes(encoding) or (method.fallback is not None and METHODS[method.fallback].writes(encoding))


def free(plan: Plan, request: Request, names: frozenset[str]) -> dict[str, PlannedTensor]:
    """Tensors of some names whose types the user left open, by canonical name."""
    return {
        tensor.source.name: tensor
        for tensor in plan.tensors
        if tensor.source.name in names and request.recipe.asked(tensor.source) is None
    }


def groups(
    checkpoint: Checkpoint, request: Request, open_tensors: Mapping[str, PlannedTensor], *, losses: Losses
) -> list[Group]:
    """The groups of tensors to choose types for, each with the types that all its tensors can have.

    Args:
        checkpoint: the source.
        request: method, container and types that the user has chosen.
        open_tensors: the tensors, see `free`.
        losses: predicted losses.
    """
    target = containers.writer(request.to[0]).FORMAT
    types = {encoding.name: encoding for encoding in candidates(request.to[0])}
    tables = {name: _table(request, tensor, types.values()) for name, tensor in open_tensors.items()}
    found = []
    for group in losses.sensitivities.groups:
        own = [open_tensors[name] for name in group.names if name in open_tensors]
        if not own:
            continue
        share = sum(group.share(tensor.source.name) for tensor in own)
        options = []
        for name, encoding in types.items():
            sizes = [tables[tensor.source.name].get(name) for tensor in own]
            loss = losses.of(group, encoding)
            if all(encoding.same_codes(tensor.source.encoding) for tensor in own):
                loss = 0.0
            if loss is not None and None not in sizes:
                options.append(Option(name, sum(size or 0 for size in sizes), loss * share))
        found.append(Group(tuple(tensor.source.name for tensor in own), tuple(options)))
    return united(found, fused(checkpoint)) if target.fuses else found


def _table(request: Request, tensor: PlannedTensor, types: Iterable[Encoding]) -> dict[str, int]:
    """Name of each type that a tensor can have -> bytes in it."""
    return {e.name: size_in(request, tensor, e) for e in types if possible(request, tensor, e)}


def size_in(request: Request, tensor: PlannedTensor, encoding: Encoding) -> int:
    """Bytes of a tensor in a type."""
    target, source = containers.writer(request.to[0]).FORMAT, tensor.source
    pieces = pieces_of(target, encoding, source.columns, request.scales)
    return source.rows * sum(piece.row_bytes for piece in pieces)


def possible(request: Request, tensor: PlannedTensor, encoding: Encoding) -> bool:
    """Whether a tensor can have a type."""
    source = tensor.source
    if not encoding.fits(source.columns):
        return False
    target = containers.writer(request.to[0]).FORMAT
    held = target.holds_embedding(encoding) if source.place.role.is_table else target.holds(encoding)
    return held and writable(request.recipe, source, encoding, portable=request.portable)


def fused(checkpoint: Checkpoint) -> list[Sequence[str]]:
    """Names of matrices that share an input, a sequence for each input: runtimes that fuse them want one type."""
    names = checkpoint.family.names
    return [
        [names.in_layer(layer, part) for part in parts]
        for layer in range(len(checkpoint.config.layers))
        for parts in sites(checkpoint, layer).values()
    ]
