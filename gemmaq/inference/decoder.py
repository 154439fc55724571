"""Run a checkpoint layer by layer: memory holds one decoder layer and the activations, whatever the model's size.

What layers need besides the hidden state is the family's: inputs that only depend on the token, and keys and values of
earlier layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Checkpoint, Tensor, spans_of
from gemmaq.checkpoint.rows import slabs, weights
from gemmaq.errors import InputError
from gemmaq.files.span import Reader
from gemmaq.inference.batch import Batch
from gemmaq.inference.device import Device, aligned, silence_transformers
from gemmaq.inference.kv_cache import KVCache, attention_with_cache

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from gemmaq.encodings import F32
    from gemmaq.inference.documents import Tokens

SLAB = 1 << 22
"""Weights that are decoded at a time."""
_TOKENS = 64
"""Tokens whose layer inputs are computed at a time, always as many: the order of sums may depend on the number."""


Rows = Callable[[Tensor, int, int, Reader], "F32"]
"""Reads rows of one matrix of a tensor: `checkpoint.rows.weights`, or a function that gives other weights for them."""


@dataclass(frozen=True)
class Decoder:
    """A model whose layers are loaded one at a time.

    Attributes:
        checkpoint: The model.
        device: Device that computes.
        config: Configuration object of transformers.
        reader: Reader of the weight files.
        weights: Reads rows of a tensor; a model in other weights has another function here.
        kv_cache: Types that keys and values go through, None to leave them as they are.
    """

    checkpoint: Checkpoint
    device: Device
    config: Any
    reader: Reader
    weights: Rows = weights
    kv_cache: KVCache | None = None

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return self.checkpoint.config.num_hidden_layers

    @property
    def outside(self) -> list[Tensor]:
        """Tensors outside the layers that layers get further inputs from; none in a model without such inputs."""
        names = self.checkpoint.family.names
        if not self.checkpoint.config.layer_embedding:
            return []
        others = (names.EMBEDDING, names.HEAD, names.FINAL_NORM)
        return [t for name, t in self.checkpoint.tensors.items() if t.place.layer is None and name not in others]

    def embed(self, tokens: Tokens, part: slice | None = None) -> list[Batch]:
        """Input of the first layer for sequences of tokens.

        Args:
            tokens: i64 [sequences, length].
            part: Sequences to give batches of, None for all; what is given does not depend on the others.

        Raises:
            InputError: A token is not in the vocabulary.
        """
        import torch

        tensor, family = self.checkpoint.embedding, self.checkpoint.family
        distinct, places = np.unique(tokens, return_inverse=True)
        if distinct[0] < 0 or distinct[-1] >= tensor.rows:
            raise InputError(f"token {distinct[-1]} is not in the model's vocabulary of {tensor.rows}")
        rows = self.rows(tensor, distinct)
        with np.errstate(over="ignore"):  # an error where the activations are checked
            rows *= np.float32(family.modules.embedding_scale(self.checkpoint.config))
        inputs = self._layer_inputs(distinct, rows)
        places, device = places.reshape(tokens.shape)[part or slice(None)], self.device.torch_device
        parts = [places[at : at + self.device.batch] for at in range(0, len(places), self.device.batch)]
        return [
            Batch(torch.from_numpy(rows[part]).clone().to(device), torch.from_numpy(part).to(device), inputs)
            for part in parts
        ]

    def rows(self, tensor: Tensor, ids: NDArray[np.int64]) -> F32:
        """Rows of a table for tokens, f32 [tokens, columns]."""
        return np.concatenate([self.weights(tensor, int(at), 1, self.reader) for at in ids])

    def _layer_inputs(self, ids: NDArray[np.int64], embedded: F32) -> torch.Tensor | None:
        """What layers take besides the hidden state, for tokens and their rows of the embedding.

        Returns:
            f32 [tokens, layers, width], None for a model whose layers take nothing else.
        """
        import torch

        if not self.outside:
            return None
        config, device = self.checkpoint.config, self.device.torch_device
        tables = [tensor for tensor in self.outside if tensor.place.role.is_table]
        whole = {t.name: self.read_to_device(t) for t in self.outside if t not in tables}
        result = torch.empty(len(ids), config.num_hidden_layers, config.layer_embedding, device=device)

        def run(first: int) -> None:
            part = np.resize(np.arange(first, min(first + _TOKENS, len(ids))), _TOKENS)
            rows = {table.name: torch.from_numpy(self.rows(table, ids[part])).to(device) for table in tables}
            states = aligned(_TOKENS, embedded.shape[1]).copy_(torch.from_numpy(embedded[part])).to(device)
            made = self.checkpoint.family.modules.layer_inputs(config, states, rows | whole)
            result[first : first + _TOKENS] = made[: len(ids) - first]

        self.device.map(run, range(0, len(ids), _TOKENS))
        return result

    def layer(self, index: int) -> torch.nn.Module:
        """Load a decoder layer in f32 on the device; the system reads the next one meanwhile."""
        import torch

        with torch.device("meta"):
            module: torch.nn.Module = self.checkpoint.family.modules.decoder_layer(self.config, index)
        state = {
            part + ("" if tensor.name.endswith(part) else ".weight"): self.read_to_device(tensor)
            for part, tensor in self.checkpoint.layer(index).items()
        }
        for tensor in self.checkpoint.layer(index + 1).values():
            for own in tensor.parts:
                own.expect(self.reader, tensor.rows)
        module.load_state_dict(state, assign=True)
        return module.eval()

    def read(self, tensor: Tensor) -> F32:
        """Read all weights of a tensor, f32 in its shape.

        Raises:
            InputError: It cannot be read, or holds NaN or infinite weights.
        """
        whole: F32 = aligned(tensor.rows, tensor.columns).numpy()
        for first, rows in self.read_slabs(tensor):
            whole[first : first + len(rows)] = rows
        return whole.reshape(tensor.shape)

    def read_slabs(self, tensor: Tensor, start: int = 0, step: int = 1) -> Iterator[tuple[int, F32]]:
        """Read a tensor some rows at a time; errors as in `read`.

        Args:
            tensor: What to read.
            start: Number of the first slab to read.
            step: Every so many slabs are read.

        Yields:
            Number of the first row, and f32 [rows, columns].
        """
        for first, count in islice(slabs(tensor, SLAB), start, None, step):
            rows = self.weights(tensor, first, count, self.reader)
            if not np.isfinite(rows).all():
                raise InputError("holds NaN or infinite weights", path=tensor.span, tensor=tensor.spelled)
            yield first, rows + np.float32(tensor.shift) if tensor.shift else rows

    def read_to_device(self, tensor: Tensor) -> torch.Tensor:
        """Read a tensor onto the device; see `read`."""
        import torch

        return torch.from_numpy(self.read(tensor)).to(self.device.torch_device)

    def forward(self, module: torch.nn.Module, index: int, batch: Batch) -> torch.Tensor:
        """Output of a layer, f32 [batch, length, hidden]; what it keeps for later layers goes to `batch`."""
        import torch

        modules, hidden = self.checkpoint.family.modules, batch.hidden
        kind = modules.attention_kinds(self.config)[index]
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        rotary = modules.rotary_embedding(self.config).to(hidden.device)
        out: torch.Tensor
        out, batch.shared = modules.run(
            module,
            hidden,
            batch.layer_input(index),
            batch.shared,
            {
                "position_embeddings": rotary(hidden, positions, kind),
                "attention_mask": modules.attention_mask(self.config, kind, hidden, positions),
                "position_ids": positions,
                **({} if self.kv_cache is None else {"kv_cache": self.kv_cache}),
            },
        )
        return out

    def through(self, module: torch.nn.Module, index: int, batches: Sequence[Batch]) -> None:
        """Replace the input of a layer by its output, batch by batch.

        Raises:
            InputError: The output is not finite.
        """

        def run(batch: Batch) -> None:
            batch.hidden = self.checked(index, self.forward(module, index, batch))

        self.device.map(run, batches)

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
        checkpoint = self.checkpoint
        weight = self.read_to_device(checkpoint.final_norm).to(hidden.device)
        normed: torch.Tensor = checkpoint.family.modules.rms_norm(hidden, weight, checkpoint.config.rms_norm_eps)
        return normed


@contextmanager
def decoder(checkpoint: Checkpoint, device: Device, kv_cache: KVCache | None = None) -> Iterator[Decoder]:
    """Open a checkpoint for running it.

    Args:
        checkpoint: The model.
        device: Device that computes.
        kv_cache: Types that keys and values go through, None to leave them as they are.

    Raises:
        NotFoundError: A weight file is missing.
        InputError: A weight file cannot be read, or the model does not run alone.
        UsageError: The model's heads do not fit the types of the cache.
    """
    if checkpoint.family.drafts:
        raise InputError(
            f"is a {checkpoint.family.title}: it runs beside its target alone",
            "name the target",
            path=checkpoint.location,
        )
    silence_transformers()
    with Reader() as reader:
        reader.open(spans_of(checkpoint.tensors.values()))
        config = checkpoint.family.modules.hf_config(checkpoint.config)
        if kv_cache is not None:
            kv_cache.check(checkpoint.config, checkpoint.name)
            attention_with_cache(config)
        yield Decoder(checkpoint, device, config, reader, kv_cache=kv_cache)
