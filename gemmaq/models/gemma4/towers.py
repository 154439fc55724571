"""The towers of Gemma 4 as other rooms ask for them: what lies in which file under which name, type and arrangement."""

from __future__ import annotations

import math

from gemmaq.models.arrangements import Arrangement, permuted, reshaped
from gemmaq.models.gemma4.mmproj_keys import built_in as built_in
from gemmaq.models.gemma4.mmproj_keys import from_keys as from_keys
from gemmaq.models.gemma4.mmproj_keys import to_keys as to_keys
from gemmaq.models.gemma4.tower_names import (
    DEPTHWISE,
    DIMENSION_SCALE,
    PATCH_INPUT,
    POSITIONS,
    SQUARE_INPUT,
    SQUARE_NORM,
    SQUARE_POSITIONS,
    SUBSAMPLING,
)
from gemmaq.models.gemma4.tower_names import MODULES as MODULES
from gemmaq.models.gemma4.tower_names import canonical as canonical
from gemmaq.models.gemma4.tower_names import shapes as shapes
from gemmaq.models.gemma4.tower_names import to_gguf as to_gguf
from gemmaq.models.gemma4.tower_names import to_hf as to_hf
from gemmaq.models.gemma4.towers_config import TowersConfig
from gemmaq.models.gemma4.towers_hf import from_hf as from_hf
from gemmaq.models.gemma4.towers_hf import processor_files as processor_files
from gemmaq.models.gemma4.towers_hf import with_towers as with_towers
from gemmaq.models.gemma4.vocabulary import ROLES
from gemmaq.models.roles import Place, Role

REPEATS_HEAD = False


def markers(config: TowersConfig) -> tuple[str, ...]:
    """Tokens before and behind an image or a sound; runtimes of GGUF put the embeddings between them."""
    image = ("boi_token", "eoi_token") if config.vision is not None else ()
    sound = ("boa_token", "eoa_token") if config.audio is not None else ()
    return tuple(ROLES[role] for role in (*image, *sound))


def place(name: str) -> Place:
    """Place of a tensor in the model."""
    return Place(Role.TOWER, kind="audio" if "audio" in name.partition(".")[0] else "vision")


def is_norm(name: str) -> bool:
    """False: no norm is shifted."""
    del name
    return False


def in_gguf(name: str, shape: tuple[int, ...]) -> Arrangement | None:
    """How an mmproj file stores a tensor: pixels color by color, factors as they are multiplied with."""
    if name == PATCH_INPUT:
        width, side = shape[0], _side(shape[1])
        return Arrangement((width, 3, side, side), (width, side, side, 3), (0, 3, 1, 2))
    if name == SQUARE_INPUT:
        return Arrangement(shape, (shape[0], _side(shape[1]), _side(shape[1]), 3), (0, 3, 1, 2))
    if name.startswith(SQUARE_NORM):
        return Arrangement(shape, (_side(shape[0]), _side(shape[0]), 3), (2, 0, 1))
    if name == SQUARE_POSITIONS:
        return permuted(shape, (1, 0, 2))
    if name.endswith(DIMENSION_SCALE):
        return Arrangement(shape, softplus=True)
    if name.endswith(DEPTHWISE):
        return reshaped(shape, (shape[0], shape[-1]))
    return Arrangement((1,)) if not shape else None


def _side(pixels: int) -> int:
    """Pixels along the side of a square of so many numbers, three a pixel."""
    return math.isqrt(pixels // 3)


def channels_last(name: str, shape: tuple[int, ...]) -> Arrangement | None:
    """How MLX stores the convolutions over sound; None for the other tensors, stored as they are."""
    if name.startswith(SUBSAMPLING) and len(shape) == 4:
        return permuted(shape, (0, 2, 3, 1))
    return permuted(shape, (0, 2, 1)) if name.endswith(DEPTHWISE) else None


def mmproj_type(name: str, shape: tuple[int, ...], requested: str) -> str:
    """Type of a tensor in an mmproj file, as llama.cpp's converter has it.

    F32 for vectors, positions and what comes before the layers of the audio tower; matrices that see pixels are F16
    in an F16 file, else F32; the requested type for all others.
    """
    if name in (PATCH_INPUT, SQUARE_INPUT):
        return "f16" if requested == "f16" else "f32"
    always = name in (POSITIONS, SQUARE_POSITIONS) or name.startswith(SUBSAMPLING) or name.endswith(DEPTHWISE)
    return "f32" if always or len(shape) < 2 else requested
