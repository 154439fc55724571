"""Where llama.cpp puts the parts of a model: several cards that need not be alike, and main memory for the rest.

llama.cpp puts the last `-ngl` of the layers on the cards, the output counting as one behind the last, and spreads them
in order by `--tensor-split`, here whole numbers of layers. A layer's cache lies with the layer. `--n-cpu-moe N` keeps
the experts of the first N layers in main memory. Token embeddings always lie there, and once more with the output.
Source: llama.cpp v0.5.0, llama_model::load_tensors and llama_context.

Weights and caches are those of llama.cpp (tests/benchmarks/placement.py compares them with its Vulkan backend). Scratch
memory is that of the part of the graph that a card computes, with copies of what lies elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gemmaq.errors import UsageError
from gemmaq.vram import Engine, Estimate, Load, estimate
from gemmaq.vram.cards import Card
from gemmaq.vram.fit import Fit, capacity, max_context, room
from gemmaq.vram.weights import Build

_ENGINE = "llama.cpp"
_COPIES = 4
"""Batches that cards work on at a time (GGML_SCHED_MAX_COPIES), each with inputs of its own."""
_TRIED = 5
"""Numbers of layers in main memory that are tried one by one."""
_STEPS = 48
"""Halvings of the memory that is kept free on every card."""


@dataclass(frozen=True, slots=True)
class Device:
    """What lies on one card, in bytes; towers, a drafter and their scratch memory lie on the first.

    Attributes:
        card: The card.
        capacity: Bytes of it that the engine uses at most.
        layers: Layers on it, the output among them.
        weights: Tensors of the text model.
        kv: Caches of its layers.
        compute: Scratch memory.
        beside: Towers and drafter with their scratch memory.
        overhead: Memory of the driver.
    """

    card: Card
    capacity: int
    layers: int
    weights: int
    kv: int
    compute: int
    beside: int
    overhead: int

    @property
    def total(self) -> int:
        """Bytes of everything on it."""
        return self.weights + self.kv + self.compute + self.beside + self.overhead

    @property
    def room(self) -> int:
        """Bytes left, negative if too few."""
        return self.capacity - self.total


@dataclass(frozen=True, slots=True)
class Placement:
    """A model on cards and in main memory.

    Attributes:
        devices: The cards, in the order in which they were named; several of a kind are one each.
        host: Bytes in main memory.
        ngl: Layers on cards, the output among them; None if the engine has no such choice.
        depth: Layers of the model, and one for the output.
        cpu_moe: Layers whose experts lie in main memory, the first ones.
    """

    devices: tuple[Device, ...]
    host: int
    ngl: int | None
    depth: int
    cpu_moe: int = 0

    @property
    def room(self) -> int:
        """Bytes left on the card that has the fewest."""
        return min(device.room for device in self.devices)

    @property
    def fits(self) -> bool:
        """Whether everything that is to lie on a card has room there."""
        return self.room >= 0

    @property
    def split(self) -> tuple[int, ...]:
        """Layers of every card, as `--tensor-split` takes them."""
        return tuple(device.layers for device in self.devices)


def each(cards: Sequence[Card]) -> list[Card]:
    """Cards one by one: several of a kind are one each."""
    return [
        Card(card.name.split("x ", 1)[-1] if card.count > 1 else card.name, card.bytes // card.count, part)
        for card in cards
        for part in [card.usable // card.count] * card.count
    ]


def place(engine: Engine, build: Build, load: Load, cards: Sequence[Card], *, offload: bool = False) -> Placement:
    """Where a model lies on cards that are used together, as evenly full as its layers allow.

    Args:
        engine: Engine that runs it.
        build: The model in its types.
        load: Settings of the run.
        cards: Cards; layers are spread over all of them.
        offload: Whether main memory takes what has no room: experts of as few layers as possible, then those of all
            and as few whole layers as possible. Otherwise all lies on the cards, and `room` is negative where that is
            too much.

    Raises:
        UsageError: The model or the engine does not support these settings, or the engine no such placement.
    """
    single = each(cards)
    if engine.name != _ENGINE:
        if offload or len({card.usable for card in single}) > 1:
            raise UsageError(
                f"how {engine.title} spreads a model over unequal cards and main memory is not known",
                "take llama.cpp: --engine llama.cpp",
            )
        return _alike(engine, build, load, cards[0], single)
    if not build.model.by_layer:
        raise UsageError(f"the bytes of the layers of {build.model.name} are not known", "name a size or a file")
    spread = _Spread(engine, build, load, single)
    whole = spread.best(spread.depth, 0)
    if whole.fits or not offload:
        return whole
    experts = spread.depth - 1 if build.model.experts else 0
    if experts:
        found = _first(lambda count: spread.best(spread.depth, count), experts)
        if found.fits:
            return found
    return _first(lambda left: spread.best(spread.depth - left, experts), spread.depth)


def fit_together(engine: Engine, build: Build, load: Load, cards: Sequence[Card], others: Sequence[Build]) -> Fit:
    """How a model fits cards that share it; `room` is that of the card with the least.

    Args:
        engine: Engine that runs it.
        build: The model in its types.
        load: Settings of the run.
        cards: The cards; the result has one that stands for them.
        others: The same model in other types, the largest first.

    Raises:
        UsageError: As for `place`.
    """
    single = each(cards)
    found = place(engine, build, load, cards)

    def fits(other: Build, settings: Load) -> bool:
        if engine.name != _ENGINE:
            return place(engine, other, settings, cards).fits
        return _Spread(engine, other, settings, single).holds_all

    return Fit(
        Card(
            " + ".join(card.name for card in cards),
            sum(card.bytes for card in cards),
            sum(card.usable for card in cards),
            len(single),
        ),
        sum(device.capacity for device in found.devices),
        found.room,
        max_context(build, load, lambda settings: fits(build, settings)),
        next((other.quant for other in others if fits(other, load)), None),
    )


def _first(make: Callable[[int], Placement], most: int) -> Placement:
    """Placement of the least number from 1 to `most` that fits, that of `most` if none does.

    The first few are all tried: a global layer in main memory may take more scratch memory than it leaves room.
    """
    for number in range(1, min(_TRIED, most)):
        if (found := make(number)).fits:
            return found
    low, high = min(_TRIED, most) - 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if make(middle).fits else (middle, high)
    return make(high)


def _alike(engine: Engine, build: Build, load: Load, card: Card, single: Sequence[Card]) -> Placement:
    """An engine that takes cards of a kind as one, each with an equal part."""
    needed, count = estimate(engine, build.model, load), len(single)
    left = room(engine, build, load, card) // count
    parts = [(needed.weights // count, needed.kv // count, needed.compute, (needed.vision + needed.draft) // count)]
    devices = tuple(
        Device(one, capacity(engine, one), 0, *parts[0], overhead=capacity(engine, one) - left - sum(parts[0]))
        for one in single
    )
    return Placement(devices, needed.host, None, len(build.model.config.layers) + 1)


class _Spread:
    """Placements of one model on the same cards."""

    def __init__(self, engine: Engine, build: Build, load: Load, cards: Sequence[Card]) -> None:
        from gemmaq.vram.engines import llama_cpp

        self.engine, self.model, self.load, self.cards = engine, build.model, load, cards
        self.needed: Estimate = estimate(engine, build.model, load)
        self.caches = llama_cpp.layer_caches(build.model, load) or (0,) * len(build.model.by_layer)
        self.masks, self.hidden, inputs = llama_cpp.shared_inputs(build.model, load)
        self.states = self.hidden + inputs
        self.tail = build.model.weights - build.model.layer_table - sum(build.model.by_layer)
        self.depth = len(build.model.by_layer) + 1
        self.sources = [layer.kv_from for layer in build.model.config.layers]
        self.known: dict[tuple[int, tuple[int, int], int, int], int] = {}

    @property
    def holds_all(self) -> bool:
        """Whether the cards have room for everything."""
        return self._filled(self.depth, 0, 0).fits

    def best(self, ngl: int, cpu_moe: int) -> Placement:
        """Placement of the last `ngl` layers that leaves the most on the card with the least room."""
        least, most = -self.needed.total - self.masks * 64, max(capacity(self.engine, card) for card in self.cards)
        best = self._filled(ngl, cpu_moe, least)
        for _ in range(_STEPS):
            middle = (least + most) // 2
            tried = self._filled(ngl, cpu_moe, middle)
            if tried.room >= middle:
                best, least = tried, middle
            else:
                most = middle
            if most - least < 1 << 20:
                break
        return self._exact(best)

    def _exact(self, placement: Placement) -> Placement:
        """A placement with the scratch memory of just the layers of every card."""
        ngl = placement.ngl or 0
        start, devices = self.depth - ngl, []
        for number, device in enumerate(placement.devices):
            part = (start, start + device.layers)
            scratch = self._scratch(number, part, ngl, placement.cpu_moe)
            devices.append(replace(device, compute=scratch))
            start = part[1]
        return replace(placement, devices=tuple(devices))

    def _filled(self, ngl: int, cpu_moe: int, free: int) -> Placement:
        """Placement where every card but the last gets layers as long as so many bytes stay free on it.

        Scratch memory of the first card is that for all the layers.
        """
        start, devices = self.depth - ngl, []
        for number, card in enumerate(self.cards):
            end, last = start, number == len(self.cards) - 1
            while end < self.depth and (
                last or self._device(number, card, (start, end + 1), ngl, cpu_moe).room >= free
            ):
                end = self.depth if last else end + 1
            devices.append(self._device(number, card, (start, end), ngl, cpu_moe))
            start = end
        away = range(self.depth - ngl)
        host = self.needed.host + sum(self.model.by_layer[i] + self.caches[i] for i in away)
        host += sum(self.model.experts[max(0, self.depth - ngl) : cpu_moe])
        return Placement(tuple(devices), host, ngl, self.depth, cpu_moe)

    def _device(self, number: int, card: Card, part: tuple[int, int], ngl: int, cpu_moe: int) -> Device:
        own = range(part[0], min(part[1], self.depth - 1))
        weights = sum(self.model.by_layer[i] for i in own) - sum(self.model.experts[part[0] : min(part[1], cpu_moe)])
        weights += self.tail if part[1] == self.depth > part[0] else 0
        needed, most = self.needed, part[1] if number else self.depth
        return Device(
            card,
            capacity(self.engine, card),
            part[1] - part[0],
            weights,
            sum(self.caches[i] for i in own),
            self._scratch(number, (part[0], most), ngl, cpu_moe),
            beside=0 if number else needed.vision + needed.draft,
            overhead=needed.overhead,
        )

    def _scratch(self, number: int, part: tuple[int, int], ngl: int, cpu_moe: int) -> int:
        key = (number, part, ngl, cpu_moe)
        if key not in self.known:
            self.known[key] = self._computed(*key)
        return self.known[key]

    def _computed(self, number: int, part: tuple[int, int], ngl: int, cpu_moe: int) -> int:
        """Bytes of a card's compute buffer.

        Where all layers lie on several cards, it is that of the whole graph, and inputs and caches that lie elsewhere
        are copied once for each batch under way.
        """
        model, host, own = self.model, self.depth - ngl, range(part[0], min(part[1], self.depth - 1))
        if host or cpu_moe:
            if model.encoder:
                return self.needed.compute + (0 if number else model.largest)
            from gemmaq.vram.engines import llama_cpp
            from gemmaq.vram.engines.card_graph import Share

            experts = model.experts or (0,) * len(model.by_layer)
            weights = tuple(size - part for size, part in zip(model.by_layer, experts, strict=True))
            last = part[1] == self.depth > part[0]
            share = Share(own, number == 0, last, weights[:host], model.experts[: max(host, cpu_moe)])
            return llama_cpp.card_compute(model, self.load, share)
        size = self.needed.compute
        if len(self.cards) > 1:
            sources = {self.sources[i] for i in own} - set(own)
            crossing = self.states * (2 if number else 1) + (self.hidden if model.config.layer_embedding else 0)
            caches = sum(self.caches[source] for source in sources if source is not None)
            size += (_COPIES - 1) * self.masks + _COPIES * (crossing + caches)
        return size
