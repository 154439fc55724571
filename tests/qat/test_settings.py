"""The learning rate over the steps."""

from __future__ import annotations

from gemmaq.qat.settings import Settings


def test_rates_rise_and_fall() -> None:
    settings = Settings(learning_rate=1.0)
    rates = [settings.rate(step, 100) for step in range(100)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0 and rates[-1] == 0.05
    assert sorted(rates[4:], reverse=True) == rates[4:]


def test_the_rate_stays_at_its_peak_until_the_number_of_steps_is_known() -> None:
    assert [Settings(learning_rate=1.0).rate(step, None) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
