"""Complete plans with what calibrated methods need, ahead of writing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration import imatrix as files
from gemmaq.calibration.imatrix import Imatrix
from gemmaq.calibration.store import Store
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.errors import InputError, OutputError, UsageError
from gemmaq.inference.documents import Text
from gemmaq.methods import Importance, calibrated
from gemmaq.planning.plan import Plan, PlannedTensor
from gemmaq.planning.request import Calibration
from gemmaq.progress import ProgressCallback

if TYPE_CHECKING:
    from gemmaq.inference.documents import Tokens


@dataclass(frozen=True, slots=True)
class Basis:
    """Text or importance matrix that codes are calibrated on.

    Attributes:
        calibration: settings, and what identifies text or matrix.
        text: documents, None where an importance matrix is given.
        imatrix: an importance matrix that is given, or None.
    """

    calibration: Calibration
    text: Text | None
    imatrix: Imatrix | None


@dataclass(frozen=True, slots=True)
class Resources:
    """Where to compute: a device (None for the best there is) and a number of CPU threads."""

    device: str | None
    threads: int


def needed(plans: Sequence[Plan]) -> tuple[str, ...]:
    """The calibrated methods that plans ask for."""
    return tuple(name for name in calibrated() if any(p.choice.method == name for plan in plans for p in plan.tensors))


@contextmanager
def complete(
    plans: Sequence[Plan],
    checkpoint: Checkpoint,
    basis: Basis,
    *,
    resources: Resources,
    near: Path,
    progress: ProgressCallback,
) -> Iterator[list[Plan]]:
    """Plans whose tensors hold the importance of their columns, or their codes, where the method needs them.

    Args:
        plans: one for each container.
        checkpoint: the source.
        basis: text or importance matrix to calibrate on.
        resources: where to compute.
        near: a path next to which chosen codes are kept on disk until the end.
        progress: called with the step, layers done and layers in total.

    Raises:
        UsageError: torch or transformers is missing, or the basis does not serve a method.
        InputError: text or matrix do not fit the model.
        OutputError: there is no room for the codes.
    """
    methods = needed(plans)
    if "importance" in methods:
        weigh = _weights(plans, checkpoint, basis, resources, progress)
        plans = [_changed(plan, "importance", weigh) for plan in plans]
    if "gptq" not in methods:
        yield list(plans)
        return
    if basis.text is None:
        raise UsageError("method gptq needs text to calibrate on", "an importance matrix is not enough: --text FILE")
    shared = _shared(plans)
    parent = next(p for p in near.absolute().parents if p.exists())
    with ExitStack() as stack:
        try:
            folder = tempfile.TemporaryDirectory(prefix=f"{near.name}.", suffix=".partial", dir=parent)
            store = Store(Path(stack.enter_context(folder)))
            solved = _solve(shared, checkpoint, basis, resources, store=store, progress=progress)
        except OSError as error:
            raise OutputError(f"calibrated codes cannot be kept in {parent}: {error.strerror}") from error
        yield [_changed(plan, "gptq", lambda p: replace(p, solved=solved[p.source.name])) for plan in plans]


def _changed(plan: Plan, method: str, change: Callable[[PlannedTensor], PlannedTensor]) -> Plan:
    """A plan with the tensors of a method changed."""
    return replace(plan, tensors=tuple(change(p) if p.choice.method == method else p for p in plan.tensors))


def _shared(plans: Sequence[Plan]) -> dict[str, PlannedTensor]:
    """Canonical name -> planned matrix, the same in all containers.

    Raises:
        InputError: containers differ in the encoding of a matrix to be calibrated.
    """
    planned: dict[str, PlannedTensor] = {}
    for plan in plans:
        for tensor in plan.tensors:
            if not tensor.source.place.role.is_quantizable:
                continue
            first = planned.setdefault(tensor.source.name, tensor)
            if tensor.choice.method == "gptq" and tensor.encoding != first.encoding:
                raise InputError(
                    f"{tensor.source.name} would be {first.encoding.label} in one container and "
                    f"{tensor.encoding.label} in another, which cannot be calibrated together",
                    "convert for one container at a time, or choose a --quant that all hold",
                )
    return planned


def importance(
    checkpoint: Checkpoint, tokens: Tokens, names: tuple[str, ...], *, resources: Resources, progress: ProgressCallback
) -> Imatrix:
    """The importance matrix of a model on sequences of tokens, i64 [sequences, length].

    Args:
        checkpoint: the model.
        tokens: i64 [sequences, length].
        names: of the texts they come from.
        resources: where to compute.
        progress: told layers done.
    """
    from gemmaq.calibration.statistics import squares
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import open_device

    with open_device(resources.device, resources.threads) as device, decoder(checkpoint, device) as model:
        sums = squares(model, tokens, progress)
    entries = {
        checkpoint.family.names.to_gguf(name): files.Entry(found.astype(np.float32), tokens.size)
        for name, found in sums.items()
    }
    return Imatrix(entries, names, *tokens.shape)


def sequences(checkpoint: Checkpoint, text: Text, calibration: Calibration) -> Tokens:
    """Tokens to calibrate on, i64 [sequences, length].

    Raises:
        InputError: the context is longer than the model's, or there is too little text.
    """
    from gemmaq.inference import tokenize

    most = checkpoint.config.max_position_embeddings
    if calibration.context > most:
        raise InputError(f"a context of {calibration.context} is longer than the model's {most}")
    limit = max(1, calibration.tokens // calibration.context)
    return tokenize.calibration(text, tokenize.load_encoder(checkpoint), length=calibration.context, limit=limit)


def _weights(
    plans: Sequence[Plan], checkpoint: Checkpoint, basis: Basis, resources: Resources, progress: ProgressCallback
) -> Callable[[PlannedTensor], PlannedTensor]:
    """A function that attaches column importances to a planned tensor."""
    imatrix = basis.imatrix
    if imatrix is not None:
        files.check(imatrix, checkpoint)
    elif basis.text is not None:
        tokens = sequences(checkpoint, basis.text, basis.calibration)
        imatrix = importance(checkpoint, tokens, basis.text.names, resources=resources, progress=progress)
    else:
        raise UsageError("method importance needs an importance matrix or text", "--imatrix FILE, or --text FILE")
    to_gguf = checkpoint.family.names.to_gguf
    names = {p.source.name for plan in plans for p in plan.tensors if p.choice.method == "importance"}
    importances = {name: Importance(imatrix.importance(to_gguf(name))) for name in names}

    def weigh(planned: PlannedTensor) -> PlannedTensor:
        return replace(planned, choice=replace(planned.choice, importance=importances[planned.source.name]))

    return weigh


def _solve(
    planned: Mapping[str, PlannedTensor],
    checkpoint: Checkpoint,
    basis: Basis,
    resources: Resources,
    *,
    store: Store,
    progress: ProgressCallback,
) -> Mapping[str, Tensor]:
    """Choose the codes of every matrix whose method is gptq."""
    from gemmaq.calibration.gptq import Settings
    from gemmaq.calibration.layerwise import solve
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import open_device

    assert basis.text is not None
    tokens = sequences(checkpoint, basis.text, basis.calibration)
    settings = Settings(basis.calibration.damping, act_order=basis.calibration.order == "importance")
    with open_device(resources.device, resources.threads) as device, decoder(checkpoint, device) as model:
        return solve(model, tokens, planned, settings, store, progress)
