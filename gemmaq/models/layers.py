"""What running a model layer by layer asks of its family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Modules(Protocol):
    """The family's layers in transformers; every function imports torch and transformers."""

    def hf_config(self, config: Any, /) -> Any:
        """The configuration object of transformers, for float32 and fused attention."""

    def decoder_layer(self, hf_config: Any, index: int, /) -> Any:
        """A decoder layer, a torch module with unset weights."""

    def rotary_embedding(self, hf_config: Any, /) -> Any:
        """The rotary embedding, called with (hidden, positions, attention kind)."""

    def attention_kinds(self, hf_config: Any, /) -> tuple[str, ...]:
        """Kind of attention of every layer."""

    def attention_mask(self, hf_config: Any, kind: str, hidden: Any, positions: Any, /) -> Any:
        """Mask of a kind of attention for sequences without padding, hidden f32 [batch, length, hidden]."""

    def rms_norm(self, hidden: Any, weight: Any, epsilon: float, /) -> Any:
        """RMS norm of f32 [..., hidden] with the weight as Hugging Face stores it."""

    def embedding_scale(self, config: Any, /) -> float:
        """Factor of the embedding's rows at the model's input."""

    def layer_inputs(self, config: Any, embedded: Any, outside: Mapping[str, Any], /) -> Any:
        """What layers take besides the hidden state, for tokens: f32 [..., layers, width].

        It is only asked for in models whose `layer_embedding` is not 0.

        Args:
            config: Dimensions of the model.
            embedded: The tokens' input of the first layer, [..., hidden].
            outside: Canonical names -> tensors outside the layers, without embedding, head and final norm; tables have
                a row for every token, [..., columns].
        """

    def run(
        self, module: Any, hidden: Any, layer_input: Any, shared: Mapping[str, Any], attention: Mapping[str, Any], /
    ) -> tuple[Any, Mapping[str, Any]]:
        """Run a decoder layer.

        Args:
            module: The layer.
            hidden: Its input, [batch, length, hidden].
            layer_input: What it takes besides, [batch, length, width], None if nothing else.
            shared: What earlier layers keep for later ones, by name: tuples of tensors [batch, ...].
            attention: Position embeddings (`position_embeddings`), mask (`attention_mask`) and `position_ids`.

        Returns:
            Its output, and what is kept for later layers now.
        """

    def expert_inputs(self, experts: Any, expert: int, inputs: Any, /) -> dict[str, Any]:
        """Inputs of an expert's matrices by the part of a layer that stacks them.

        Args:
            experts: The module of a layer's experts.
            expert: Number of the expert.
            inputs: Inputs of the tokens that the expert is chosen for, f32 [tokens, hidden].
        """
