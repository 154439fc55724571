"""Dimensions of the towers of Gemma 4, by the field names and with the defaults of transformers.

E2B and E4B have a tower for images and one for sound, 26B-A4B and 31B one for images. 12B (`unified`) has
no transformers there: matrices turn patches of images and pieces of sound into embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gemmaq.models.towers_config import Encoder


@dataclass(frozen=True, slots=True)
class VisionTower:
    """Transformer over patches of an image, whose outputs are pooled.

    Attributes:
        position_embedding_size: Positions along a side of an image that have an embedding.
        standardize: Whether pooled outputs are shifted and scaled by vectors of the checkpoint.
        use_clipped_linears: Whether inputs and outputs of matrices are clipped to bounds in the checkpoint.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 16
    num_attention_heads: int = 12
    patch_size: int = 16
    position_embedding_size: int = 10240
    standardize: bool = False
    use_clipped_linears: bool = False
    rms_norm_eps: float = 1e-6


@dataclass(frozen=True, slots=True)
class AudioTower:
    """Conformer over spectrograms of 128 mel bins.

    Attributes:
        subsampling_conv_channels: Channels of the two convolutions before the layers.
        conv_kernel_size: Frames that the convolution of a layer sees.
        output_proj_dims: Numbers of a frame behind the layers.
        use_clipped_linears: Whether inputs and outputs of matrices are clipped to bounds in the checkpoint.
    """

    hidden_size: int = 1024
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    subsampling_conv_channels: tuple[int, int] = (128, 32)
    conv_kernel_size: int = 5
    output_proj_dims: int = 1536
    use_clipped_linears: bool = True
    rms_norm_eps: float = 1e-6


@dataclass(frozen=True, slots=True)
class Patches:
    """Embedder of squares of an image, without a transformer.

    Attributes:
        pooling_kernel_size: Patches along a side of a square, which becomes a token.
        mm_embed_dim: Numbers of a square behind the embedder.
        mm_posemb_size: Positions along a side of an image that have an embedding.
    """

    patch_size: int = 16
    pooling_kernel_size: int = 3
    mm_embed_dim: int = 3840
    mm_posemb_size: int = 1120
    rms_norm_eps: float = 1e-6

    @property
    def side(self) -> int:
        """Pixels along a side of a square."""
        return self.patch_size * self.pooling_kernel_size


@dataclass(frozen=True, slots=True)
class Waves:
    """Samples of a sound, which go to the projector as they are: `audio_embed_dim` of them for each token."""

    audio_embed_dim: int = 640
    rms_norm_eps: float = 1e-6


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ids of the tokens in place of images and sounds and around them, by the keys of config.json."""

    image_token_id: int = 258880
    audio_token_id: int = 258881
    video_token_id: int = 258884
    boi_token_id: int = 255999
    eoi_token_id: int = 258882
    boa_token_id: int = 256000
    eoa_token_id: int = 258883


PIECES = {
    "image_token_id": "<|image|>",
    "audio_token_id": "<|audio|>",
    "video_token_id": "<|video|>",
    "boi_token_id": "<|image>",
    "eoi_token_id": "<image|>",
    "boa_token_id": "<|audio>",
    "eoa_token_id": "<audio|>",
}
"""Field of `Tokens` -> the piece of the vocabulary that it is the id of."""


@dataclass(frozen=True, slots=True)
class TowersConfig:
    """Dimensions and constants of the towers of a model.

    Attributes:
        vision: Encoder of images, None for a model without.
        audio: Encoder of sound, None for a model without.
        image_tokens: Tokens of the largest image.
        audio_tokens: Tokens of the longest sound.
        image_mean: Mean that pixels are normalized with, one number a color.
        image_std: Standard deviation that pixels are normalized with.
        bidirectional: Whether the tokens of an image see each other in the text model; None where it is not said.
    """

    vision: VisionTower | Patches | None = None
    audio: AudioTower | Waves | None = None
    tokens: Tokens = field(default_factory=Tokens)
    image_tokens: int = 280
    audio_tokens: int = 750
    image_mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    image_std: tuple[float, ...] = (1.0, 1.0, 1.0)
    bidirectional: bool | None = None

    @property
    def unified(self) -> bool:
        """Whether patches of images and pieces of sound become embeddings without a transformer."""
        return isinstance(self.vision, Patches) or isinstance(self.audio, Waves)

    @property
    def sees(self) -> Encoder | None:
        """Encoder of images, None for a model without."""
        tower, tokens = self.vision, self.image_tokens
        if isinstance(tower, VisionTower):
            return Encoder(
                tower.hidden_size,
                tower.intermediate_size,
                tower.num_hidden_layers,
                tower.num_attention_heads,
                patches=tokens * POOLING_KERNEL_SIZE**2,
                tokens=tokens,
                inputs=_COLORS * tower.patch_size**2,
                most_tokens=_MOST_TOKENS,
            )
        if tower is None:
            return None
        pixels = _COLORS * tower.side**2
        return Encoder(tower.mm_embed_dim, 0, 0, 0, tokens, tokens, inputs=pixels, most_tokens=_MOST_TOKENS)

    @property
    def hears(self) -> Encoder | None:
        """Encoder of sound, None for a model without; its frames are those behind the convolutions, one a token."""
        tower, tokens = self.audio, self.audio_tokens
        if isinstance(tower, AudioTower):
            return Encoder(
                tower.hidden_size,
                FFN_FACTOR * tower.hidden_size,
                tower.num_hidden_layers,
                tower.num_attention_heads,
                patches=tokens,
                tokens=tokens,
                inputs=MEL_BINS,
                channels=tower.subsampling_conv_channels,
            )
        if tower is None:
            return None
        return Encoder(tower.audio_embed_dim, 0, 0, 0, tokens, tokens, inputs=tower.audio_embed_dim)


POOLING_KERNEL_SIZE = 3
"""Patches along the side of the square that is pooled to a token."""
FFN_FACTOR = 4
"""Width of the feed-forward parts of the audio tower, in multiples of the hidden size."""
MEL_BINS = 128
"""Mel bins of the spectrogram that the audio tower takes."""
_COLORS = 3
_MOST_TOKENS = 1120
"""Tokens of the largest image that a processor can be set to."""
