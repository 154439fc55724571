"""Complete plans with what calibrated methods need, before they are laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from gemmaq.calibration import floor
from gemmaq.calibration import imatrix as files
from gemmaq.calibration.activations import sites
from gemmaq.calibration.imatrix import Imatrix
from gemmaq.calibration.resources import Resources, agree
from gemmaq.calibration.resume import GPTQ, IMPORTANCE, Kept, Passes, bytes_kept, check_room
from gemmaq.calibration.store import Problem, Store
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, OutputError, UsageError
from gemmaq.files.workplace import folder_beside
from gemmaq.inference.documents import Text
from gemmaq.methods import METHODS, Importance, Needs, calibrated
from gemmaq.models.family import Family
from gemmaq.models.identity import identify
from gemmaq.planning.plan import Plan, PlannedTensor
from gemmaq.planning.request import Calibration, Matrix
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from gemmaq.calibration.layerwise import Solved
    from gemmaq.inference.documents import Tokens

SWEEPS = 2
"""Passes of coordinate descent after GPTQ, unless others are asked for."""
ENOUGH = 32768
"""Tokens of text from which on they pay on other text, too."""
_HEADERS = 1 << 10
"""Bytes that the sums and numbers of inputs of a matrix take in a file besides the numbers themselves, at most."""


@dataclass(frozen=True, slots=True)
class Basis:
    """Text or importance matrix that codes are calibrated on.

    Attributes:
        calibration: settings, and the digest of text or matrix.
        text: documents, None if there is an importance matrix.
        imatrix: importance matrix from a file, None if there is text.
        tokens: the text's tokens, i64 [sequences, length]; None if it is not tokenized yet.
    """

    calibration: Calibration
    text: Text | None
    imatrix: Imatrix | None
    tokens: Tokens | None = None


def settled(
    basis: Basis, checkpoint: Checkpoint, *, methods: Iterable[str], file: str | None = None, keep: bool = False
) -> Basis:
    """What methods are calibrated on, with all that the result will say of it.

    Args:
        basis: text or importance matrix.
        checkpoint: the source.
        methods: names of the methods.
        file: name of the importance matrix's file, None for the usual one.
        keep: lay that file beside the model.

    Raises:
        InputError: the text does not fit the model.
    """
    matrix, tokens = basis.imatrix, None
    if matrix is None:
        tokens = sequences(checkpoint, basis)
        matrix = _blank(checkpoint, basis.calibration.texts, tokens)
    size = len(files.document(matrix)) if keep else 0
    told = Matrix(file or file_name(checkpoint), matrix.datasets, len(matrix.entries), matrix.chunks, size)
    weighs = any(METHODS[method].needs is Needs.IMPORTANCE for method in calibrated() if method in {*methods})
    used, sweeps = matrix.chunks * matrix.chunk_size, basis.calibration.sweeps
    if sweeps is None:
        solves = any(METHODS[name].needs is Needs.HESSIAN for name in methods if name in METHODS)
        sweeps = SWEEPS if solves and used >= ENOUGH else 0
    known = replace(basis.calibration, used=used, matrix=told if weighs else None, sweeps=sweeps)
    return replace(basis, calibration=known, tokens=tokens)


def _blank(checkpoint: Checkpoint, texts: tuple[str, ...], tokens: Tokens) -> Imatrix:
    """An importance matrix of the size of that to be computed, all zeros."""
    import numpy as np

    names, entries = checkpoint.family.names, {}
    for at in range(len(checkpoint.config.layers)):
        for part in chain(*sites(checkpoint, at).values()):
            tensor = checkpoint.tensors[names.in_layer(at, part)]
            counts = np.zeros(tensor.matrices, np.float32)
            sums = np.zeros(tensor.matrices * tensor.columns, np.float32)
            entries[names.to_gguf(tensor.name)] = files.Entry(sums, counts, counts if len(counts) > 1 else None)
    return Imatrix(entries, texts, len(tokens), tokens.shape[1])


def file_name(checkpoint: Checkpoint) -> str:
    """Name for the file of a model's importance matrix; llama.cpp takes no file with this word for a model."""
    return f"{identify(checkpoint.name).stem}.imatrix.gguf"


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
        plans: one for each container and type; what several of them want alike is chosen once.
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
    imatrix = None
    if Needs.IMPORTANCE in needs:
        imatrix = _imatrix(plans, checkpoint, basis, resources=resources, progress=progress)
    if imatrix is not None:
        plans = [_warned(_weighed(plan, imatrix, checkpoint.family), imatrix.warnings) for plan in plans]
    if Needs.HESSIAN not in needs:
        yield list(plans)
        return
    if basis.text is None:
        raise UsageError(
            f"method {needs[Needs.HESSIAN]} needs text to calibrate on",
            "an importance matrix is not enough: --text FILE",
        )
    problems = [problem for plan in plans for problem in _problems(plan)]
    if not resources.peers.main:
        _solve(problems, checkpoint, basis, resources=resources, store=Store(near), progress=progress)
        yield list(plans)
        return
    with ExitStack() as stack:
        try:
            if resources.work is not None:
                _check_room(resources.work, problems, checkpoint, basis)
                store = Store(Kept.files_in(resources.work / GPTQ))
            else:
                store = Store(stack.enter_context(folder_beside(near)))
            solved = _solve(problems, checkpoint, basis, resources=resources, store=store, progress=progress)
        except OSError as error:
            raise OutputError(
                f"calibrated codes cannot be kept in {near.absolute().parent}: {error.strerror}"
            ) from error
        yield [
            _warned(
                _changed(plan, Needs.HESSIAN, lambda p: replace(p, solved=solved.tensors[Problem.of(p)])),
                solved.warnings(_problems(plan)),
            )
            for plan in plans
        ]


def _check_room(work: Path, problems: Sequence[Problem], checkpoint: Checkpoint, basis: Basis) -> None:
    """Refuse to keep codes and activations where the disk does not hold them.

    Raises:
        OutputError: it does not.
    """
    codes = sum(p.source.rows * p.encoding.row_bytes(p.source.columns) for p in {*problems})
    check_room(work, bytes_kept(checkpoint.config, sequences(checkpoint, basis).size, codes))


def _changed(plan: Plan, needs: Needs, change: Callable[[PlannedTensor], PlannedTensor]) -> Plan:
    """Change those tensors of a plan whose method has these needs; a tied head that is repeated is one of them."""
    tensors, extra = (tuple(change(p) if p.needs is needs else p for p in some) for some in (plan.tensors, plan.extra))
    return replace(plan, tensors=tensors, extra=extra)


def _problems(plan: Plan) -> list[Problem]:
    """The matrices of a plan that have to be solved."""
    return [Problem.of(tensor) for tensor in plan.tensors if tensor.needs is Needs.HESSIAN]


def importance(
    checkpoint: Checkpoint,
    tokens: Tokens,
    names: tuple[str, ...],
    *,
    resources: Resources,
    progress: ProgressCallback,
    every: int | None = None,
) -> Iterator[Imatrix]:
    """Compute the importance matrix of a model, all sequences in one pass through it or some of them in each.

    Args:
        checkpoint: the model.
        tokens: i64 [sequences, length].
        names: names of the texts that the tokens come from.
        resources: where to compute.
        progress: called after every layer.
        every: number of sequences of a pass, None for all.

    Yields:
        The matrix of all sequences so far, after every pass; nothing in processes other than the main one.

    Raises:
        UsageError: processes that share the work differ in model, text or version.
        OutputError: the disk does not hold what is kept to go on after an interruption.
    """
    from gemmaq.calibration import statistics
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import open_device

    to_gguf, step, peers = checkpoint.family.names.to_gguf, every or len(tokens), resources.peers
    if resources.work is not None and peers.main:
        blank = _blank(checkpoint, names, tokens)
        sums_in_f64 = 2 * len(files.document(blank)) + _HEADERS * len(blank.entries)
        kept_sums = 3 * sums_in_f64  # of the passes before, with the one that ends, and of the layers of this one
        check_room(resources.work, bytes_kept(checkpoint.config, tokens[:step].size, kept_sums))
    job = agree(resources, checkpoint, tokens, f"importance, {step} sequences a pass")
    passes = None if resources.work is None else Passes(resources.work / IMPORTANCE, job, peers)
    start, sums = passes.begin() if passes is not None else (0, {})
    with open_device(resources.device, resources.threads) as device, decoder(checkpoint, device) as model:
        for at in range(start * step, len(tokens), step):
            kept = passes.layers(at // step, device) if passes is not None else None
            task = _pass(progress, at // step, -(-len(tokens) // step))
            for name, (more, count) in statistics.squares(model, tokens[at : at + step], task, peers, kept).items():
                before = sums.get(name, (0.0, 0))
                sums[name] = before[0] + more, before[1] + count
            if passes is not None and at + step < len(tokens):
                passes.close(at // step + 1, sums)
            if not peers.main:
                continue
            entries = {to_gguf(name): floor.entry(squares, counts) for name, (squares, counts) in sums.items()}
            done = min(at + step, len(tokens))
            yield Imatrix(entries, names, done, tokens.shape[1], floor.warnings(entries))


def _pass(progress: ProgressCallback, number: int, count: int) -> ProgressCallback:
    """Progress of one of several passes as that of all."""

    def report(of_pass: Progress) -> None:
        layers = of_pass.total or 0
        progress(replace(of_pass, done=number * layers + of_pass.done, total=count * layers))

    return report


def sequences(checkpoint: Checkpoint, basis: Basis) -> Tokens:
    """Tokens of the text to calibrate on, i64 [sequences, length]; tokenized unless the basis has them.

    Raises:
        InputError: the context is longer than the model's, or there is too little text.
    """
    from gemmaq.inference import tokenize

    if basis.tokens is not None:
        return basis.tokens
    assert basis.text is not None
    calibration, longest = basis.calibration, checkpoint.config.max_position_embeddings
    if calibration.context > longest:
        raise InputError(
            f"a calibration context of {calibration.context} tokens is longer than the model's {longest}",
            f"--calibration-context {longest} is the most it takes",
        )
    limit = max(1, calibration.tokens // calibration.context)
    encoder = tokenize.load_encoder(checkpoint)
    return tokenize.calibration(basis.text, encoder, length=calibration.context, limit=limit)


def _imatrix(
    plans: Sequence[Plan], checkpoint: Checkpoint, basis: Basis, *, resources: Resources, progress: ProgressCallback
) -> Imatrix | None:
    """The importance matrix that errors are weighed with: as given, or of the text; None in the other processes."""
    if basis.imatrix is not None:
        files.check(basis.imatrix, checkpoint)
        return basis.imatrix
    if basis.text is None:
        tensors = (tensor for plan in plans for tensor in plan.tensors if tensor.needs is Needs.IMPORTANCE)
        method = next(tensors).choice.method
        raise UsageError(f"method {method} needs an importance matrix or text", "--imatrix FILE, or --text FILE")
    tokens = sequences(checkpoint, basis)
    found = [*importance(checkpoint, tokens, basis.text.names, resources=resources, progress=progress)]
    return found[-1] if found else None


def _weighed(plan: Plan, imatrix: Imatrix, family: Family) -> Plan:
    """Add column importances to the tensors of a plan that need them."""

    def weigh(planned: PlannedTensor) -> PlannedTensor:
        source = planned.source
        columns = imatrix.importance(family.names.to_gguf(source.name))
        weights = Importance(columns.reshape(-1, source.columns) if source.matrices > 1 else columns)
        return replace(planned, choice=replace(planned.choice, importance=weights))

    kept = files.document(imatrix) if plan.matrix is not None and plan.matrix.size else None
    return replace(_changed(plan, Needs.IMPORTANCE, weigh), matrix_file=kept)


def _warned(plan: Plan, warnings: Sequence[str]) -> Plan:
    """Add warnings to a plan."""
    return replace(plan, warnings=(*plan.warnings, *warnings))


def _solve(
    problems: Sequence[Problem],
    checkpoint: Checkpoint,
    basis: Basis,
    *,
    resources: Resources,
    store: Store,
    progress: ProgressCallback,
) -> Solved:
    """Choose the codes of matrices with the Hessian of their inputs."""
    from gemmaq.calibration import layerwise
    from gemmaq.calibration.gptq import Settings
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import open_device

    tokens = sequences(checkpoint, basis)
    asked = basis.calibration
    settings = Settings(asked.damping, act_order=asked.order == "importance", sweeps=asked.sweeps or 0)
    stems = [problem.stem for problem in problems]
    peers = resources.peers
    job = agree(resources, checkpoint, tokens, repr((settings, stems)))
    with open_device(resources.device, resources.threads) as device, decoder(checkpoint, device) as model:
        kept = None if resources.work is None else Kept(resources.work / GPTQ, job, device, peers)
        run = partial(layerwise.quantize, settings=settings, store=store, progress=progress, peers=peers, kept=kept)
        return run(model, tokens, problems)
