"""The state of a measurement on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from damage import flip
from gemmaq.calibration.sensitivity_work import Work, bytes_kept
from gemmaq.errors import InputError, OutputError
from gemmaq.inference.batch import Batch
from gemmaq.inference.device import open_device

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


@pytest.fixture
def work(tmp_path: Path):
    with open_device("cpu", 1) as device:
        yield Work(tmp_path / "work", device)


def batch(value: float) -> Batch:
    import torch

    shared = {"full_attention": (torch.full((1, 2, 4), value), torch.full((1, 2, 4), -value))}
    return Batch(torch.full((1, 4, 8), value), torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 3, 2), shared)


def test_batches_come_back_as_they_were(work: Work) -> None:
    import torch

    assert work.begin({"text": "a"}, resume=False) == 0
    work.opened(1).save("00000", 0, batch(0.1))
    work.close(1, {"probes": {}})
    back = work.before(1).load("00000", 0, like := batch(7))
    assert torch.equal(back.hidden, batch(0.1).hidden)
    assert back.places is like.places
    assert back.inputs is like.inputs
    for ours, theirs in zip(back.shared["full_attention"], batch(0.1).shared["full_attention"], strict=True):
        assert torch.equal(ours, theirs)


def test_a_layer_counts_when_it_is_closed(work: Work) -> None:
    work.begin({"text": "a"}, resume=False)
    work.opened(1).save("00000", 0, batch(1))
    assert work.begin({"text": "a"}, resume=True) == 0
    work.close(1, {"errors": {"00000": 1}})
    assert work.begin({"text": "a"}, resume=True) == 1
    assert work.found(1) == {"errors": {"00000": 1}}
    work.opened(2).save("00000", 0, batch(2))
    work.close(2, {})
    assert sorted(path.name for path in work.folder.iterdir()) == ["job.json", "layer-0001", "layer-0002"]
    work.opened(3)
    assert sorted(path.name for path in work.folder.iterdir()) == ["job.json", "layer-0002", "layer-0003.partial"]


@pytest.fixture
def two(work: Work) -> Work:
    """A measurement that was broken off after its second layer."""
    work.begin({"text": "a"}, resume=False)
    for index in (1, 2):
        work.opened(index).save("00000", 0, batch(index))
        work.close(index, {"errors": {"00000": index}})
    return work


@pytest.mark.parametrize("name", ["00000.0.npz", "found.json", "SHA256SUMS"])
@pytest.mark.parametrize("at", [0, 0.5, 1])
def test_a_flipped_bit_leads_back_to_the_layer_before(two: Work, name: str, at: float) -> None:
    flip(two.before(2).folder / name, at)
    assert two.begin({"text": "a"}, resume=True) == 1
    assert two.found(1) == {"errors": {"00000": 1}}
    two.opened(2).save("00000", 0, batch(2))
    two.close(2, {})
    assert two.begin({"text": "a"}, resume=True) == 2


def test_an_empty_layer_counts_as_none(two: Work) -> None:
    (two.folder / "layer-0003").mkdir()
    assert two.begin({"text": "a"}, resume=True) == 2
    two.opened(3)
    two.close(3, {})
    assert two.begin({"text": "a"}, resume=True) == 3


def test_where_all_layers_are_damaged_the_measurement_is_not_gone_on_with(two: Work) -> None:
    for index in (1, 2):
        flip(two.before(index).folder / "00000.0.npz", 0.5)
    with pytest.raises(InputError, match=r"layer-0002/00000\.0\.npz is damaged") as caught:
        two.begin({"text": "a"}, resume=True)
    assert caught.value.hint == "begin again with --force"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_job_is_refused(two: Work, content: bytes) -> None:
    (two.folder / "job.json").write_bytes(content)
    with pytest.raises(InputError, match=r"job\.json"):
        two.begin({"text": "a"}, resume=True)


def test_a_folder_with_other_files_is_not_used(work: Work) -> None:
    work.folder.mkdir()
    (work.folder / "thesis.txt").touch()
    with pytest.raises(OutputError, match=r"holds thesis\.txt, but no job\.json"):
        work.begin({"text": "a"}, resume=True)


def test_a_folder_is_not_taken_for_another_measurement(work: Work, tmp_path: Path) -> None:
    work.begin({"text": "a"}, resume=True)
    with pytest.raises(OutputError, match="not finished"):
        work.begin({"text": "a"}, resume=False)
    with pytest.raises(InputError, match="another model"):
        work.begin({"text": "b"}, resume=True)
    with pytest.raises(OutputError, match="cannot be made"):
        Work(tmp_path / "none" / "work", work.device).begin({}, resume=False)


def test_two_layers_of_activations_are_on_disk() -> None:
    assert bytes_kept(10, (100, 1000), 8) == 2 * 4 * 8 * (10 * 100 + 1000)
