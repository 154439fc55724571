"""The record and the curve beside trained weights."""

from __future__ import annotations

from gemmaq.qat.report import curve
from small import Trained


def test_the_record_names_its_inputs_and_no_path(trained: Trained) -> None:
    record = trained.record
    assert record["schema"] == "gemmaq.qat/1"
    assert record["settings"]["steps"] == len(record["losses"])
    assert set(record["evaluation"]["before"]) == set(record["evaluation"]["after"])
    assert str(trained.folder.parent) not in (trained.folder / "qat.json").read_text()


def test_the_same_losses_give_the_same_curve() -> None:
    losses = [1 / (step + 1) for step in range(50)]
    assert curve(losses) == curve(losses)
    assert b"mean of 2 steps" in curve(losses)
    assert b"KL, nats per token" in curve(losses) and b"squared error" in curve(losses, block_wise=True)
