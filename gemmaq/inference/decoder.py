"""Run a checkpoint layer by layer: memory holds one decoder layer and the activations, whatever the model's size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.checkpoint.rows import weights
from gemmaq.errors import InputError
from gemmaq.files.span import Reader
from gemmaq.inference.device import Device, aligned, silence_transformers

if TYPE_CHECKING:
    import torch

    from gemmaq.encodings import F32
    from gemmaq.inference.documents import Tokens

_SLAB = 1 << 22
"""Weights that are decoded at a time."""


@dataclass(frozen=True)
class Decoder:
    """A model whose layers are loaded one at a time.

    Attributes:
        checkpoint: The model.
        device: Device that computes.
        config: Configuration object of transformers.
        reader: Reader of the weight files.
    """

    checkpoint: Checkpoint
    device: Device
    config: Any
    reader: Reader

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return self.checkpoint.config.num_hidden_layers

    def embed(self, tokens: Tokens) -> list[torch.Tensor]:
        """Input of the first layer for sequences of tokens, i64 [sequences, length].

        Returns:
            Batches, f32 [batch, length, hidden].

        Raises:
            InputError: A token is not in the vocabulary.
        """
        import torch

        tensor = self.checkpoint.embedding
        distinct, places = np.unique(tokens, return_inverse=True)
        if distinct[0] < 0 or distinct[-1] >= tensor.rows:
            raise InputError(f"token {distinct[-1]} is not in the model's vocabulary of {tensor.rows}")
        rows = np.concatenate([weights(tensor, int(at), 1, self.reader) for at in distinct])
        with np.errstate(over="ignore"):  # an error where the activations are checked
            rows *= np.float32(self.checkpoint.family.modules.embedding_scale(self.checkpoint.config))
        places = places.reshape(tokens.shape)
        step = self.device.batch
        batches = (torch.from_numpy(rows[places[at : at + step]]) for at in range(0, len(tokens), step))
        return [batch.clone().to(self.device.torch_device) for batch in batches]

    def layer(self, index: int) -> torch.nn.Module:
        """Load a decoder layer in f32 on the device."""
        import torch

        with torch.device("meta"):
            module: torch.nn.Module = self.checkpoint.family.modules.decoder_layer(self.config, index)
        state = {
            f"{part}.weight": torch.from_numpy(self.read(tensor)).to(self.device.torch_device)
            for part, tensor in self.checkpoint.layer(index).items()
        }
        module.load_state_dict(state, assign=True)
        return module.eval()

    def read(self, tensor: Tensor) -> F32:
        """Read all weights of a tensor, f32 in its shape.

        Raises:
            InputError: It cannot be read, or holds NaN or infinite weights.
        """
        whole: F32 = aligned(tensor.rows, tensor.columns).numpy()
        step = max(1, _SLAB // tensor.columns)
        for first in range(0, tensor.rows, step):
            count = min(step, tensor.rows - first)
            whole[first : first + count] = weights(tensor, first, count, self.reader)
        if not np.isfinite(whole).all():
            raise InputError("holds NaN or infinite weights", path=tensor.span, tensor=tensor.name)
        if tensor.shift:
            whole += np.float32(tensor.shift)
        return whole.reshape(tensor.shape)

    def forward(self, module: torch.nn.Module, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Output of a layer for its input, both f32 [batch, length, hidden]; sequences have no padding."""
        import torch

        modules = self.checkpoint.family.modules
        kind = modules.attention_kinds(self.config)[index]
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        rotary = modules.rotary_embedding(self.config).to(hidden.device)
        out = module(
            hidden,
            position_embeddings=rotary(hidden, positions, kind),
            attention_mask=modules.attention_mask(self.config, kind, hidden, positions),
            position_ids=positions,
        )
        return out if isinstance(out, torch.Tensor) else out[0]

    def through(self, module: torch.nn.Module, index: int, hidden: list[torch.Tensor]) -> None:
        """Replace the input of a layer by its output, batch by batch.

        Raises:
            InputError: The output is not finite.
        """

        def run(at: int) -> None:
            hidden[at] = self.checked(index, self.forward(module, index, hidden[at]))

        self.device.map(run, range(len(hidden)))

    def checked(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Check that the output of a layer is finite, and return it.

        Raises:
            InputError: It is not.
        """
        if not bool(hidden.isfinite().all()):
            raise InputError(
                f"the activations after layer {index} are not finite",
                "the weights are damaged, or not those of this configuration",
                path=self.checkpoint.location,
            )
        return hidden

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """Input of the head: the last layer's output behind the final norm."""
        import torch

        checkpoint = self.checkpoint
        weight = torch.from_numpy(self.read(checkpoint.final_norm)).to(hidden.device)
        normed: torch.Tensor = checkpoint.family.modules.rms_norm(hidden, weight, checkpoint.config.rms_norm_eps)
        return normed


@contextmanager
def decoder(checkpoint: Checkpoint, device: Device) -> Iterator[Decoder]:
    """Open a checkpoint for running it.

    Raises:
        NotFoundError: A weight file is missing.
        InputError: A weight file cannot be read.
    """
    silence_transformers()
    with Reader() as reader:
        reader.open([part.span for tensor in checkpoint.tensors.values() for part in tensor.parts])
        yield Decoder(checkpoint, device, checkpoint.family.modules.hf_config(checkpoint.config), reader)
