"""Dimensions of the vision side of Gemma 3: square images, square patches and pooled tokens."""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.models.towers_config import Encoder


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """Dimensions and constants of the vision side, by the field names of transformers.

    Attributes:
        tokens: Tokens of the context that an image takes (`mm_tokens_per_image`).
        image_mean: Mean that pixels are normalized with, one number a color.
        image_std: Standard deviation that pixels are normalized with.
        image_token: Id of the placeholder for an image's tokens.
        boi_token: Id of the token before an image.
        eoi_token: Id of the token behind an image.
    """

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    patch_size: int = 14
    image_size: int = 896
    layer_norm_eps: float = 1e-6
    tokens: int = 256
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_token: int = 262144
    boi_token: int = 255999
    eoi_token: int = 256000

    @property
    def patches(self) -> int:
        """Number of patches that an image is cut into."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def sees(self) -> Encoder:
        """The vision tower."""
        return Encoder(
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.patches,
            self.tokens,
        )

    @property
    def hears(self) -> None:
        """None: Gemma 3 hears no sound."""
        return None
