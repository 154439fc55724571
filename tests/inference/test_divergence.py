"""The loss: its vocabulary, and the same sum however it is computed."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gemmaq.inference import divergence as loss  # noqa: E402
from gemmaq.inference.divergence import Head, frequent  # noqa: E402


def test_frequent_tokens_come_with_those_that_must_be_there() -> None:
    tokens = np.array([[5, 5, 5, 3], [3, 9, 9, 9]])
    assert frequent(tokens, 3, (1, None), 20).tolist() == [1, 5, 9]
    assert frequent(tokens, 5, (1,), 20).tolist() == [0, 1, 3, 5, 9]
    assert frequent(tokens, 0, (1,), 20) is None
    assert frequent(tokens, 20, (1,), 20) is None


@pytest.mark.parametrize("cap", [None, 5.0])
def test_divergence_is_the_same_in_slabs(monkeypatch: pytest.MonkeyPatch, cap: float | None) -> None:
    torch.manual_seed(0)
    rows, student, teacher = torch.randn(50, 16), torch.randn(12, 16, requires_grad=True), torch.randn(12, 16)
    head = Head(None, cap, torch.float32, None, 50)

    def divergence() -> tuple[float, torch.Tensor]:
        student.grad = None
        total = head.divergence(student, teacher, student_rows=head.rows_of(rows), teacher_rows=rows)
        total.backward()
        return float(total.detach()), student.grad

    whole, gradient = divergence()
    p = loss.logits(teacher, rows, cap, torch.float32).log_softmax(-1)
    q = loss.logits(student, rows, cap, torch.float32).log_softmax(-1)
    assert whole == pytest.approx(float((p.exp() * (p - q)).sum().detach()), rel=1e-5)
    monkeypatch.setattr(loss, "SLAB", 150)
    parts, other = divergence()
    assert parts == pytest.approx(whole, rel=1e-6)
    assert torch.allclose(gradient, other, atol=1e-6)
