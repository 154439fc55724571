"""Drafters of Gemma 4: small models that propose the next tokens of a larger one, their target.

A drafter has no keys and values of its own: its layers attend to those of the target. It runs beside the target alone.
"""

from __future__ import annotations

from gemmaq.models.family import Family
from gemmaq.models.gemma4 import chat, modules, vocabulary
from gemmaq.models.gemma4_drafter import gguf_keys, hf_config, names, sizes, target

FAMILY = Family(
    name="gemma4_drafter",
    title="Gemma 4 drafter",
    architectures=hf_config.ARCHITECTURES,
    target=target.TARGET,
    outside="the centroids are left out: llama.cpp scores all tokens, and refuses files that have them",
    names=names,
    configs=hf_config,
    gguf=gguf_keys,
    towers=None,
    vocabulary=vocabulary,
    modules=modules,
    chat=None,
    license=chat.LICENSE,
    sizes=sizes.SIZES,
    official=r"gemma-4-(e2b|e4b|12b|26b-a4b|31b)-it(-qat-q4_0-unquantized)?-assistant",
    organization="google",
    tables_on_grid=True,
)
