"""Names and places of text tensors: what all families have alike, and tables that each family fills."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from gemmaq.models.roles import DOWN, GATE, KEY, OUTPUT, QUERY, UP, VALUE, Place, Role

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"
MATRICES = {
    "self_attn.q_proj": QUERY,
    "self_attn.k_proj": KEY,
    "self_attn.v_proj": VALUE,
    "self_attn.o_proj": OUTPUT,
    "mlp.gate_proj": GATE,
    "mlp.up_proj": UP,
    "mlp.down_proj": DOWN,
}
"""Part of a layer -> kind of its matrix (`Place.kind`)."""

_OUTER = {
    EMBEDDING: ("token_embd.weight", Place(Role.EMBEDDING, kind="embedding")),
    FINAL_NORM: ("output_norm.weight", Place(Role.NORM, kind="norm")),
    HEAD: ("output.weight", Place(Role.HEAD, kind="head")),
}
_PREFIX = re.compile(r"((language_)?model\.)*")
"""Of the text model inside others: `model.language_model.` and the like, nothing in a bare text model."""
_IN_LAYER = re.compile(r"model\.layers\.(?P<layer>\d+)\.(?P<part>.+?)(\.weight)?")


def canonical(name: str, outside: Collection[str]) -> str | None:
    """Canonical name of a tensor in any Hugging Face spelling: that of the text-only layout, `model.` and the rest.

    Args:
        name: Name in any spelling.
        outside: Names of modules outside the text model.

    Returns:
        The name, None for a tensor outside the text model.
    """
    if any(module in outside for module in name.split(".")[:-1]):
        return None
    if name.endswith(HEAD):
        return HEAD
    return name if "." not in name else "model." + _PREFIX.sub("", name, count=1)


@dataclass(frozen=True)
class Table:
    """Canonical names of a family's text tensors, with their GGUF names and places.

    Attributes:
        layers: Part of a layer -> its name in a GGUF file behind the number of the layer.
        places: Part of a layer -> its role and kind; all others are norms.
        outer: Name of a tensor outside the layers -> its GGUF name and place, but for those that all families have.
        bare: Parts whose canonical names do not end in `.weight`.
    """

    layers: Mapping[str, str]
    places: Mapping[str, tuple[Role, str]]
    outer: Mapping[str, tuple[str, Place]]
    bare: Collection[str] = ()

    @cached_property
    def _outside_layers(self) -> Mapping[str, tuple[str, Place]]:
        return {**_OUTER, **self.outer}

    def in_layer(self, layer: int, part: str, /) -> str:
        """Canonical name of a decoder layer's tensor."""
        return f"model.layers.{layer}.{part}" + ("" if part in self.bare else ".weight")

    def to_gguf(self, name: str, /) -> str:
        """GGUF name of a canonical name."""
        if name in self._outside_layers:
            return self._outside_layers[name][0]
        match = _IN_LAYER.fullmatch(name)
        assert match is not None
        return f"blk.{match['layer']}.{self.layers[match['part']]}"

    def from_gguf(self, name: str, /) -> str | None:
        """Canonical name of a GGUF tensor, None if the text model has no such tensor."""
        block, _, rest = name.partition(".")
        layer, _, inside = rest.partition(".")
        if block == "blk" and layer.isdecimal():
            return next((self.in_layer(int(layer), part) for part, gguf in self.layers.items() if gguf == inside), None)
        return next((ours for ours, (gguf, _) in self._outside_layers.items() if gguf == name), None)

    def place(self, name: str, /) -> Place:
        """Place of a canonical name in the model; for a name that no model has, the role is SCALAR."""
        if name in self._outside_layers:
            return self._outside_layers[name][1]
        match = _IN_LAYER.fullmatch(name)
        if match is None or match["part"] not in self.layers:
            return Place(Role.SCALAR)
        role, kind = self.places.get(match["part"], (Role.NORM, "norm"))
        return Place(role, int(match["layer"]), match["part"], kind)
