"""The published sizes of Gemma 3, with dimensions and nominal figures.

Dimensions agree with the published config files and, summed up, with the published parameter counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gemmaq.errors import UsageError
from gemmaq.models.gemma3 import vision
from gemmaq.models.gemma3.config import TextConfig, pattern


@dataclass(frozen=True, slots=True)
class Size:
    """One published size.

    Attributes:
        name: `gemma-3-4b`.
        label: `4B`, as model names spell it.
        nominal: the round number of parameters that Google's memory table computes with.
        vision: parameters of the vision tower, 0 for text-only sizes.
        config: the text model.
    """

    name: str
    label: str
    nominal: float
    vision: int
    config: TextConfig

    @property
    def projector(self) -> int:
        """Parameters of the vision projector."""
        return vision.projector_parameters(self.config.hidden_size) if self.vision else 0


def _config(layers: int, hidden: int, ffn: int, heads: int, kv_heads: int, small: bool) -> TextConfig:
    return TextConfig(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=262144 if small else 262208,
        max_position_embeddings=32768 if small else 131072,
        sliding_window=512 if small else 1024,
        rope_factor=1.0 if small else 8.0,
        layer_pattern=pattern(layers, 6),
    )


SIZES: tuple[Size, ...] = (
    Size("gemma-3-270m", "270M", 0.27e9, 0, _config(18, 640, 2048, 4, 1, small=True)),
    Size("gemma-3-1b", "1B", 1e9, 0, _config(26, 1152, 6912, 4, 1, small=True)),
    Size("gemma-3-4b", "4B", 4e9, vision.TOWER_PARAMETERS, _config(34, 2560, 10240, 8, 4, small=False)),
    Size("gemma-3-12b", "12B", 12e9, vision.TOWER_PARAMETERS, _config(48, 3840, 15360, 16, 8, small=False)),
    Size(
        "gemma-3-27b",
        "27B",
        27e9,
        vision.TOWER_PARAMETERS,
        replace(_config(62, 5376, 21504, 32, 16, small=False), head_dim=128, query_pre_attn_scalar=168),
    ),
)


def by_name(name: str) -> Size | None:
    """The size a user means by `27b`, `gemma-3-27b` or `gemma3:27b`, or None."""
    wanted = name.lower().replace("gemma3:", "gemma-3-").removeprefix("google/").removeprefix("gemma-3-")
    return next((size for size in SIZES if size.label.lower() == wanted), None)


def require(name: str) -> Size:
    """Like `by_name`.

    Raises:
        UsageError: no such size.
    """
    size = by_name(name)
    if size is None:
        raise UsageError(f"unknown model {name!r}", f"published sizes: {', '.join(s.name for s in SIZES)}")
    return size


def label_of(config: TextConfig) -> str:
    """The size label of a model with these dimensions: the published one, else from its parameter count."""
    for size in SIZES:
        same = size.config
        if (config.num_hidden_layers, config.hidden_size) == (same.num_hidden_layers, same.hidden_size):
            return size.label
    count = config.parameters
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= limit:
            return (
                f"{count / limit:.1f}".removesuffix(".0") + unit if count < 10 * limit else f"{count / limit:.0f}{unit}"
            )
    return str(count)
