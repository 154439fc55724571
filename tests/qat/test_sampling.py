"""Samples of the teacher's distribution on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gemmaq.errors import OutputError  # noqa: E402
from gemmaq.inference.divergence import Head, logits  # noqa: E402
from gemmaq.qat import sampling  # noqa: E402
from gemmaq.qat.data import TokenDataset  # noqa: E402

ROWS = torch.randn(24, 8, generator=torch.Generator().manual_seed(1))
HEAD = Head(None, None, torch.float32, None, 24)
DATA = TokenDataset(np.arange(20).reshape(4, 5), np.zeros((1, 5), np.int64), ("a.txt",), "digest")


def teacher(ids: torch.Tensor, head_fn: Any) -> Any:
    """A network whose hidden states are rows of its embedding."""
    return head_fn(ROWS[ids], ROWS)


def draw(work: Path, count: int, seed: int = 0) -> sampling.Samples:
    cpu = torch.device("cpu")
    return sampling.draw(
        teacher, HEAD, DATA, count=count, seed=seed, device=cpu, work=work, progress=lambda done, total: None
    )


def test_all_samples_together_are_the_distribution(tmp_path: Path) -> None:
    ids, shares = draw(tmp_path, 24).of(torch.tensor([2, 0]))
    assert torch.equal(ids, torch.arange(24).expand(2, 5, 24).to(torch.int32))
    expected = logits(ROWS[torch.from_numpy(DATA.train[[2, 0]])].flatten(0, 1), ROWS, None, torch.float32).softmax(-1)
    assert torch.allclose(shares.flatten(0, 1), expected, atol=1e-6)


def test_samples_are_distinct_sum_to_one_and_are_found_again(tmp_path: Path) -> None:
    drawn = draw(tmp_path, 6)
    assert all(len(set(position)) == 6 for position in drawn.ids.reshape(-1, 6).tolist())
    assert np.allclose(drawn.shares.sum(-1), 1)
    again = sampling.load(tmp_path, DATA, 6, torch.device("cpu"))
    assert again is not None and np.array_equal(again.ids, drawn.ids)
    assert sampling.load(tmp_path, DATA, 7, torch.device("cpu")) is None
    assert not np.array_equal(draw(tmp_path, 6, seed=1).ids, again.ids)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="samples cannot be written"):
        draw(tmp_path / "missing", 6)
