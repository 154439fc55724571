"""GPTQ layer by layer: each layer is calibrated on what the layers before it give with the weights of the source.

So nothing that is chosen depends on what else is: one run solves a matrix for several types at once, each as a run for
this type alone does. Errors of earlier layers could be made good by later ones if these saw them, but on the real 270M
that was no better, and it costs a second pass through every layer (tests/benchmarks/methods_270m.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gemmaq import methods
from gemmaq.calibration import floor, gptq, head, hessians, shares
from gemmaq.calibration.activations import Inputs, mirror, sites, stacks
from gemmaq.calibration.gptq import Blocks
from gemmaq.calibration.resume import Kept
from gemmaq.calibration.store import Problem, Store, by_blocks, packed
from gemmaq.checkpoint import Tensor
from gemmaq.errors import InputError
from gemmaq.inference.peers import ALONE, Peers
from gemmaq.methods import Choice
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from gemmaq.encodings import F32, U8, Quantized
    from gemmaq.inference.batch import Batch
    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.documents import Tokens


@dataclass(frozen=True, slots=True)
class Solved:
    """Codes that were chosen.

    Attributes:
        tensors: codes and scales in the store.
        counts: canonical name of a stack -> tokens that every expert saw, i64 [experts].
    """

    tensors: Mapping[Problem, Tensor]
    counts: Mapping[str, NDArray[np.int64]]

    def warnings(self, problems: Sequence[Problem]) -> tuple[str, ...]:
        """A sentence for each thing that users of these codes should know."""
        of_layers = {p.source.place.layer: self.counts[p.source.name] for p in problems if p.source.name in self.counts}
        return floor.told(list(of_layers.values()), floor.LEAST_SOLVED, "they are rounded to nearest")


def quantize(
    decoder: Decoder,
    tokens: Tokens,
    problems: Sequence[Problem],
    *,
    settings: gptq.Settings,
    store: Store,
    progress: ProgressCallback,
    peers: Peers = ALONE,
    kept: Kept | None = None,
) -> Solved:
    """Choose the codes of matrices of the layers, and of the head.

    Memory holds one layer, the Hessians of its inputs, one inverse, and the activations of all tokens. Several
    processes each have some sequences, and their inputs of a layer; the codes are the same.

    Args:
        decoder: the model.
        tokens: i64 [sequences, length] to calibrate on.
        problems: what to solve; one matrix may be there in several types.
        settings: settings of GPTQ.
        store: keeps codes and scales on disk, in the main process.
        progress: called after every layer.
        peers: the processes that share the work.
        kept: keeps every layer that is done in the folder of the store, and goes on behind those that are; None for
            neither. The head is always solved anew.

    Returns:
        What was solved, in the main process; in the others nothing.

    Raises:
        InputError: activations are not finite, or the Hessian of some inputs cannot be inverted.
    """
    run = _Run(decoder, settings, store, peers)
    for problem in problems:
        run.wanted.setdefault(problem.source.name, {})[problem] = None
    share = peers.share(len(tokens), hessians.unit(decoder, tokens.shape[1]))
    batches, first = decoder.embed(tokens, share), share.start // decoder.device.batch
    for index in range(run.begin(kept, batches, first), decoder.layers):
        run.layer(index, batches)
        if kept is not None:
            kept.close(index + 1, batches, first, {name: counts.tolist() for name, counts in run.counts.items()})
        progress(Progress("calibrating", index + 1, decoder.layers, "layers"))
    behind = partial(head.quantize, settings=settings, store=store, progress=progress, peers=peers)
    run.solved.update(behind(decoder, batches, run.behind))
    return Solved(run.solved, run.counts)


@dataclass(frozen=True, slots=True)
class _Share:
    """What one process solves of a matrix.

    Attributes:
        problem: the matrix and its type.
        rows: all rows, or some if several processes share the matrix: rows do not depend on each other.
        number: place of the result among those of the problem: the first row, or the number of an expert.
    """

    problem: Problem
    rows: slice
    number: int


@dataclass(frozen=True, slots=True)
class _Run:
    """GPTQ of one model.

    Attributes:
        decoder, settings, store, peers: see `quantize`.
        wanted: canonical name -> problems of a matrix, in a dict to be distinct and in order.
        solved, counts: see `Solved`.
        made: what this process of several has solved of a layer: stem of the problem, number of the share, and what the
            store keeps.
    """

    decoder: Decoder
    settings: gptq.Settings
    store: Store
    peers: Peers
    wanted: dict[str, dict[Problem, None]] = field(default_factory=dict)
    solved: dict[Problem, Tensor] = field(default_factory=dict)
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    made: list[tuple[str, int, list[U8]]] = field(default_factory=list)

    def begin(self, kept: Kept | None, batches: list[Batch], first: int) -> int:
        """Go on with what was kept of layers that are done; returns their number."""
        if kept is None:
            return 0
        done, counts = kept.begin()
        self.counts.update((name, np.array(numbers)) for name, numbers in counts.items())
        every = [problem for problems in self.wanted.values() for problem in problems]
        solved = [p for p in every if p.source.place.layer is not None and p.source.place.layer < done]
        if self.peers.main:
            self.solved.update((problem, self.store.tensor(problem)) for problem in solved)
        if done:
            kept.restore(done, batches, first)
        return done

    def problems(self, index: int, parts: Sequence[str]) -> list[Problem]:
        """What has to be solved of some parts of a layer."""
        names = self.decoder.checkpoint.family.names
        return [problem for part in parts for problem in self.wanted.get(names.in_layer(index, part), ())]

    @property
    def behind(self) -> list[Problem]:
        """What has to be solved behind the layers."""
        checkpoint = self.decoder.checkpoint
        return [*self.wanted.get((checkpoint.head or checkpoint.embedding).name, ())]

    def layer(self, index: int, batches: list[Batch]) -> None:
        """Solve the matrices of one layer, and replace its inputs by its outputs."""
        decoder, module = self.decoder, self.decoder.layer(index)
        parts = sites(decoder.checkpoint, index)
        wanted = {site: problems for site in parts if (problems := self.problems(index, parts[site]))}
        stacked = set(stacks(decoder.checkpoint, index))
        columns = {site: None if stacked & _parts(wanted[site]) else wanted[site][0].source.columns for site in wanted}
        of_site, routed, after = hessians.of_layer(decoder, module, index, batches, columns=columns, peers=self.peers)
        for batch, hidden in zip(batches, after, strict=True):
            batch.hidden = hidden
        for site, hessian, some in self.shared({site: wanted[site] for site in wanted if site not in routed}, of_site):
            where = decoder.checkpoint.family.names.in_layer(index, site).removesuffix(".weight")
            names = _parts([share.problem for share in some])
            weights = {part: module.get_parameter(f"{part}.weight").cpu().numpy() for part in names}
            self.solve(mirror(hessian), weights, some, where)
            del hessian
        for site, inputs in routed.items():
            self.experts(module.get_submodule(site), index, inputs)
        self.collect({problem.stem: problem for problems in wanted.values() for problem in problems})

    def shared(
        self, wanted: Mapping[str, list[Problem]], of_site: dict[str, torch.Tensor]
    ) -> Iterator[tuple[str, torch.Tensor, list[_Share]]]:
        """What this process solves of a layer: site, X^T X of its inputs, upper triangle, and shares of matrices."""
        every = [(site, share) for site, problems in wanted.items() for p in problems for share in self.divided(p)]
        pieces = []
        for site, share in every:
            rows, source = share.rows.stop - share.rows.start, share.problem.source
            group = site, Blocks.of(share.problem.encoding)
            pieces.append(shares.solving(rows, source.columns, group, self.settings.sweeps))
        of_rank = dict[tuple[str, int], list[_Share]]()
        for (site, share), rank in zip(every, shares.shared_out(pieces, self.peers.size), strict=True):
            of_rank.setdefault((site, rank), []).append(share)
        mine: dict[str, torch.Tensor] = {}
        for site, problems in wanted.items():
            owners = [rank for rank in range(self.peers.size) if (site, rank) in of_rank]
            whole = hessians.delivered(of_site.pop(site, None), problems[0].source.columns, owners, self.peers)
            if whole is not None:
                mine[site] = whole
            del whole
        for site in tuple(mine):
            yield site, mine.pop(site), of_rank[site, self.peers.rank]

    def divided(self, problem: Problem) -> list[_Share]:
        """A matrix in as many shares as there are processes, each of whole lanes of rows."""
        rows, each = problem.source.rows, gptq.LANES * self.peers.size
        step = gptq.LANES * max(1, -(-rows // each))
        return [_Share(problem, slice(at, min(at + step, rows)), at) for at in range(0, rows, step)]

    def solve(self, H: torch.Tensor, weights: Mapping[str, F32], some: Sequence[_Share], where: str) -> None:
        """Solve shares of matrices with the same inputs, whose Hessian is H, or of one expert."""
        device = self.decoder.device
        for blocks, problems in by_blocks(dict.fromkeys(share.problem for share in some)).items():
            try:
                inverse = gptq.invert(H, self.settings, blocks=blocks, device=device)
            except InputError as error:
                raise error.at(path=where) from error
            for share in (share for share in some if share.problem in problems):
                problem = share.problem
                W, encoding = weights[problem.source.place.part][share.rows], problem.encoding
                run = partial(gptq.quantize, portable=problem.portable, sweeps=self.settings.sweeps)
                self.keep(problem, share.number, run(W, inverse, encoding, device=device))
            del inverse  # as large as the Hessian: it must be gone when the next one is made

    def keep(self, problem: Problem, number: int, values: Quantized) -> None:
        """Store codes and scales of a matrix, or keep them until all processes are through with the layer."""
        if self.peers.size == 1:
            self.store.append(problem, packed(problem, values))
        else:
            self.made.append((problem.stem, number, packed(problem, values)))

    def collect(self, problems: Mapping[str, Problem]) -> None:
        """Store what all processes have solved of a layer, by the stems of its problems."""
        everything = self.peers.gather([*self.made]) if self.peers.size > 1 else []
        self.made.clear()
        for stem, _, arrays in sorted((one for some in everything for one in some), key=lambda one: one[1]):
            self.store.append(problems[stem], arrays)
        if self.peers.main:
            self.solved.update((problem, self.store.tensor(problem)) for problem in problems.values())

    def experts(self, module: torch.nn.Module, index: int, inputs: Inputs) -> None:
        """Solve the experts of a layer, one after the other.

        Args:
            module: the experts.
            index: number of the layer.
            inputs: their inputs.
        """
        checkpoint = self.decoder.checkpoint
        wanted = {part: self.problems(index, [part]) for part in stacks(checkpoint, index)}
        counts = inputs.counts(next(iter(stacks(checkpoint, index).values())).shape[0])
        self.counts.update((problem.source.name, counts) for problems in wanted.values() for problem in problems)
        for expert in range(self.peers.rank, len(counts), self.peers.size):
            parts = checkpoint.family.modules.expert_inputs(module, expert, inputs.of_expert(expert))
            for part, problems in wanted.items():
                weights = module.get_parameter(part.rpartition(".")[2])[expert].cpu().numpy()
                self.expert(weights, parts[part], problems, expert)

    def expert(self, W: F32, inputs: torch.Tensor, problems: Sequence[Problem], expert: int) -> None:
        """Choose the codes of one expert's matrix, f32 [rows, columns]; by rounding if it has too few inputs."""
        import torch

        if len(inputs) < floor.LEAST_SOLVED:
            for problem in problems:
                self.keep(problem, expert, methods.quantize(W, problem.encoding, Choice("nearest", problem.portable)))
        elif problems:
            hessian = torch.zeros(W.shape[1], W.shape[1], device=inputs.device)
            hessians.add_products(hessian, inputs, self.decoder.device)
            source, some = problems[0].source, [_Share(problem, slice(None), expert) for problem in problems]
            self.solve(mirror(hessian), {source.place.part: W}, some, f"{source.name}, expert {expert}")


def _parts(problems: Sequence[Problem]) -> set[str]:
    return {problem.source.place.part for problem in problems}
