"""Dimensions of a Gemma 4 text model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gemmaq.models.config import OF_TARGET, Experts, Layer, Rope


@dataclass(frozen=True)
class TextConfig:
    """Dimensions and constants of a Gemma 4 text model, by the field names of transformers.

    Attributes:
        num_global_key_value_heads: Key heads of the global layers, None for those of all others; counts only where
            `attention_k_eq_v` is true.
        head_dim: Numbers of a head in layers with a sliding window.
        global_head_dim: The same in global layers.
        layer_pattern: Whether a layer has a sliding window, one flag per layer.
        rope_theta: Base of the global layers' rotary embedding, of which only `partial_rotary_factor` rotates.
        rope_local_base_freq: Base of the sliding-window layers.
        eos_token_ids: Ids of all tokens that end generation.
        backbone_hidden_size: Width of the model that a drafter proposes tokens for, 0 for a model that is no drafter.
            A drafter shares the keys and values of all its layers.
    """

    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 30
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    num_global_key_value_heads: int | None = None
    head_dim: int = 256
    global_head_dim: int = 512
    vocab_size: int = 262144
    vocab_size_per_layer_input: int = 262144
    hidden_size_per_layer_input: int = 256
    num_kv_shared_layers: int = 0
    use_double_wide_mlp: bool = False
    attention_k_eq_v: bool = False
    enable_moe_block: bool = False
    num_experts: int | None = None
    top_k_experts: int | None = None
    moe_intermediate_size: int | None = None
    max_position_embeddings: int = 131072
    sliding_window: int = 512
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    rope_local_base_freq: float = 1e4
    partial_rotary_factor: float = 0.25
    final_logit_softcapping: float | None = None
    layer_pattern: tuple[bool, ...] = ()
    bos_token_id: int | None = 2
    eos_token_ids: tuple[int, ...] = (1,)
    pad_token_id: int | None = 0
    backbone_hidden_size: int = 0

    @property
    def own_layers(self) -> int:
        """Number of layers with keys and values of their own: all others come after them."""
        return self.num_hidden_layers - self.num_kv_shared_layers

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Dimensions of every decoder layer."""
        return tuple(self._layer(index) for index in range(self.num_hidden_layers))

    def _layer(self, index: int) -> Layer:
        local, shares = self.layer_pattern[index], index >= self.own_layers
        k_is_v = self.attention_k_eq_v and not local
        kv_heads = (k_is_v and self.num_global_key_value_heads) or self.num_key_value_heads
        experts = None
        if self.enable_moe_block:
            experts = Experts(self.num_experts or 0, self.top_k_experts or 0, self.moe_intermediate_size or 0)
        return Layer(
            heads=self.num_attention_heads,
            kv_heads=kv_heads,
            head_dim=self.head_dim if local else self.global_head_dim,
            ffn=self.intermediate_size * (2 if shares and self.use_double_wide_mlp else 1),
            window=self.sliding_window if local else None,
            kv_from=self._source(index) if shares else None,
            k_is_v=k_is_v,
            experts=experts,
        )

    def _source(self, index: int) -> int:
        """The last layer of the same kind that has keys and values of its own; if none has, that of the target."""
        kind = self.layer_pattern[index]
        return max((at for at in range(self.own_layers) if self.layer_pattern[at] == kind), default=OF_TARGET)

    @property
    def layer_embedding(self) -> int:
        """Numbers of a token's embedding for each decoder layer, 0 for a model without such embeddings."""
        return self.hidden_size_per_layer_input

    @property
    def streams(self) -> int:
        """1: Gemma 4 has a single residual stream."""
        return 1

    @property
    def normed_values(self) -> bool:
        """True: Gemma 4 norms values as well."""
        return True

    @property
    def rope(self) -> Rope:
        """Rotary position embedding."""
        return Rope(self.rope_theta, self.rope_local_base_freq, 1.0)

    @property
    def layer_parameters(self) -> tuple[int, ...]:
        """Number of weights in the matrices of every decoder layer."""
        return tuple(self._matrices(layer) for layer in self.layers)

    def _matrices(self, layer: Layer) -> int:
        hidden, projections = self.hidden_size, 2 * layer.query_width
        if layer.kv_from is None:
            projections += layer.kv_width * (1 if layer.k_is_v else 2)
        experts = layer.experts or Experts(0, 0, 0)
        chosen = experts.count * (3 * experts.ffn + 1)
        return hidden * (projections + 3 * layer.ffn + chosen + 2 * self.layer_embedding)

    @property
    def parameters(self) -> int:
        """Number of weights of the text model, a tied embedding counted once."""
        hidden, width = self.hidden_size, self.layer_embedding
        total = (self.vocab_size + 1) * hidden + sum(self.layer_parameters) + 3 * hidden * self.backbone_hidden_size
        if width:
            across = self.num_hidden_layers * width
            total += (self.vocab_size_per_layer_input + hidden) * across + width
        return total + sum(self._vectors(layer) for layer in self.layers)

    def _vectors(self, layer: Layer) -> int:
        """Weights of a layer outside its matrices: norms, the factor of its output and those of its router."""
        count = 4 * self.hidden_size + layer.head_dim + 1
        if layer.kv_from is None:
            count += layer.head_dim
        if self.layer_embedding:
            count += self.hidden_size
        if layer.experts is not None:
            count += 4 * self.hidden_size + layer.experts.count
        return count


def pattern(layers: int, period: int) -> tuple[bool, ...]:
    """`layer_pattern` of a model in which every `period`-th layer and the last one are global."""
    return tuple((at + 1) % period != 0 and at + 1 < layers for at in range(layers))
