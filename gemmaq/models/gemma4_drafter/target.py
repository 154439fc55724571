"""Whether a drafter belongs to a Gemma 4 model."""

from __future__ import annotations

from gemmaq.models.config import Layer, TextConfig
from gemmaq.models.family import Target
from gemmaq.models.gemma4 import config as gemma4


def misfit(drafter: TextConfig, target: TextConfig) -> str | None:
    """Why a drafter does not belong to a Gemma 4 model, a clause of a sentence; None if it does.

    Its input is as wide as two vectors of the target, and it attends to the keys and values that the target's last
    layers of either kind have. llama.cpp compares none of this, and proposes nonsense where it differs.
    """
    assert isinstance(drafter, gemma4.TextConfig)
    pairs: list[tuple[str, object, object]] = [
        ("a target of width", drafter.backbone_hidden_size, target.hidden_size),
        ("a vocabulary of", drafter.vocab_size, target.vocab_size),
    ]
    for kind, local in (("sliding-window", True), ("global", False)):
        own, other = (_keys(config, local=local) for config in (drafter, target))
        if own is not None:
            pairs += [
                (f"{kind} layers with keys of", own.kv_width, other and other.kv_width),
                (f"{kind} layers with heads of", own.head_dim, other and other.head_dim),
                (f"{kind} layers with a window of", own.window, other and other.window),
            ]
    return next((f"it is for {what} {own}, not {other or 'none'}" for what, own, other in pairs if own != other), None)


def _keys(config: TextConfig, *, local: bool) -> Layer | None:
    """The last layer of a kind, which has the keys and values that all later ones share."""
    return next((layer for layer in reversed(config.layers) if layer.is_local == local), None)


TARGET = Target(family="gemma4", misfit=misfit)
