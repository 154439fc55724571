"""Rules: which encoding and method each tensor gets."""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.errors import InputError
from gemmaq.gemma import names

_FALLBACK = {"q6_k": "q8_0"}
"""What llama-quantize takes where a row is no multiple of the type's block."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a user asked for.

    Attributes:
        body: encoding of the matrices of the layers.
        embedding: encoding of the embedding (and of an untied head), None to let gemmaq choose.
        method: how codes are chosen.
    """

    body: Encoding
    embedding: Encoding | None = None
    method: str = "nearest"


def encoding_for(recipe: Recipe, name: str, columns: int) -> tuple[Encoding, str | None]:
    """The encoding of a matrix, and why it is not the one asked for, if it is not.

    The embedding, whose rows are looked up as well as multiplied with, is worth more bits: Q6_K, or Q8_0 where
    its rows are no multiple of 256 (270M, 1B).

    Args:
        name: canonical name of a tensor with two dimensions.
        columns: weights a row.

    Raises:
        InputError: the type asked for the embedding by name cannot hold it.
    """
    wanted, reason = recipe.body, None
    if name in (names.EMBEDDING, names.HEAD):
        if recipe.embedding is not None:
            if not recipe.embedding.fits(columns):
                raise InputError(
                    f"the embedding cannot be {recipe.embedding.label}: its rows of {columns} weights are no multiple "
                    f"of {recipe.embedding.block}",
                    "take q8_0, or leave --embedding away",
                )
            return recipe.embedding, None
        if not wanted.is_float and wanted.name != "q8_0":
            wanted = ENCODINGS["q6_k"]
    if not wanted.fits(columns):
        fallback = ENCODINGS[_FALLBACK.get(wanted.name, "f16")]
        fallback = fallback if fallback.fits(columns) else ENCODINGS["f16"]
        reason = f"rows of {columns} are no multiple of {wanted.block}: {fallback.label} instead of {wanted.label}"
        return fallback, reason
    return wanted, reason
