"""Small text and JSON files: what is read, and that every refusal names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.errors import InputError, NotFoundError
from gemmaq.files import text, whole
from gemmaq.files.text import check_json, read_card, read_json, read_text


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    for read in (read_text, read_json):
        with pytest.raises(NotFoundError, match=r"absent\.json does not exist"):
            read(tmp_path / "absent.json")
    assert read_json(tmp_path / "absent.json", {"a": 1}) == {"a": 1}
    assert read_card(tmp_path / "absent.md") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff{}", "is not UTF-8"),
        (b"{", "is not valid JSON"),
        (b"[1]", "does not hold a JSON object"),
        (b'{"a": "\\ud800"}', "is not valid JSON"),
        (b'{"a":' * 100_000, "is not valid JSON"),
    ],
)
def test_broken_json_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"config\.json {message}"):
        read_json(path)


def test_whole_surrogate_pairs_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": "\\ud83d\\ude00"}')
    assert read_json(tmp_path / "a.json") == {"a": "😀"}


def test_folders_and_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path)
    monkeypatch.setattr(whole, "_USUAL", 3)
    (tmp_path / "a.txt").write_text("four")
    with pytest.raises(InputError, match="too large"):
        read_text(tmp_path / "a.txt")


def test_json_of_too_many_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five bytes of a file become sixty of memory."""
    monkeypatch.setattr(text, "_MAX_VALUES", 100)
    for value in ("{}", "[]", "0", '"a"'):
        (tmp_path / "a.json").write_text('{"a": [' + ",".join([value] * 101) + "]}")
        with pytest.raises(InputError, match="more than 100 values"):
            read_json(tmp_path / "a.json")


def test_a_long_card_is_read_as_far_as_its_metadata(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    with card.open("wb") as file:
        file.write(b"---\nlicense: gemma\n---\n\xff")
        file.truncate(1 << 40)
    assert read_card(card) == {"license": "gemma"}
    card.write_text("---\n" + "a: 1\n" * 100_000 + "---\n")
    assert read_card(card) == {}


def test_metadata_of_a_card(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: gemma\ntags: [a]\n---\n# Model\n")
    assert read_card(card) == {"license": "gemma", "tags": ["a"]}
    card.write_text("---\nlicense: gemma\ntags: [a]\nquantized_by: gemmaq\n---\n")
    assert read_card(card) == {"license": "gemma", "quantized_by": "gemmaq"}
    for odd in ("# Model\n", "---\n- a\n---\n", "---\na: [\n---\n", "---\ndate: 2026-13-01\n---\n", "---"):
        card.write_text(odd)
        assert read_card(card) == {}


@pytest.mark.parametrize(
    ("content", "card"),
    [
        (b"---\nlicense: gemma\nauthor: M\xfcller\n---\n", {"license": "gemma", "author": "M\ufffdller"}),
        (b"---\nlicense: gemma\n---\n\xff\xfe\x00", {"license": "gemma"}),
        (b"\xef\xbb\xbf---\nlicense: gemma\n---\n", {"license": "gemma"}),
        ("---\nlicense: gemma\n---\n".encode("utf-16"), {}),
        (b"---\nlicense: \x00\n---\n", {}),
        (
            b"---\nlicense: gemma\nbase_model: 5\nlanguage: {en: 1}\ntags: [a, 1]\n---\n",
            {"license": "gemma", "tags": ["a"]},
        ),
        (b"---\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\n", {"a": ["x", "x"], "b": [], "c": []}),
        (b"version https://git-lfs.github.com/spec/v1\n", {}),
    ],
)
def test_no_card_makes_a_model_unusable(tmp_path: Path, content: bytes, card: dict[str, object]) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(content)
    assert read_card(path) == card
    path.unlink()
    path.mkdir()
    assert read_card(path) == {}


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": "\\ud800"}',
        b'{"a": "\\uDC00\\ud800"}',
        b'{"\\ud83d": 1}',
        b"[]",
        b'{"a": }',
        b'"\xff"',
        b"",
        b"{",
    ],
)
def test_a_file_that_is_only_looked_through_is_refused_alike(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as parsed:
        read_json(path)
    with pytest.raises(InputError) as looked_through:
        check_json(path)
    assert str(looked_through.value) == str(parsed.value)


@pytest.mark.parametrize(
    "content", [b"{}", b'{"a": ["\\ud83d\\ude00", "\\u00e9", 1e5, null]}', b'{"a": ' + b"9" * 2000 + b"}"]
)
def test_and_read_alike(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    assert isinstance(read_json(path), dict)
    check_json(path)
