"""Gemma 3: everything known about the family, and nowhere else."""

from __future__ import annotations

from gemmaq.models.family import Family
from gemmaq.models.gemma3 import chat, config, gguf_keys, modules, names, published, sizes, towers, vocabulary

FAMILY = Family(
    name="gemma3",
    title="Gemma 3",
    architectures=config.ARCHITECTURES,
    names=names,
    configs=config,
    gguf=gguf_keys,
    towers=towers,
    vocabulary=vocabulary,
    modules=modules,
    chat=chat.CHAT,
    license=chat.LICENSE,
    sizes=sizes.SIZES,
    official=r"gemma-3-(270m|1b|4b|12b|27b)(-(it|pt))?(-qat-(q4_0|int4)(-unquantized)?)?"
    r"|functiongemma-270m-it|medgemma-(1\.5-)?4b-(it|pt)|medgemma-27b-(text-)?it|translategemma-(4b|12b|27b)-it"
    r"|shieldgemma-2-4b-it",
    organization="google",
    published=published.MEMORY,
    remarks=config.REMARKS,
)
