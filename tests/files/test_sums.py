"""SHA256SUMS as a format: sha256sum reads what is written, and lists come back; broken ones are refused."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.errors import InputError
from gemmaq.files import sums

DIGEST = hashlib.sha256(b"x").hexdigest()
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(names=st.sets(NAMES, max_size=8))
def test_lists_come_back(names: set[str]) -> None:
    digests = dict.fromkeys(names, DIGEST)
    assert sums.parse(sums.text(digests), "SHA256SUMS") == digests


def test_sha256sum_reads_any_name(tmp_path: Path) -> None:
    names = ["plain", "two words", "back\\slash", "line\nbreak", "re\rturn", "\\n", "*", "é"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / sums.NAME).write_bytes(sums.text(dict.fromkeys(names, DIGEST)))
    subprocess.run(["sha256sum", "-c", "--strict", "--quiet", sums.NAME], cwd=tmp_path, check=True)
    assert sums.read(tmp_path) == dict.fromkeys(names, DIGEST)
    assert sums.read(tmp_path.parent) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\n", "not UTF-8"),
        (f"{DIGEST}  a".encode(), "cut short"),
        (f"{DIGEST} a\n".encode(), "not in the format"),
        (f"{DIGEST[1:]}  a\n".encode(), "not in the format"),
        (b"\n", "not in the format"),
        (f"{DIGEST}  a\n{DIGEST} *a\n".encode(), "lists a twice"),
    ],
)
def test_broken_lists_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        sums.parse(data, "SHA256SUMS")
