"""EmbeddingGemma: Gemma 3 whose tokens attend to both sides, for vectors of texts."""

from __future__ import annotations

from gemmaq.models.embeddinggemma import config, gguf_keys, modules, names, sizes
from gemmaq.models.family import Family
from gemmaq.models.gemma3 import chat, vocabulary

FAMILY = Family(
    name="embeddinggemma",
    title="EmbeddingGemma",
    architectures=config.ARCHITECTURES,
    marks=config.MARKS,
    embeds=True,
    hf_prefix="",
    names=names,
    configs=config,
    gguf=gguf_keys,
    towers=None,
    vocabulary=vocabulary,
    modules=modules,
    chat=None,
    license=chat.LICENSE,
    sizes=sizes.SIZES,
    official=r"embeddinggemma-300m(-qat-(q4_0|q8_0)-unquantized)?",
    organization="google",
)
