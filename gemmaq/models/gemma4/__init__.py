"""Gemma 4: everything known about the family, and nowhere else."""

from __future__ import annotations

from gemmaq.models.family import Family
from gemmaq.models.gemma4 import chat, gguf_keys, hf_config, modules, names, published, sizes, towers, vocabulary

FAMILY = Family(
    name="gemma4",
    title="Gemma 4",
    architectures=hf_config.ARCHITECTURES,
    names=names,
    configs=hf_config,
    gguf=gguf_keys,
    towers=towers,
    vocabulary=vocabulary,
    modules=modules,
    chat=chat.CHAT,
    license=chat.LICENSE,
    sizes=sizes.SIZES,
    official=r"gemma-4-(e2b|e4b|12b|26b-a4b|31b)(-it)?(-qat-(q4_0|mobile)(-unquantized|-gguf)?|-qat-w4a16-ct)?",
    organization="google",
    tables_on_grid=True,
    published=published.MEMORY,
)
