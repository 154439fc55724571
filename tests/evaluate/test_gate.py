"""What passes a gate."""

import numpy as np
import pytest

from gemmaq.errors import UsageError
from gemmaq.evaluate.gate import Gate, gate
from gemmaq.evaluate.score import Score

SCORE = Score(np.ones(4), np.array([0.1, 0.3, 0.2, 0.2]), np.array([True, True, True, False]))
"""Mean KL 0.2, top-1 75 %."""


@pytest.mark.parametrize(
    "limits, missed",
    [
        (Gate(), []),
        (Gate(max_kl=0.21, min_top1=0.75), []),
        (Gate(max_kl=0.19), ["mean KL 0.2000 is above 0.19"]),
        (Gate(max_kl=0.05, min_top1=0.985), ["mean KL 0.2000 is above 0.05", "top-1 75.00 % is below 98.5 %"]),
    ],
)
def test_a_score_misses_the_limits_that_it_is_beyond(limits, missed):
    assert limits.missed(SCORE) == missed


def test_what_is_not_a_number_passes_no_limit():
    lost = Score(np.ones(1), np.array([np.nan]), np.array([True]))
    assert Gate(max_kl=1.0).missed(lost)


def test_without_limits_there_is_no_gate():
    assert not gate(None, None) and gate(0.1, None) and gate(None, "1")


@pytest.mark.parametrize(
    "text, share", [("98%", 0.98), ("98.5 %", 0.985), ("0.98", 0.98), (".9", 0.9), ("100%", 1), ("1", 1)]
)
def test_shares_as_people_type_them(text, share):
    assert gate(None, text).min_top1 == pytest.approx(share)


@pytest.mark.parametrize("text", ["98", "0", "0%", "101%", "-5%", "nan", "", "0.9.1", "٩٨%"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError, match="--min-top1"):
        gate(None, text)


@pytest.mark.parametrize("limit", [0.0, -0.1, float("nan"), float("inf")])
def test_what_is_no_divergence_is_refused(limit):
    with pytest.raises(UsageError, match="--max-kl"):
        gate(limit, None)
