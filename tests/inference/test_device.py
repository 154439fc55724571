"""Devices: workers of the CPU, and names that lead nowhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gemmaq.errors import UsageError
from gemmaq.inference import device as devices
from gemmaq.inference.device import open_device, require_torch
from oracles import need


@pytest.fixture(scope="module", autouse=True)
def _torch(require: Callable[[bool, str], None]) -> None:
    need(require, "torch", "transformers")


def test_workers_keep_the_order_and_take_one_thread_each() -> None:
    import torch

    before = torch.get_num_threads()
    with open_device("cpu", 3) as device:
        assert device.batch == 1
        assert device.map(lambda n: (n, torch.get_num_threads(), torch.is_grad_enabled()), range(20)) == [
            (n, 1, False) for n in range(20)
        ]
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled() and torch.get_num_threads() == before


def test_a_failure_of_a_worker_is_raised() -> None:
    def fail(n: int) -> int:
        raise ZeroDivisionError(n)

    with pytest.raises(ZeroDivisionError), open_device("cpu", 2) as device:
        device.map(fail, range(3))


@pytest.mark.parametrize("name", ["nope", "cpu:x", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(UsageError, match=name) as told, open_device(name, 1):
        pass
    assert "cpu" in str(told.value.hint)


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    require_torch("evaluate")
    monkeypatch.setattr(devices, "find_spec", lambda name: None if name == "transformers" else object())
    with pytest.raises(UsageError, match="evaluate needs transformers") as told:
        require_torch("evaluate")
    assert "pip install" in str(told.value.hint)


def test_free_memory_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    free = devices.free_memory(torch.device("cpu"))
    assert free is None or 10**7 < free < 10**14
    said = tmp_path / "meminfo"
    monkeypatch.setattr(devices, "Path", lambda _: said)
    assert devices.free_memory(torch.device("cpu")) is None
    said.write_text("MemTotal:       9 kB\nMemAvailable:       2000 kB\nHugePages_Total:       0\n")
    assert devices.free_memory(torch.device("cpu")) == 2000 * 1024


@pytest.mark.parametrize(
    ("name", "words"),
    [("gpu", "unknown device 'gpu'"), ("mps", "is not available here: torch finds none"), ("meta", "cannot compute")],
)
def test_a_device_that_is_not_there_is_told_in_our_words(name: str, words: str) -> None:
    import torch

    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("it is there")
    with pytest.raises(UsageError) as told, open_device(name, 1):
        pass
    assert words in told.value.message and len(told.value.message) < 100 and told.value.hint
