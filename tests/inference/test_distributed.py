"""A group of one process, and batches that do not divide; several processes are tested by training."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.errors import UsageError

torch = pytest.importorskip("torch")

from gemmaq.inference.distributed import assign, gather, process_group  # noqa: E402


def test_one_process_is_a_group_of_its_own() -> None:
    with process_group("cpu", 3) as group:
        assert group.main and group.size == 1
        assert group.sum(1.5, 2.0) == [1.5, 2.0]
        assert group.mean(1.5) == 1.5
        assert group.any(True) and not group.any(False)
        assert group.part(np.arange(3)).tolist() == [0, 1, 2]


def test_values_are_assigned_and_gathered() -> None:
    target = torch.zeros(2, 3, dtype=torch.bfloat16)
    assign(target, torch.arange(6.0).reshape(2, 3))
    gathered = gather(target)
    assert gathered.dtype == torch.float32
    assert gathered.flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_a_batch_must_divide_among_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="a batch of 3 sequences does not divide among 2 processes"):
        process_group("cpu", 3).__enter__()
