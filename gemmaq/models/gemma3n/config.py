"""Dimensions of a Gemma 3n text model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gemmaq.models.config import Layer, Rope


@dataclass(frozen=True)
class TextConfig:
    """Dimensions and constants of a Gemma 3n text model, by the field names of transformers.

    Attributes:
        intermediate_size: Width of the feed-forward part, layer by layer.
        vocab_size_per_layer_input: Rows of the layer embeddings; later tokens have none.
        activation_sparsity_pattern: Share of the gate's outputs that become 0, layer by layer.
        layer_pattern: Whether a layer has a sliding window, one flag per layer.
        rope_theta: Base of the global layers' rotary embedding.
        rope_local_base_freq: Base of the sliding-window layers.
        eos_token_ids: Ids of all tokens that end generation.
    """

    hidden_size: int = 2048
    intermediate_size: tuple[int, ...] = (16384,) * 35
    num_hidden_layers: int = 35
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 256
    vocab_size: int = 262400
    vocab_size_per_layer_input: int = 262144
    hidden_size_per_layer_input: int = 256
    num_kv_shared_layers: int = 15
    laurel_rank: int = 64
    altup_num_inputs: int = 4
    altup_active_idx: int = 0
    altup_coef_clip: float | None = 120.0
    altup_correct_scale: bool = True
    activation_sparsity_pattern: tuple[float, ...] = (0.95,) * 10 + (0.0,) * 25
    max_position_embeddings: int = 32768
    sliding_window: int = 512
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    rope_local_base_freq: float = 1e4
    final_logit_softcapping: float | None = 30.0
    layer_pattern: tuple[bool, ...] = ()
    bos_token_id: int | None = 2
    eos_token_ids: tuple[int, ...] = (1,)
    pad_token_id: int | None = 0

    @property
    def own_layers(self) -> int:
        """Number of layers that use keys and values of their own: all others come after them."""
        return self.num_hidden_layers - self.num_kv_shared_layers

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Dimensions of every decoder layer."""
        return tuple(self._layer(index) for index in range(self.num_hidden_layers))

    def _layer(self, index: int) -> Layer:
        local = self.layer_pattern[index]
        source = None
        if index >= self.own_layers:
            source = max(at for at in range(self.own_layers) if self.layer_pattern[at] == local)
        return Layer(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            ffn=self.intermediate_size[index],
            window=self.sliding_window if local else None,
            kv_from=source,
            sparse=self.activation_sparsity_pattern[index] > 0,
        )

    @property
    def layer_embedding(self) -> int:
        """Numbers of a token's embedding for each decoder layer."""
        return self.hidden_size_per_layer_input

    @property
    def streams(self) -> int:
        """Copies of the residual stream, of which every layer computes one and predicts the others (AltUp)."""
        return self.altup_num_inputs

    @property
    def normed_values(self) -> bool:
        """True: Gemma 3n norms values as well."""
        return True

    @property
    def rope(self) -> Rope:
        """Rotary position embedding."""
        return Rope(self.rope_theta, self.rope_local_base_freq, 1.0)

    @property
    def layer_parameters(self) -> tuple[int, ...]:
        """Number of weights in the matrices of every decoder layer, those of LAuReL and AltUp among them."""
        return tuple(self._matrices(layer) for layer in self.layers)

    def _matrices(self, layer: Layer) -> int:
        projections = 2 * layer.query_width + (2 * layer.kv_width if layer.kv_from is None else 0)
        beside = 2 * self.layer_embedding + 2 * self.laurel_rank + self.streams
        return self.hidden_size * (projections + 3 * layer.ffn + beside) + self.streams**2 * (1 + self.streams)

    @property
    def parameters(self) -> int:
        """Number of weights of the text model, a tied embedding counted once."""
        hidden, across = self.hidden_size, self.num_hidden_layers * self.layer_embedding
        total = (self.vocab_size + 1) * hidden + 2 * (self.streams - 1) * hidden**2
        total += (self.vocab_size_per_layer_input + hidden) * across + self.layer_embedding
        norms = (8 * hidden + layer.head_dim * (2 if layer.kv_from is None else 1) for layer in self.layers)
        return total + sum(self.layer_parameters) + sum(norms)


def pattern(layers: int) -> tuple[bool, ...]:
    """`layer_pattern` of a model in which every fifth layer is global."""
    return tuple((at + 1) % 5 != 0 for at in range(layers))
