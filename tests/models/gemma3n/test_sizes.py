"""The published sizes of Gemma 3n."""

from __future__ import annotations

from gemmaq.models.families import require_size
from gemmaq.models.gemma3n.sizes import SIZES


def test_published_sizes_have_the_parameters_of_transformers_models() -> None:
    assert [size.config.parameters for size in SIZES] == [4435182688, 6835235568]


def test_labels_alone_mean_gemma_4() -> None:
    assert require_size("gemma-3n-E2B") is require_size("gemma3n:e2b") is SIZES[0]
    assert require_size("E4B").name == "gemma-4-E4B"
