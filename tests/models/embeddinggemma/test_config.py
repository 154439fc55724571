"""config.json of EmbeddingGemma: read as transformers means it, and told from Gemma 3."""

from __future__ import annotations

from gemmaq.models.embeddinggemma.config import from_hf, to_hf
from gemmaq.models.embeddinggemma.sizes import SIZES
from gemmaq.models.families import of_config

CONFIG = SIZES[0].config


def test_the_window_is_the_number_of_the_file_and_comes_back_in_transformers() -> None:
    from transformers import Gemma3TextConfig

    document = to_hf(CONFIG, "bfloat16")
    assert document["sliding_window"] == 512 and from_hf(document).sliding_window == 512
    loaded = Gemma3TextConfig(**document)
    assert loaded.sliding_window == 257  # half on each side, and the token itself
    assert from_hf(loaded.to_dict()) == CONFIG


def test_the_same_class_without_bidirectional_attention_is_gemma_3() -> None:
    document = to_hf(CONFIG, "bfloat16")
    assert of_config(document).name == "embeddinggemma"
    for value in (False, None):
        causal = of_config(document | {"use_bidirectional_attention": value})
        assert causal.name == "gemma3" and not causal.embeds


def test_it_has_the_published_number_of_weights() -> None:
    heads = 2 * 768 * 3072
    assert CONFIG.parameters == 302_863_104 and CONFIG.parameters + heads == 307_581_696
