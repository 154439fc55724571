"""What layers take besides the hidden state, in a network: computed from the embedding, which may be in training.

The tables behind it stay as they are. They hold rows for every token of the vocabulary, of which a network keeps those
of the text.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from gemmaq.inference.decoder import Decoder


def make(decoder: Decoder, tokens: NDArray[np.int64], dtype: Any) -> nn.Module:
    """A module that computes them: (ids, embedded) -> f32 [batch, length, width] for each layer, None for none.

    Args:
        decoder: gives the weights.
        tokens: distinct tokens of the text, i64 [tokens].
        dtype: dtype of matrix products.
    """
    module: nn.Module = _module_class()(decoder, tokens, dtype)
    return module


@cache
def _module_class() -> Any:
    """The class; it is created once torch is imported."""
    import torch
    from torch import nn
    from torch.nn import functional

    class LayerInputs(nn.Module):
        """Rows of tables and whole tensors outside the layers, in BF16 but for vectors."""

        places: torch.Tensor

        def __init__(self, decoder: Decoder, tokens: NDArray[np.int64], dtype: Any) -> None:
            super().__init__()
            self.config, self.modules_of = decoder.checkpoint.config, decoder.checkpoint.family.modules
            self.dtype = dtype
            self.names = {tensor.name: f"outside_{number}" for number, tensor in enumerate(decoder.outside)}
            self.tables = {tensor.name for tensor in decoder.outside if tensor.place.role.is_table}
            for tensor in decoder.outside:
                values = decoder.rows(tensor, tokens) if tensor.name in self.tables else decoder.read(tensor)
                kept = torch.from_numpy(values).to(torch.bfloat16 if len(tensor.shape) > 1 else torch.float32)
                self.register_buffer(self.names[tensor.name], kept, persistent=False)
            places = torch.full((self.config.vocab_size if self.names else 0,), -1)
            if self.names:
                places[torch.from_numpy(tokens)] = torch.arange(len(tokens))
            self.register_buffer("places", places, persistent=False)

        def forward(self, ids: torch.Tensor, embedded: torch.Tensor) -> Any:
            if not self.names:
                return [None] * self.config.num_hidden_layers
            weights = {}
            for name, at in self.names.items():
                held = self.get_buffer(at)
                rows = functional.embedding(self.places[ids], held) if name in self.tables else held
                weights[name] = rows.to(self.dtype if held.dim() > 1 and name not in self.tables else torch.float32)
            made: torch.Tensor = self.modules_of.layer_inputs(self.config, embedded, weights)
            return made.float().unbind(-2)

    return LayerInputs
