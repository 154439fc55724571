"""Calibration: what a model's matrices are really multiplied with decides how their codes are chosen.

Ahead of writing, a plan is completed with what its methods need: the mean squared inputs of every matrix
(`importance`), or the very codes (`gptq`), found layer by layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.gemma.config import TextConfig

TOKENS = 16384
CONTEXT = 512


GATHERED = 2048
"""Tokens whose inputs are held at a time."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What codes were calibrated on, and how: all that is needed to do it again.

    Attributes:
        texts: names of the files, without their folders; empty if an importance matrix was given.
        digest: SHA-256 over the texts, or of the importance matrix, in hex.
        tokens: of the texts that are used, at most.
        context: tokens of a sequence.
        damping: of the feedback, see `methods.gptq.Settings`.
        order: of the columns, likewise.
    """

    texts: tuple[str, ...]
    digest: str
    tokens: int = TOKENS
    context: int = CONTEXT
    damping: float = 0.01
    order: str = "importance"


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
