"""Calibration: what a model's matrices are really multiplied with decides how their codes are chosen.

Ahead of writing, a plan is completed with what its methods need: the mean squared inputs of every matrix
(`importance`), or the very codes (`gptq`), found layer by layer.
"""

from __future__ import annotations

from gemmaq.models.config import TextConfig

GATHERED = 2048
"""Tokens whose inputs are held at a time."""


def memory(config: TextConfig, tokens: int) -> int:
    """Bytes that method gptq holds at most, beside the programs themselves.

    One layer in f32, the Hessians of its inputs with two copies of the largest at work, what is gathered for them, and
    the activations of all tokens before and after the layer.
    """
    layer = max(config.layer_parameters)
    hidden, widest = config.hidden_size, max(config.layers, key=lambda layer: layer.query_width + layer.ffn)
    widths = (hidden, widest.query_width, hidden, widest.ffn)
    hessians = sum(width * width for width in widths) + 2 * max(widths) ** 2
    gathered = 2 * sum(widths) * min(tokens, GATHERED)
    return 4 * (layer + hessians + gathered + 2 * tokens * hidden)
