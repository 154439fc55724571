"""A prompt with one image or one sound for the tiny Gemma 4 models, made without any processor of a runtime.

The arrays go by the names that both transformers and mlx-vlm give them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import gemma4_towers
import gemma4_transformers
from gemma4_towers import KINDS, PIXELS

Inputs = dict[str, np.ndarray]

BEFORE, AFTER = (2, 300, 310), range(300, 320)
"""Tokens of the text around what is seen or heard."""


def seen(kind: str, seed: int = 0) -> Inputs:
    """A prompt with an image of 77 tokens."""
    model, image, ids = KINDS[kind], gemma4_towers.picture(seed), gemma4_towers.token_ids()
    pixels, at = gemma4_transformers.patches(image, PIXELS if model.unified else model.vision["patch_size"])
    count = image.shape[0] * image.shape[1] // PIXELS**2
    given = _prompt(ids["boi_token_id"], ids["image_token_id"], count, ids["eoi_token_id"])
    kinds = (given == ids["image_token_id"]).astype(np.int64)
    return {
        "input_ids": given, "mm_token_type_ids": kinds, "pixel_values": pixels[None], "image_position_ids": at[None],
    }  # fmt: skip


def heard(kind: str, folder: Path, seed: int = 0) -> Inputs:
    """A prompt with a second of sound; `folder` has the settings of the feature extractor."""
    frames, ids = gemma4_transformers.features(folder, gemma4_towers.sound(seed)), gemma4_towers.token_ids()
    count = len(frames) if KINDS[kind].unified else -(-len(frames) // 4)
    given = _prompt(ids["boa_token_id"], ids["audio_token_id"], count, ids["eoa_token_id"])
    return {
        "input_ids": given, "mm_token_type_ids": 3 * (given == ids["audio_token_id"]), "input_features": frames[None],
        "input_features_mask": np.ones((1, len(frames)), bool),
    }  # fmt: skip


def back_only(inputs: Inputs) -> Inputs:
    """The same, every token seeing only those before it: runtimes differ in which others the pieces of an image see."""
    return inputs | {"mm_token_type_ids": 0 * inputs["mm_token_type_ids"]}


def _prompt(begin: int, piece: int, count: int, end: int) -> np.ndarray:
    return np.array([[*BEFORE, begin, *[piece] * count, end, *AFTER]])
