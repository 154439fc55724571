"""Sealed folders: whatever changes in one is found, and the last one that is intact is used."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq.errors import InputError
from gemmaq.files import sealed


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three sealed folders."""
    for number in (2, 10, 9):
        folder = tmp_path / f"step-{number}"
        folder.mkdir()
        (folder / "weights").write_bytes(b"weights %d" % number)
        (folder / "state").write_bytes(b"state")
        sealed.seal(folder)
    return sealed.numbered(tmp_path.glob("step-*"))


def test_folders_are_in_the_order_of_their_numbers(folders: list[Path], tmp_path: Path) -> None:
    for name in ("step-x", "step-", "step-" + "9" * 30, "step-\u0663"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-11").touch()
    assert [folder.name for folder in sealed.numbered(tmp_path.iterdir())] == ["step-2", "step-9", "step-10"]


def test_the_last_one_is_used(folders: list[Path]) -> None:
    assert sealed.last(folders, "") == sealed.Last(folders[-1])
    assert sealed.last([], "") == sealed.Last(None)


@settings(deadline=None)
@given(data=st.data())
def test_every_flipped_bit_is_found(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("sealed")
    (folder / "weights").write_bytes(bytes(range(64)))
    (folder / "state.json").write_bytes(b'{"step": 12}')
    sealed.seal(folder)
    assert sealed.fault(folder) is None
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    assert sealed.fault(folder) is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "weights").unlink(), "step-10 lacks weights"),
        (lambda folder: (folder / "weights").write_bytes(b""), "step-10/weights is damaged"),
        (lambda folder: (folder / "more").touch(), "step-10 holds more"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "step-10 has no SHA256SUMS"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b"\xff"), "step-10/SHA256SUMS is not UTF-8"),
    ],
)
def test_a_damaged_one_is_passed_over(folders: list[Path], change, words: str) -> None:
    change(folders[-1])
    found = sealed.last(folders, "")
    assert found.folder == folders[-2]
    assert words in found.passed[0]


def test_an_empty_one_counts_as_none(folders: list[Path], tmp_path: Path) -> None:
    (tmp_path / "step-11").mkdir()
    assert sealed.last([*folders, tmp_path / "step-11"], "") == sealed.Last(folders[-1])
    assert sealed.last([tmp_path / "step-11"], "") == sealed.Last(None)


def test_where_all_are_damaged_none_is_used(folders: list[Path]) -> None:
    for folder in folders:
        (folder / "state").write_bytes(b"other")
    with pytest.raises(InputError, match="holds nothing to go on from: step-10/state is damaged") as caught:
        sealed.last(folders, "begin anew")
    assert caught.value.hint == "begin anew"
