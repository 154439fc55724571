"""The model whose norms are tuned: losses of sequences, and gradients of its norm weights.

It is held in memory, or read a layer at a time, twice a step: once forward and once, with every layer computed again,
backward. Both give the same numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gemmaq.inference.batch import Batch
from gemmaq.models.roles import Role

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.inference.decoder import Decoder

Loss = Callable[["torch.Tensor", int], "torch.Tensor"]
"""Inputs of the head, f32 [tokens, hidden], and the number of their sequence -> the loss, f32 []."""
Gradients = tuple[float, tuple["torch.Tensor", ...]]
"""Loss of a sequence, and its gradients in the order of `Student.norms`."""


class Student(ABC):
    """A model of which only norms are trained.

    Attributes:
        decoder: the model in the weights that will be written.
        inputs: input of the first layer for every sequence.
        loss: what is made lower.
        norms: canonical name -> weights in training, f32, the final norm last.
    """

    def __init__(self, decoder: Decoder, inputs: Sequence[Batch], loss: Loss) -> None:
        """Read the norms."""
        import torch

        self.decoder, self.inputs, self.loss = decoder, inputs, loss
        checkpoint = decoder.checkpoint
        tensors = [
            t for at in range(decoder.layers) for t in checkpoint.layer(at).values() if t.place.role is Role.NORM
        ]
        self.norms = {t.name: torch.nn.Parameter(decoder.read_to_device(t)) for t in (*tensors, checkpoint.final_norm)}

    @abstractmethod
    def gradients(self, sequences: Sequence[int]) -> list[Gradients]:
        """Losses of sequences and the gradients of the norms."""

    @abstractmethod
    def losses(self, sequences: Sequence[int]) -> list[float]:
        """Losses of sequences."""

    def module(self, index: int) -> nn.Module:
        """Load a layer with the norms in training."""
        module = self.decoder.layer(index).requires_grad_(False)
        for part, tensor in self.decoder.checkpoint.layer(index).items():
            if tensor.place.role is Role.NORM:
                place, _, name = (part if tensor.name.endswith(part) else f"{part}.weight").rpartition(".")
                setattr(module.get_submodule(place), name, self.norms[tensor.name])
        return module

    def behind_layers(self, hidden: torch.Tensor, sequence: int) -> torch.Tensor:
        """The loss of what the last layer returned."""
        checkpoint = self.decoder.checkpoint
        weight = self.norms[checkpoint.final_norm.name]
        normed = checkpoint.family.modules.rms_norm(hidden, weight, checkpoint.config.rms_norm_eps)
        return self.loss(normed.flatten(0, 1), sequence)


class Resident(Student):
    """A student in memory as a whole."""

    def __init__(self, decoder: Decoder, inputs: Sequence[Batch], loss: Loss) -> None:
        """Read the model."""
        super().__init__(decoder, inputs, loss)
        self.modules = [self.module(index) for index in range(decoder.layers)]

    def gradients(self, sequences: Sequence[int]) -> list[Gradients]:
        """Losses of sequences and the gradients of the norms."""
        import torch

        def run(sequence: int) -> Gradients:
            with torch.enable_grad():
                loss = self._whole(sequence)
                return float(loss.detach()), torch.autograd.grad(loss, list(self.norms.values()))

        return self.decoder.device.map(run, sequences)

    def losses(self, sequences: Sequence[int]) -> list[float]:
        """Losses of sequences."""
        return self.decoder.device.map(lambda sequence: float(self._whole(sequence)), sequences)

    def _whole(self, sequence: int) -> torch.Tensor:
        batch = _anew(self.inputs[sequence])
        for index, module in enumerate(self.modules):
            batch.hidden = self.decoder.forward(module, index, batch)
        return self.behind_layers(batch.hidden, sequence)


class Streamed(Student):
    """A student of which one layer is in memory at a time."""

    def gradients(self, sequences: Sequence[int]) -> list[Gradients]:
        """Losses of sequences and the gradients of the norms; every layer is read twice."""
        import torch

        batches = [_anew(self.inputs[sequence]) for sequence in sequences]
        before = self._forward(batches, keep=True)
        final = self.decoder.checkpoint.final_norm.name

        def behind(at: int) -> tuple[float, torch.Tensor, torch.Tensor]:
            with torch.enable_grad():
                hidden = batches[at].hidden.requires_grad_()
                loss = self.behind_layers(hidden, sequences[at])
                below, norm = torch.autograd.grad(loss, [hidden, self.norms[final]])
                return float(loss.detach()), below, norm

        ends = self.decoder.device.map(behind, range(len(batches)))
        slopes = [_Slopes(hidden, {final: norm}) for _, hidden, norm in ends]
        for index in reversed(range(self.decoder.layers)):
            module = self.module(index)
            own = [t.name for t in self.decoder.checkpoint.layer(index).values() if t.place.role is Role.NORM]

            def back(at: int, module: nn.Module = module, index: int = index, own: Sequence[str] = own) -> None:
                weights = {name: self.norms[name] for name in own}
                slopes[at].back(before[index][at], weights, lambda b: self.decoder.forward(module, index, b))

            self.decoder.device.map(back, range(len(batches)))
            before[index].clear()
        ordered = [tuple(each.norms[name] for name in self.norms) for each in slopes]
        return [(loss, gradients) for (loss, _, _), gradients in zip(ends, ordered, strict=True)]

    def losses(self, sequences: Sequence[int]) -> list[float]:
        """Losses of sequences; every layer is read once."""
        batches = [_anew(self.inputs[sequence]) for sequence in sequences]
        self._forward(batches, keep=False)
        together = list(zip(batches, sequences, strict=True))
        return self.decoder.device.map(lambda pair: float(self.behind_layers(pair[0].hidden, pair[1])), together)

    def _forward(self, batches: Sequence[Batch], *, keep: bool) -> list[list[Batch]]:
        """Run batches through all layers; what each layer was given, if that is to be kept."""
        kept = []
        for index in range(self.decoder.layers):
            kept.append([_anew(batch) for batch in batches] if keep else [])
            self.decoder.through(self.module(index), index, batches)
        return kept


class _Slopes:
    """Gradients of one sequence's loss on their way back.

    Attributes:
        hidden: that of the output of the layer below, f32 [1, tokens, hidden].
        norms: those of norm weights above it, by canonical name.
        shared: those of keys and values that layers above it were given.
    """

    def __init__(self, hidden: torch.Tensor, norms: dict[str, torch.Tensor]) -> None:
        self.hidden, self.norms = hidden, norms
        self.shared: dict[str, tuple[torch.Tensor, ...]] = {}

    def back(self, given: Batch, weights: dict[str, nn.Parameter], forward: Callable[[Batch], torch.Tensor]) -> None:
        """Go back through a layer, which is computed again."""
        import torch

        def leaf(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.detach().requires_grad_()

        with torch.enable_grad():
            shared = {name: tuple(map(leaf, parts)) for name, parts in given.shared.items()}
            batch = Batch(leaf(given.hidden), given.places, given.inputs, shared)
            hidden, outputs, above = batch.hidden, [forward(batch)], [self.hidden]
            for name, parts in self.shared.items():
                outputs += batch.shared[name]
                above += parts
            inputs = [hidden, *weights.values(), *(part for parts in shared.values() for part in parts)]
            found = iter(torch.autograd.grad(outputs, inputs, above, materialize_grads=True))
        self.hidden = next(found)
        self.norms |= {name: next(found) for name in weights}
        self.shared = {name: tuple(next(found) for _ in parts) for name, parts in shared.items()}


def _anew(batch: Batch) -> Batch:
    """A batch that goes its own way through layers; the tensors are the same."""
    return Batch(batch.hidden, batch.places, batch.inputs, batch.shared)
