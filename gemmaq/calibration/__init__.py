"""Calibration: what a model's matrices are really multiplied with decides how their codes are chosen.

Ahead of writing, a plan is completed with what its methods need: the mean squared inputs of every matrix
(`importance`), or the very codes (`gptq`), found layer by layer.
"""

from __future__ import annotations

from gemmaq.models.gemma3.config import TextConfig

GATHERED = 2048
"""Tokens whose inputs are held at a time."""


def memory(config: TextConfig, tokens: int) -> int:
    """Bytes that method gptq holds at most, beside the programs themselves.

    One layer in f32, the Hessians of its inputs with two copies of the largest at work, what is gathered for them, and
    the activations of all tokens before and after the layer.
    """
    hidden, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    kv_heads, ffn = config.num_key_value_heads * config.head_dim, config.intermediate_size
    layer = 2 * hidden * (heads + kv_heads) + 3 * hidden * ffn
    widths = (hidden, heads, hidden, ffn)
    hessians = sum(width * width for width in widths) + 2 * max(widths) ** 2
    gathered = 2 * sum(widths) * min(tokens, GATHERED)
    return 4 * (layer + hessians + gathered + 2 * tokens * hidden)
