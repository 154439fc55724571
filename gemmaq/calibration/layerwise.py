"""GPTQ layer by layer: each layer is calibrated on what the layers before it give with the weights of the source.

So nothing that is chosen depends on what else is: one run solves a matrix for several types at once, each as a run for
this type alone does. Errors of earlier layers could be made good by later ones if these saw them, but on the real 270M
that was no better, and it costs a second pass through every layer (tests/benchmarks/methods_270m.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gemmaq import methods
from gemmaq.calibration import floor, gptq, head
from gemmaq.calibration.activations import Inputs, add_products, gather, mirror, sites, stacks, together
from gemmaq.calibration.store import Problem, Store, by_blocks
from gemmaq.checkpoint import Tensor
from gemmaq.errors import InputError
from gemmaq.methods import Choice
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from gemmaq.encodings import F32
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
) -> Solved:
    """Choose the codes of matrices of the layers, and of the head.

    Memory holds one layer, the Hessians of its inputs, one inverse, and the activations of all tokens.

    Args:
        decoder: the model.
        tokens: i64 [sequences, length] to calibrate on.
        problems: what to solve; one matrix may be there in several types.
        settings: settings of GPTQ.
        store: keeps codes and scales on disk.
        progress: called after every layer.

    Raises:
        InputError: activations are not finite, or the Hessian of some inputs cannot be inverted.
    """
    run = _Run(decoder, settings, store)
    for problem in problems:
        run.wanted.setdefault(problem.source.name, {})[problem] = None
    batches = decoder.embed(tokens)
    for index in range(decoder.layers):
        run.layer(index, batches)
        progress(Progress("calibrating", index + 1, decoder.layers, "layers"))
    run.solved.update(head.quantize(decoder, batches, run.behind, settings=settings, store=store, progress=progress))
    return Solved(run.solved, run.counts)


@dataclass(frozen=True, slots=True)
class _Run:
    """GPTQ of one model.

    Attributes:
        decoder, settings, store: see `quantize`.
        wanted: canonical name -> problems of a matrix, in a dict to be distinct and in order.
        solved, counts: see `Solved`.
    """

    decoder: Decoder
    settings: gptq.Settings
    store: Store
    wanted: dict[str, dict[Problem, None]] = field(default_factory=dict)
    solved: dict[Problem, Tensor] = field(default_factory=dict)
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)

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
        wanted = {site: self.problems(index, parts) for site, parts in sites(decoder.checkpoint, index).items()}
        needed = [site for site, problems in wanted.items() if problems]
        hessians, routed, after = _hessians(decoder, module, index, batches, needed)
        for batch, hidden in zip(batches, after, strict=True):
            batch.hidden = hidden
        for site in tuple(hessians):
            where = decoder.checkpoint.family.names.in_layer(index, site).removesuffix(".weight")
            weights = {part: module.get_parameter(f"{part}.weight").cpu().numpy() for part in _parts(wanted[site])}
            self.solve(mirror(hessians.pop(site)), weights, wanted[site], where)
        for site, inputs in routed.items():
            self.experts(module.get_submodule(site), index, inputs)
        self.solved.update((problem, self.store.tensor(problem)) for site in needed for problem in wanted[site])

    def solve(self, hessian: torch.Tensor, weights: Mapping[str, F32], problems: Sequence[Problem], where: str) -> None:
        """Solve the problems of an input site, or of an expert, with the Hessian of its inputs."""
        device = self.decoder.device
        for blocks, same in by_blocks(problems).items():
            try:
                inverse = gptq.invert(hessian, self.settings, blocks=blocks, device=device)
            except InputError as error:
                raise error.at(path=where) from error
            for problem in same:
                W, encoding = weights[problem.source.place.part], problem.encoding
                run = partial(gptq.quantize, portable=problem.portable, sweeps=self.settings.sweeps)
                self.store.append(problem, run(W, inverse, encoding, device=device))
            del inverse  # as large as the Hessian: it must be gone when the next one is made

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
        for expert in range(len(counts)):
            parts = checkpoint.family.modules.expert_inputs(module, expert, inputs.of_expert(expert))
            for part, problems in wanted.items():
                weights = module.get_parameter(part.rpartition(".")[2])[expert].cpu().numpy()
                self.expert(weights, parts[part], problems, expert)

    def expert(self, W: F32, inputs: torch.Tensor, problems: Sequence[Problem], expert: int) -> None:
        """Choose the codes of one expert's matrix, f32 [rows, columns]; by rounding if it has too few inputs."""
        import torch

        if len(inputs) < floor.LEAST_SOLVED:
            for problem in problems:
                self.store.append(problem, methods.quantize(W, problem.encoding, Choice("nearest", problem.portable)))
        elif problems:
            hessian = torch.zeros(W.shape[1], W.shape[1], device=inputs.device)
            add_products(hessian, inputs, self.decoder)
            source = problems[0].source
            self.solve(mirror(hessian), {source.place.part: W}, problems, f"{source.name}, expert {expert}")


def _parts(problems: Sequence[Problem]) -> set[str]:
    return {problem.source.place.part for problem in problems}


def _hessians(
    decoder: Decoder, module: torch.nn.Module, index: int, batches: list[Batch], needed: Sequence[str]
) -> tuple[dict[str, torch.Tensor], dict[str, Inputs], list[torch.Tensor]]:
    """What the inputs X of some sites of a layer say.

    Returns:
        X^T X of every site, f32 [columns, columns], upper triangles only; the inputs of experts; the activations after
        the layer.
    """
    import torch

    hessians: dict[str, torch.Tensor] = {}
    routed: dict[str, list[Inputs]] = {}

    def add(site: str, inputs: Inputs) -> None:
        values = inputs.values
        if site not in needed:
            return
        if inputs.chosen is not None:
            routed.setdefault(site, []).append(inputs)
            return
        if site not in hessians:
            hessians[site] = torch.zeros(values.shape[1], values.shape[1], device=values.device)
        add_products(hessians[site], values, decoder)

    after = gather(decoder, index, batches, module=module, take=add)
    return hessians, {site: together(parts) for site, parts in routed.items()}, after
