"""Gemma 3n: everything known about the family, and nowhere else. Vocabulary and license are those of Gemma 3."""

from __future__ import annotations

from dataclasses import replace

from gemmaq.models.family import Family
from gemmaq.models.gemma3 import chat, vocabulary
from gemmaq.models.gemma3n import gguf_keys, hf_config, modules, names, sizes

FAMILY = Family(
    name="gemma3n",
    title="Gemma 3n",
    architectures=hf_config.ARCHITECTURES,
    outside="vision and audio are left out: llama.cpp cannot encode sound for Gemma 3n, and gemmaq does not write its "
    "encoder of images, a MobileNet",
    names=names,
    configs=hf_config,
    gguf=gguf_keys,
    towers=None,
    vocabulary=vocabulary,
    modules=modules,
    chat=replace(chat.CHAT, templates=frozenset()),
    license=chat.LICENSE,
    sizes=sizes.SIZES,
    official=r"gemma-3n-(e2b|e4b)(-it)?",
    organization="google",
)
