"""Held-out metrics, against a computation in plain float64."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from gemmaq.qat import evaluation  # noqa: E402
from gemmaq.qat.evaluation import Meter  # noqa: E402


@pytest.mark.parametrize("narrowest", [1, 7, 39, 40, 1024])
def test_metrics_are_those_of_the_formulas(narrowest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part of the vocabulary is looked at at a time."""
    monkeypatch.setattr(evaluation, "_LOGITS", 1)
    monkeypatch.setattr(evaluation, "_NARROWEST", narrowest)
    torch.manual_seed(0)
    ids = torch.randint(0, 40, (3, 7))
    student, teacher, rows = torch.randn(3, 7, 16), torch.randn(3, 7, 16), torch.randn(40, 16)
    meter = Meter(None, torch.float32)
    for part in (slice(0, 2), slice(2, 3)):
        meter.add(ids[part], student=student[part], teacher=teacher[part], student_rows=rows, teacher_rows=rows)
    result = meter.result()
    q = (student[:, :-1].double() @ rows.double().T).log_softmax(-1)
    p = (teacher[:, :-1].double() @ rows.double().T).log_softmax(-1)
    targets = ids[:, 1:, None]
    assert result.tokens == 18
    assert result.perplexity == pytest.approx(float((-q.gather(2, targets).mean()).exp()), rel=1e-5)
    assert result.reference == pytest.approx(float((-p.gather(2, targets).mean()).exp()), rel=1e-5)
    assert result.divergence == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-5)
    assert result.agreement == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))


def test_a_model_does_not_differ_from_itself() -> None:
    ids, hidden, rows = torch.randint(0, 40, (1, 9)), torch.randn(1, 9, 16), torch.randn(40, 16)
    meter = Meter(30.0, torch.float32)
    meter.add(ids, student=hidden, teacher=hidden, student_rows=rows, teacher_rows=rows)
    document = meter.result().document()
    assert document["kl"] == 0 and document["top1"] == 1
    assert document["perplexity"] == document["teacher_perplexity"]
