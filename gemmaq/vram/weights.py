"""What the tensors of a model weigh: as a GGUF file holds them, or as the plan of a conversion will write them."""

from __future__ import annotations

from collections.abc import Sequence

from gemmaq import encodings
from gemmaq.checkpoint import Checkpoint, plain
from gemmaq.checkpoint.blob import Blob
from gemmaq.checkpoint.tokenizer import Tokenizer, TokenizerFiles
from gemmaq.containers import gguf
from gemmaq.errors import InputError
from gemmaq.gemma.config import TextConfig
from gemmaq.gemma.names import shapes
from gemmaq.gemma.sizes import Size
from gemmaq.plan import make_plan
from gemmaq.recipe import Recipe

AS_IT_IS = "as it is"
_DEFAULT = ("bf16", "q4_0")


def weight_bytes(checkpoint: Checkpoint, quants: Sequence[str] | None) -> dict[str, int]:
    """Quant -> bytes of the buffer that llama.cpp holds the tensors in.

    Args:
        checkpoint: of the model.
        quants: types of the body; None for what a GGUF file has, BF16 and Q4_0 for anything else.

    Raises:
        UsageError: an unknown type.
    """
    if quants is None and checkpoint.format == "gguf":
        return {AS_IT_IS: _buffer([tensor.nbytes for tensor in checkpoint.tensors.values()])}
    bodies = [encodings.find(quant) for quant in quants or _DEFAULT]
    plans = {body.name: make_plan(checkpoint, Recipe(body, method="nearest"), gguf.FORMAT) for body in bodies}
    return {name: _buffer([tensor.nbytes for tensor in plan.tensors]) for name, plan in plans.items()}


def _buffer(sizes: list[int]) -> int:
    return sum(-(-size // gguf.ALIGNMENT) * gguf.ALIGNMENT for size in sizes)


def checkpoint_of(size: Size) -> Checkpoint:
    """A published size as a BF16 checkpoint that exists on no disk, to make plans for."""
    nowhere = Blob((), (), 0)
    tensors = {name: plain(name, shape, encodings.ENCODINGS["bf16"], nowhere, 0) for name, shape in shapes(size.config)}
    return Checkpoint(size.name, size.name, "published", size.config, tensors, TokenizerFiles(_no_tokenizer))


def _no_tokenizer(config: TextConfig) -> Tokenizer:
    raise InputError("a published size by name has no tokenizer")
