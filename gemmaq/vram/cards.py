"""Graphics cards and machines by name, with the memory they report.

Memory is what the driver reports as total, which for cards with ECC is less than the nominal figure. Of memory that is
shared with the system, models get a part: on a Mac what Metal recommends, two thirds up to 36 GB and three quarters
above, as users observed it; elsewhere nine tenths, an assumption.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from gemmaq.errors import UsageError, nearest

_GIB = 1 << 30
_MIB = 1 << 20
_SHARED = 0.9


@dataclass(frozen=True, slots=True)
class Card:
    """A card, several of a kind, or a machine with shared memory.

    Attributes:
        name: Name as its maker writes it.
        bytes: Bytes of memory, all cards together.
        usable: Bytes of it that models can use.
        count: Number of cards.
    """

    name: str
    bytes: int
    usable: int
    count: int = 1


_CARDS_MIB = {
    "RTX 3060": 12288, "RTX 3070": 8192, "RTX 3080 10GB": 10240, "RTX 3080 12GB": 12288, "RTX 3080 Ti": 12288,
    "RTX 3090": 24576, "RTX 3090 Ti": 24564, "RTX 4060": 8188, "RTX 4060 Laptop": 8188, "RTX 4060 Ti 8GB": 8188,
    "RTX 4060 Ti 16GB": 16380, "RTX 4070": 12282, "RTX 4070 Super": 12282, "RTX 4070 Ti": 12282,
    "RTX 4070 Ti Super": 16376, "RTX 4080": 16376, "RTX 4080 Super": 16376, "RTX 4090": 24564,
    "RTX 4090 Laptop": 16376, "RTX 5060 Ti 8GB": 8151, "RTX 5060 Ti 16GB": 16311, "RTX 5070": 12227,
    "RTX 5070 Ti": 16303, "RTX 5080": 16303, "RTX 5090": 32607, "RTX A6000": 49140, "RTX 6000 Ada": 49140,
    "RTX PRO 6000": 97887, "T4": 15360, "V100 16GB": 16384, "V100 32GB": 32768, "A10": 23028, "A40": 46068,
    "A100 40GB": 40960, "A100 80GB": 81920, "L4": 23034, "L40S": 46068, "H100": 81559, "H200": 143771, "B200": 183359,
    "RX 7800 XT": 16368, "RX 7900 XT": 20464, "RX 7900 XTX": 24560, "RX 9070 XT": 16304, "MI300X": 196592,
    "Arc A770": 16288, "Arc B580": 12216,
}  # fmt: skip
_SHARED_GIB = {"DGX Spark": 119.6, "Jetson Orin Nano": 7.4, "Jetson AGX Orin 32GB": 29.8, "Jetson AGX Orin 64GB": 61.3}
"""Machines that share their memory with the system -> GiB that Linux reports."""
_APPLE_GB = {
    "M1": (8, 16), "M1 Pro": (16, 32), "M1 Max": (32, 64), "M1 Ultra": (64, 128), "M2": (8, 16, 24),
    "M2 Pro": (16, 32), "M2 Max": (32, 64, 96), "M2 Ultra": (64, 128, 192), "M3": (8, 16, 24), "M3 Pro": (18, 36),
    "M3 Max": (36, 48, 64, 96, 128), "M3 Ultra": (96, 256, 512), "M4": (16, 24, 32), "M4 Pro": (24, 48, 64),
    "M4 Max": (36, 48, 64, 128), "M5": (16, 24, 32),
}  # fmt: skip
_NOISE = re.compile(r"\b(nvidia|geforce|amd|radeon|intel|apple|tesla|instinct|graphics|gpu|mac|generation)\b")
_PLAIN = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*(gb|gib)", re.ASCII)
_SEVERAL = re.compile(r"(\d{1,2})\s*x\s*(?=[a-z0-9])", re.ASCII)


def apple(name: str, memory: int, wired: int = 0) -> Card:
    """A Mac with so many bytes of memory; `wired` is its iogpu.wired_limit_mb in bytes, 0 if none is set."""
    return Card(name, memory, wired or (memory * 2 // 3 if memory <= 36 * _GIB else memory * 3 // 4))


def _table() -> dict[str, Card]:
    cards = [Card(name, mib * _MIB, mib * _MIB) for name, mib in _CARDS_MIB.items()]
    for name, gib in _SHARED_GIB.items():
        cards.append(Card(name, int(gib * _GIB), int(gib * _GIB * _SHARED)))
    for chip, options in _APPLE_GB.items():
        cards += [apple(f"{chip} {gb}GB", gb * _GIB) for gb in options]
    return {card.name: card for card in cards}


CARDS = _table()


def find(text: str) -> Card:
    """Card that a user means by `4090`, `rtx-4090`, `NVIDIA GeForce RTX 4090`, `2x 3090`, `m4 max 64gb` or `24GB`.

    Raises:
        UsageError: No card has this name, or several have; the hint lists the nearest.
    """
    name = text.lower()
    count = 1
    several = _SEVERAL.match(name)
    if several:
        count, name = int(several[1]), name[several.end() :]
        if not 1 <= count <= 64:
            raise UsageError(f"{text!r} asks for {count} cards", "choose 1 to 64 of a kind")
    card = _plain(name) or _named(name, text)
    if count == 1:
        return card
    return replace(
        card, name=f"{count}x {card.name}", bytes=count * card.bytes, usable=count * card.usable, count=count
    )


def _plain(name: str) -> Card | None:
    """Card that is given by its memory alone, in GB as cards are sold: 24 GB are 24 GiB."""
    match = _PLAIN.fullmatch(name.strip())
    size = int(float(match[1]) * _GIB) if match else 0
    return Card(f"{match[1]} GB", size, size) if match and size else None


def _named(name: str, text: str) -> Card:
    """Card of this name, or of a name that ends with it; `text` is what the user wrote."""
    keys = {_key(known): card for known, card in CARDS.items()}
    key = _key(name)
    if key in keys:
        return keys[key]
    ends = [
        card
        for known, card in keys.items()
        if key and re.fullmatch(rf"(rtx|rx|rtxpro|arc|dgx|jetson)?{re.escape(key)}(\d+gb)?", known)
    ]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise UsageError(f"{text!r} fits several cards", f"name one: {', '.join(card.name for card in ends)}")
    short = {re.sub(r"^(rtxpro|rtx|rx|arc|dgx|jetson)", "", known): card.name for known, card in keys.items()}
    near = [card.name for known, card in keys.items() if key and key.startswith(known)]
    near += [short[known] for known in nearest(key, short)] or [short[known] for known in short if key and key in known]
    near = list(dict.fromkeys(near))
    other = "give its memory, as in 24GB; gemmaq estimate-vram --gpu list names all"
    hint = f"did you mean {', '.join(near[:4])}? Or {other}" if near else other
    raise UsageError(f"unknown card {text!r}", hint)


def _key(name: str) -> str:
    """Name without its maker, spaces and signs."""
    return re.sub(r"[^a-z0-9]", "", _NOISE.sub("", name.lower().replace("-", " ")))
