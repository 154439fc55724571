"""What transformers makes of images and sounds for Gemma 4, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gemma4_towers import RATE


def load(folder: Path) -> Any:
    """A folder with every tensor of the model and no other."""
    import torch
    from transformers import AutoModelForImageTextToText

    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def patches(image: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels f32 [patches, side * side * 3] and positions i64 [patches, 2], x first, of an image u8 [high, wide, 3]."""
    high, wide = (length // side for length in image.shape[:2])
    cut = image.reshape(high, side, wide, side, 3).swapaxes(1, 2)
    at = np.stack(np.meshgrid(np.arange(wide), np.arange(high)), -1)
    return cut.reshape(high * wide, -1).astype(np.float32) / 255, at.reshape(-1, 2)


def see(model: Any, image: np.ndarray) -> np.ndarray:
    """Embeddings f32 [tokens, width] of an image u8 [height, width, 3] that is not resized."""
    import torch

    config = model.config.vision_config
    pixels, at = patches(image, getattr(config, "model_patch_size", config.patch_size))
    with torch.inference_mode():
        found = model.model.get_image_features(torch.from_numpy(pixels)[None], torch.from_numpy(at)[None])
    return _rows(found.pooler_output)


def features(folder: Path, sound: np.ndarray) -> np.ndarray:
    """What the feature extractor of a folder makes of a sound f32 [samples]: f32 [frames, numbers of a frame]."""
    from transformers import AutoFeatureExtractor

    made = AutoFeatureExtractor.from_pretrained(folder)([sound], sampling_rate=RATE, return_tensors="np")
    frames: np.ndarray = made["input_features"][0][made["input_features_mask"][0].astype(bool)]
    return frames


def hear(model: Any, frames: np.ndarray) -> np.ndarray:
    """Embeddings f32 [tokens, width] of frames of sound."""
    import torch

    mask = torch.ones(1, len(frames), dtype=torch.bool)
    with torch.inference_mode():
        found = model.model.get_audio_features(torch.from_numpy(frames)[None], mask)
    return _rows(found.pooler_output)


def logits(model: Any, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """F32 [tokens, vocabulary] of a prompt."""
    import torch

    with torch.inference_mode():
        found: np.ndarray = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits[0].numpy()
    return found


def _rows(found: Any) -> np.ndarray:
    """F32 [tokens, width] of what a model returns: a tensor, or one for each image."""
    import torch

    whole = torch.cat(list(found)) if isinstance(found, (list, tuple)) else found
    result: np.ndarray = whole.reshape(-1, whole.shape[-1]).numpy()
    return result
