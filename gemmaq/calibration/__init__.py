"""Calibration: codes are chosen by the inputs that matrices have on real text.

Before anything is written, plans are completed with what their methods need: the mean squared inputs of every matrix
(method importance), or the codes themselves (method gptq), chosen layer by layer. Norms may be tuned to these codes.
"""

from __future__ import annotations

from functools import partial

from gemmaq.inference.batch import held
from gemmaq.models.config import Layer, TextConfig

GATHERED = 2048
"""Tokens whose inputs are in memory at a time."""
PANEL = 512
"""Rows of a Hessian that a worker takes at a time."""
PROGRAM = 900 << 20
"""Bytes of Python, torch, transformers and the buffers of matrix products, at most; they come on top of `memory`."""


def memory(config: TextConfig, tokens: int, processes: int = 1) -> int:
    """Bytes that method gptq takes at most, in each of several processes, without the program itself.

    One layer in f32, the Hessians of its inputs with two working copies of the largest, the inputs gathered for them,
    the activations of all tokens before and after the layer, and what layers need besides. Of experts, the inputs of
    all tokens; there is one expert's Hessian at a time. Codes are on disk, so several types take no more than one.
    Several processes have the activations of their tokens alone, with all their inputs of a layer, until the Hessians
    have passed through.
    """
    share = -(-tokens // processes)
    hidden, widths = config.hidden_size, max(map(partial(_widths, config), config.layers), key=sum)
    hessians = sum(width * width for width in widths) + 2 * max(widths) ** 2
    gathered = 2 * sum(widths) * min(share, GATHERED) if processes == 1 else sum(widths) * share
    routed = tokens * hidden if any(layer.experts for layer in config.layers) else 0
    return 4 * (max(config.layer_parameters) + hessians + gathered + 2 * share * hidden + routed + held(config, share))


def traffic(config: TextConfig, tokens: int, processes: int, *, resume: bool = False) -> int:
    """Bytes that several processes send to each other at most while method gptq solves every matrix for one type.

    The upper triangles of the Hessians of a layer, and of the head, pass through all processes, and the last one sends
    the whole to those that solve a matrix with these inputs. The inputs of experts go to every process. To `resume`,
    the main process gets the activations after every layer. Codes, which go to the main process, come on top.
    """
    total, hidden, others = 0, config.hidden_size, processes - 1
    for width in [hidden, *(width for layer in config.layers for width in _widths(config, layer))]:
        triangle = sum((width - at) * min(PANEL, width - at) for at in range(0, width, PANEL))
        total += (triangle + width**2) * others
    total += 2 * tokens * hidden * others * sum(layer.experts is not None for layer in config.layers)
    kept = tokens * hidden + held(config, tokens)
    return 4 * (total + (kept * len(config.layers) * others // processes if resume else 0))


def _widths(config: TextConfig, layer: Layer) -> list[int]:
    """Columns of the inputs of a layer's matrices, experts left out."""
    hidden = config.hidden_size
    gates = [hidden, config.layer_embedding] if config.layer_embedding else []
    return [hidden, layer.query_width, hidden, layer.ffn, *gates]
