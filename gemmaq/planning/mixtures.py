"""The named mixtures of llama-quantize and mlx_lm: one type for most matrices of the layers, another one for some.

Source: llama.cpp's llama-quant.cpp, the choice of types for dense models and for those with other than 8 experts, and
mlx_lm.convert, its predicates for mixed quantization.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.models.roles import DOWN, DOWN_EXPERTS, GATE, GATE_UP_EXPERTS, KEY, OUTPUT, QUERY, UP, VALUE


@dataclass(frozen=True, slots=True)
class Spot:
    """What llama-quantize looks at when it chooses the type of a layer's matrix.

    Attributes:
        kind: kind of the matrix (`Place.kind`).
        number: how many matrices of this kind come before it: the index of its layer, if every layer has one.
        count: number of matrices of this kind.
        layer: index of its layer.
        layers: number of layers.
        sharing: query heads of the first layer that share a KV head.
        experts: number of experts, 0 for none.
        calibrated: whether its codes are chosen on an importance matrix or on text.
        weighted: whether its errors are weighed with an importance matrix, for this container alone: no other one
            that may not hold the type takes the same codes.
    """

    kind: str
    number: int
    count: int
    layer: int = 0
    layers: int = 1
    sharing: int = 1
    experts: int = 0
    calibrated: bool = False
    weighted: bool = False


_Test = Callable[[Spot], bool]


@dataclass(frozen=True, slots=True)
class Other:
    """Matrices of a mixture that get another type than the rest.

    Attributes:
        kinds: kinds of the matrices (`Place.kind`).
        when: whether a matrix of this kind is one of them.
        encoding: type they get.
    """

    kinds: tuple[str, ...]
    when: _Test
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Mixture:
    """Types of a model's matrices.

    Attributes:
        name: the name users type, lower case.
        file_type: GGUF's general.file_type (llama.cpp's llama_ftype), None for mixtures of MLX.
        body: type of most of them.
        others: exceptions, the first that applies counts.
        head: type of the head, which in GGUF most often is the embedding.
        table: type of an embedding that is only looked up, None for that of the body.
        weighs_body: whether matrices in the body's type need an importance matrix here, though the type does not.
    """

    name: str
    file_type: int | None
    body: Encoding
    others: tuple[Other, ...] = ()
    head: Encoding = ENCODINGS["q6_k"]
    table: Encoding | None = None
    weighs_body: bool = False

    @property
    def label(self) -> str:
        """The name as file names show it (`Q4_K_M`)."""
        return self.name.upper()

    @property
    def needs_importance(self) -> bool:
        """Whether some of its matrices need an importance matrix."""
        return any(self.weighs(encoding) for encoding in (self.body, *(other.encoding for other in self.others)))

    def weighs(self, encoding: Encoding) -> bool:
        """Whether a layer's matrix of this mixture needs an importance matrix in a type."""
        return encoding.needs_importance or (self.weighs_body and encoding == self.body)

    def encoding_of(self, spot: Spot) -> Encoding:
        """The type of a layer's matrix."""
        return next((o.encoding for o in self.others if spot.kind in o.kinds and o.when(spot)), self.body)


def _always(spot: Spot) -> bool:
    del spot
    return True


def _first_eighth(spot: Spot) -> bool:
    return spot.number < spot.count // 8


def _first_sixteenth(spot: Spot) -> bool:
    return spot.number < spot.count // 16


def _between_eighths(spot: Spot) -> bool:
    return spot.count // 8 <= spot.number < 7 * spot.count // 8


def _ends_and_every_third(spot: Spot) -> bool:
    """The first and the last eighth, and every third matrix between: half of them."""
    return not _between_eighths(spot) or (spot.number - spot.count // 8) % 3 == 2


def _first(count: int) -> _Test:
    return lambda spot: spot.number < count


def _first_eighth_unless_calibrated(spot: Spot) -> bool:
    return _first_eighth(spot) and not spot.calibrated


def _first_eighth_if_weighted(spot: Spot) -> bool:
    return _first_eighth(spot) and spot.weighted


def _uncalibrated(spot: Spot) -> bool:
    return not spot.calibrated


def _first_of_all(spot: Spot) -> bool:
    """As many matrices as an eighth of the layers; those of experts are counted in between."""
    number = 2 * spot.number + (spot.kind == DOWN_EXPERTS) if spot.experts else spot.number
    return number < spot.count // 8


def _four_share(spot: Spot) -> bool:
    """At least four query heads share a KV head: 270M, 1B, E2B, E4B."""
    return spot.sharing >= 4


def _four_share_or_experts(spot: Spot) -> bool:
    return _four_share(spot) or spot.experts >= 4


def _mixture(
    name: str,
    file_type: int,
    body: str,
    *others: tuple[str | tuple[str, ...], _Test, str],
    tables: tuple[str, str] | None = None,
    weighs_body: bool = False,
) -> Mixture:
    """A mixture from names of types; `tables` are those of the head and of an embedding that is only looked up."""
    exceptions = tuple(
        Other((kinds,) if isinstance(kinds, str) else kinds, when, ENCODINGS[kind]) for kinds, when, kind in others
    )
    head, table = (ENCODINGS[kind] for kind in tables or ("q6_k", body))
    return Mixture(name, file_type, ENCODINGS[body], exceptions, head, table, weighs_body)


def _more_bits(spot: Spot) -> bool:
    """mlx_lm's choice: as `_ends_and_every_third`, but by layer."""
    eighth = spot.layers // 8
    return spot.layer < eighth or spot.layer >= 7 * spot.layers // 8 or (spot.layer - eighth) % 3 == 2


def _of_mlx(low: int, high: int, group: int) -> Mixture:
    """A mixture of mlx_lm in groups of 64, its default, or of another size, which then is in the name."""
    few, many = (ENCODINGS[f"affine{bits}" + (f"-g{group}" if group != 32 else "")] for bits in (low, high))
    name = f"mixed_{low}_{high}" + (f"-g{group}" if group != 64 else "")
    return Mixture(name, None, few, (Other((VALUE, *_DOWN), _more_bits, many),), head=many, table=few)


_DOWN = (DOWN, DOWN_EXPERTS)
_HALF_IN_Q6_K = ((VALUE, *_DOWN), _ends_and_every_third, "q6_k")
_BELOW_2_5 = (VALUE, _four_share_or_experts, "q4_k"), (VALUE, _always, "q2_k"), (_DOWN, _first_of_all, "q2_k")
_ABOVE_2_5 = (
    (VALUE, _four_share_or_experts, "q4_k"), ((VALUE, OUTPUT), _always, "iq3_s"), (_DOWN, _first_of_all, "iq3_s"),
)  # fmt: skip
_IQ4 = (VALUE, _four_share, "q5_k"), (_DOWN, _first_eighth_unless_calibrated, "q5_k")

MIXTURES: dict[str, Mixture] = {
    m.name: m
    for m in (
        _mixture("q4_0", 2, "q4_0", (_DOWN, _first_eighth_if_weighted, "q4_1")),
        _mixture("q5_0", 8, "q5_0", (_DOWN, _first_eighth_if_weighted, "q5_1")),
        _mixture("q2_k", 10, "q2_k", (VALUE, _four_share, "q4_k"), ((VALUE, OUTPUT, *_DOWN), _always, "q3_k")),
        _mixture(
            "q2_k_s", 21, "q2_k", (VALUE, _four_share, "q4_k"), (_DOWN, _first_eighth, "q4_k"), weighs_body=True
        ),
        _mixture("q3_k_s", 11, "q3_k"),
        _mixture(
            "q3_k_m", 12, "q3_k",
            (VALUE, _first(2), "q5_k"), (_DOWN, _first_sixteenth, "q5_k"), ((VALUE, OUTPUT, *_DOWN), _always, "q4_k"),
        ),
        _mixture("q3_k_l", 13, "q3_k", ((VALUE, OUTPUT, *_DOWN), _always, "q5_k")),
        _mixture("q4_k_s", 14, "q4_k", (VALUE, _first(4), "q5_k"), (_DOWN, _first_eighth, "q5_k")),
        _mixture("q4_k_m", 15, "q4_k", _HALF_IN_Q6_K),
        _mixture("q5_k_s", 16, "q5_k"),
        _mixture("q5_k_m", 17, "q5_k", _HALF_IN_Q6_K),
        _mixture("iq4_nl", 25, "iq4_nl", *_IQ4),
        _mixture("iq4_xs", 30, "iq4_xs", *_IQ4),
        _mixture("iq3_m", 27, "iq3_s", ((VALUE, OUTPUT), _always, "q4_k"), (_DOWN, _first_eighth, "q4_k")),
        _mixture("iq3_s", 26, "iq3_s", (VALUE, _four_share, "q4_k")),
        _mixture(
            "iq3_xs", 22, "iq3_s", (VALUE, _four_share, "q4_k"), ((QUERY, KEY), _always, "iq3_xxs"),
            ((GATE, UP, GATE_UP_EXPERTS), _between_eighths, "iq3_xxs"),
        ),
        _mixture(
            "iq3_xxs", 23, "iq3_xxs",
            (VALUE, _four_share, "q4_k"), (VALUE, _uncalibrated, "iq3_s"), ((QUERY, KEY), _always, "iq2_s"),
            (_DOWN, _first_eighth_unless_calibrated, "q4_k"), (_DOWN, _uncalibrated, "q3_k"),
            (OUTPUT, _always, "iq3_s"),
            tables=("q5_k", "iq3_s"),
        ),
        _mixture("iq2_m", 29, "iq2_s", *_ABOVE_2_5, tables=("q5_k", "iq3_s")),
        _mixture("iq2_s", 28, "iq2_xs", *_ABOVE_2_5, tables=("q5_k", "iq3_s")),
        _mixture("iq2_xs", 20, "iq2_xs", *_BELOW_2_5, tables=("q5_k", "q2_k")),
        _mixture("iq2_xxs", 19, "iq2_xxs", *_BELOW_2_5, tables=("q5_k", "q2_k")),
        _mixture("mxfp4_moe", 38, "q8_0", ((GATE_UP_EXPERTS, DOWN_EXPERTS), _always, "mxfp4"), tables=("q8_0", "q8_0")),
        *(_of_mlx(low, high, group) for low, high in ((2, 6), (3, 4), (3, 6), (4, 6)) for group in (64, 32, 128)),
    )
}  # fmt: skip
"""Name -> mixture, those of the same body together."""
