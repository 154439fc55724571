"""Complete plans with what calibrated methods need, before they are laid out."""

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
from gemmaq.methods import Importance, Needs, calibrated
from gemmaq.planning.plan import Plan, PlannedTensor
from gemmaq.planning.request import Calibration
from gemmaq.progress import ProgressCallback

if TYPE_CHECKING:
    from gemmaq.inference.documents import Tokens


@dataclass(frozen=True, slots=True)
class Basis:
    """Text or importance matrix that codes are calibrated on.

    Attributes:
        calibration: settings, and the digest of text or matrix.
        text: documents, None if there is an importance matrix.
        imatrix: importance matrix from a file, None if there is text.
    """

    calibration: Calibration
    text: Text | None
    imatrix: Imatrix | None


@dataclass(frozen=True, slots=True)
class Resources:
    """Device to compute on (None for the best one) and number of CPU threads."""

    device: str | None
    threads: int


def needed(plans: Sequence[Plan]) -> tuple[str, ...]:
    """Names of the calibrated methods in plans."""
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
    """Complete the tensors of calibrated methods: with the importance of their columns, or with their codes.

    Args:
        plans: one for each container.
        checkpoint: the source.
        basis: text or importance matrix to calibrate on.
        resources: where to compute.
        near: path beside which codes are kept on disk until the context ends.
        progress: called after every layer.

    Raises:
        UsageError: torch or transformers is missing, or a method cannot be calibrated on this basis.
        InputError: text or importance matrix do not fit the model.
        OutputError: the codes cannot be stored.
    """
    needs = {tensor.needs: tensor.choice.method for plan in plans for tensor in plan.tensors}
    if Needs.IMPORTANCE in needs:
        weigh = _weights(plans, checkpoint, basis, resources=resources, progress=progress)
        plans = [_changed(plan, Needs.IMPORTANCE, weigh) for plan in plans]
    if Needs.HESSIAN not in needs:
        yield list(plans)
        return
    if basis.text is None:
        raise UsageError(
            f"method {needs[Needs.HESSIAN]} needs text to calibrate on",
            "an importance matrix is not enough: --text FILE",
        )
    shared = _shared(plans)
    parent = next(p for p in near.absolute().parents if p.exists())
    with ExitStack() as stack:
        try:
            folder = tempfile.TemporaryDirectory(prefix=f"{near.name}.", suffix=".partial", dir=parent)
            store = Store(Path(stack.enter_context(folder)))
            solved = _solve(shared, checkpoint, basis, resources=resources, store=store, progress=progress)
        except OSError as error:
            raise OutputError(f"calibrated codes cannot be kept in {parent}: {error.strerror}") from error
        yield [_changed(plan, Needs.HESSIAN, lambda p: replace(p, solved=solved[p.source.name])) for plan in plans]


def _changed(plan: Plan, needs: Needs, change: Callable[[PlannedTensor], PlannedTensor]) -> Plan:
    """Change those tensors of a plan whose method has these needs."""
    return replace(plan, tensors=tuple(change(p) if p.needs is needs else p for p in plan.tensors))


def _shared(plans: Sequence[Plan]) -> dict[str, PlannedTensor]:
    """Canonical name -> plan of each matrix, which all containers share.

    Raises:
        InputError: containers differ in the encoding of a matrix to be calibrated.
    """
    planned: dict[str, PlannedTensor] = {}
    for plan in plans:
        for tensor in plan.tensors:
            if not tensor.source.place.role.is_quantizable:
                continue
            first = planned.setdefault(tensor.source.name, tensor)
            if tensor.needs is Needs.HESSIAN and tensor.encoding != first.encoding:
                raise InputError(
                    f"{tensor.source.name} would be {first.encoding.label} in one container and "
                    f"{tensor.encoding.label} in another, which cannot be calibrated together",
                    "convert for one container at a time, or choose a --quant that all hold",
                )
    return planned


def importance(
    checkpoint: Checkpoint, tokens: Tokens, names: tuple[str, ...], *, resources: Resources, progress: ProgressCallback
) -> Imatrix:
    """Compute the importance matrix of a model.

    Args:
        checkpoint: the model.
        tokens: i64 [sequences, length].
        names: names of the texts that the tokens come from.
        resources: where to compute.
        progress: called after every layer.
    """
    from gemmaq.calibration import statistics
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import open_device

    with open_device(resources.device, resources.threads) as device, decoder(checkpoint, device) as model:
        sums = statistics.squares(model, tokens, progress)
    to_gguf = checkpoint.family.names.to_gguf
    entries = {to_gguf(name): files.Entry(squares.astype(np.float32), tokens.size) for name, squares in sums.items()}
    return Imatrix(entries, names, *tokens.shape)


def sequences(checkpoint: Checkpoint, text: Text, calibration: Calibration) -> Tokens:
    """Tokenize the text to calibrate on: i64 [sequences, length].

    Raises:
        InputError: the context is longer than the model's, or there is too little text.
    """
    from gemmaq.inference import tokenize

    longest = checkpoint.config.max_position_embeddings
    if calibration.context > longest:
        raise InputError(
            f"a calibration context of {calibration.context} tokens is longer than the model's {longest}",
            f"--calibration-context {longest} is the most it takes",
        )
    limit = max(1, calibration.tokens // calibration.context)
    return tokenize.calibration(text, tokenize.load_encoder(checkpoint), length=calibration.context, limit=limit)


def _weights(
    plans: Sequence[Plan], checkpoint: Checkpoint, basis: Basis, *, resources: Resources, progress: ProgressCallback
) -> Callable[[PlannedTensor], PlannedTensor]:
    """Return a function that adds column importances to a planned tensor."""
    imatrix = basis.imatrix
    tensors = [tensor for plan in plans for tensor in plan.tensors if tensor.needs is Needs.IMPORTANCE]
    if imatrix is not None:
        files.check(imatrix, checkpoint)
    elif basis.text is not None:
        tokens = sequences(checkpoint, basis.text, basis.calibration)
        imatrix = importance(checkpoint, tokens, basis.text.names, resources=resources, progress=progress)
    else:
        method = tensors[0].choice.method
        raise UsageError(f"method {method} needs an importance matrix or text", "--imatrix FILE, or --text FILE")
    to_gguf = checkpoint.family.names.to_gguf
    names = {tensor.source.name for tensor in tensors}
    importances = {name: Importance(imatrix.importance(to_gguf(name))) for name in names}

    def weigh(planned: PlannedTensor) -> PlannedTensor:
        return replace(planned, choice=replace(planned.choice, importance=importances[planned.source.name]))

    return weigh


def _solve(
    planned: Mapping[str, PlannedTensor],
    checkpoint: Checkpoint,
    basis: Basis,
    *,
    resources: Resources,
    store: Store,
    progress: ProgressCallback,
) -> Mapping[str, Tensor]:
    """Choose the codes of every matrix whose method needs the Hessian of its inputs."""
    from gemmaq.calibration import layerwise
    from gemmaq.calibration.gptq import Settings
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import open_device

    assert basis.text is not None
    tokens = sequences(checkpoint, basis.text, basis.calibration)
    settings = Settings(basis.calibration.damping, act_order=basis.calibration.order == "importance")
    with open_device(resources.device, resources.threads) as device, decoder(checkpoint, device) as model:
        return layerwise.quantize(model, tokens, planned, settings=settings, store=store, progress=progress)
