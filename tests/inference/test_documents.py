"""Texts from files, and windows of tokens cut from them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq.errors import InputError, NotFoundError, UsageError
from gemmaq.inference.documents import KINDS, Document, by_kind, held_out, read, recorded, shipped, windows


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def write(content: str | bytes, name: str = "some.txt") -> Path:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


def lines(*entries: object) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


USER, ANSWER = {"role": "user", "content": "17 * 24?"}, {"role": "assistant", "content": "408"}


def test_plain_text_is_a_document_a_file(put):
    first, second = put("one\r\n\r\ntwo\n"), put("\ufeffthree", "other.md")
    found = read([first, second])
    assert found.documents == (Document("some.txt", "one\r\n\r\ntwo\n"), Document("other.md", "three"))
    assert found.names == ("some.txt", "other.md")


def test_json_lines_are_a_document_a_line(put):
    parts = [{"type": "text", "text": "17 "}, {"type": "image"}, {"type": "text", "text": "* 24?"}]
    system = {"role": "system", "content": "Be brief."}
    content = lines(
        {"messages": [USER, ANSWER]},
        {"text": "a text\n\nof two paragraphs"},
        [USER, {"role": "model", "content": "408"}],
        {"conversations": [system, {"role": "user", "content": parts}], "id": 7},
    )
    for name in ("some.jsonl", "some.NDJSON"):
        found = read([put(content.replace("\n", "\n \n"), name)]).documents
        assert [d.messages for d in found] == [(USER, ANSWER), (), (USER, ANSWER), (system, USER)]
        assert [d.text for d in found] == [
            "17 * 24?\n\n408", "a text\n\nof two paragraphs", "17 * 24?\n\n408", "Be brief.\n\n17 * 24?"
        ]  # fmt: skip
        assert {d.name for d in found} == {name}


def test_a_line_separator_within_a_string_ends_no_line(put):
    found = read([put(json.dumps({"text": "a\u2028b\x85c"}, ensure_ascii=False), "some.jsonl")])
    assert [d.text for d in found.documents] == ["a\u2028b\x85c"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"messages": [', "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ("1" * 5000, "line 2 is not JSON"),
        ('{"text": "\\ud800"}', "line 2 is not JSON: it spells half a surrogate pair"),
        ('[{"role": "user", "content": "\\udfff"}]', "line 2 is not JSON: it spells half a surrogate pair"),
        ("7", "line 2 has neither text nor messages"),
        ("null", "line 2 has neither text nor messages"),
        ("{}", "line 2 has neither text nor messages"),
        ('{"text": 7}', "line 2 has neither text nor messages"),
        ('{"messages": []}', "line 2 has neither text nor messages"),
        ('{"messages": {"role": "user"}}', "line 2 has neither text nor messages"),
        ('["hello"]', "line 2: a message needs a role"),
        ('[{"role": "user"}]', "line 2: a message needs a role"),
        ('[{"role": "user", "content": 7}]', "line 2: a message needs a role"),
        ('[{"role": "wizard", "content": "x"}]', "line 2: a message needs a role"),
        ('[{"role": ["user"], "content": "x"}]', "line 2: a message needs a role"),
        ('[{"content": "x"}]', "line 2: a message needs a role"),
    ],
)
def test_a_damaged_line_is_named(line, said, put):
    path = put(lines({"text": "good"}) + line + "\n", "some.jsonl")
    with pytest.raises(InputError) as told:
        read([path])
    assert str(path) in told.value.message and said in told.value.message
    assert len(told.value.message) < 400


def test_text_that_is_none_is_told(put, tmp_path):
    for content, name in ((b"", "some.txt"), (b" \n\t\n", "some.txt"), (b"\n\n", "some.jsonl")):
        with pytest.raises(InputError, match=r"there is no text in .*some\."):
            read([put(content, name)])
    with pytest.raises(InputError, match="there is no text"):
        read([])
    with pytest.raises(InputError, match="not UTF-8 text: byte 3"):
        read([put(b"abc\xff")])
    with pytest.raises(InputError, match="not UTF-8"):
        read([put("text".encode("utf-16"))])
    with pytest.raises(NotFoundError, match=r"absent\.txt does not exist"):
        read([tmp_path / "absent.txt"])
    with pytest.raises(InputError, match="cannot be read"):
        read([tmp_path])
    assert len(read([put("", "empty.txt"), put("text")]).documents) == 1


def test_text_may_come_from_a_pipe(tmp_path):
    """As from <(command) of a shell; what is neither a file nor a pipe is refused."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("from a command"))
    writer.start()
    assert [document.text for document in read([tmp_path / "pipe"]).documents] == ["from a command"]
    writer.join()
    for path in (tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="cannot be read"):
            read([path])


def test_the_digest_is_of_contents_in_their_order(put):
    a, b, joined = put("one", "a.txt"), put("two", "b.txt"), put("onetwo", "c.txt")
    known = sha256(b"".join(len(part).to_bytes(8, "little") + part for part in (b"one", b"two"))).hexdigest()
    assert read([a, b]).digest == known
    assert read([put("one", "renamed.txt"), b]).digest == known
    assert len({known, read([b, a]).digest, read([joined]).digest, read([a]).digest}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_ships_for_calibration_and_for_scoring_apart(kind):
    calibrating, scoring = shipped([kind]), held_out([kind])
    for found in (calibrating, scoring):
        assert {document.kind for document in found.documents} == {kind}
        for document in found.documents:
            roles = [m["role"] for m in document.messages if m["role"] != "system"]
            assert roles == ["user", "assistant"] * (len(roles) // 2) and document.text.strip()
        assert ({bool(document.messages) for document in found.documents} == {True}) == (kind in ("chat", "tools"))
    passages = {document.text[-200:] for document in scoring.documents}
    whole = "\n".join(document.text for document in calibrating.documents)
    assert not [passage for passage in passages if kind != "tools" and passage in whole]
    assert not {document.text for document in scoring.documents} & {document.text for document in calibrating.documents}


def test_kinds_are_put_in_order_and_follow_the_users_text(put):
    own = put("my words")
    found = read([own], ["code", "prose", "code"])
    assert found.names == ("some.txt", "prose-1.jsonl", "code-1.jsonl")
    assert list(by_kind(found)) == ["", "prose", "code"]
    assert found.digest == read([own], ["prose", "code"]).digest != shipped(["prose", "code"]).digest
    with pytest.raises(UsageError, match="unknown kind of text 'verse'") as told:
        shipped(["verse"])
    assert told.value.hint == f"known: {', '.join(KINDS)}"


def test_texts_on_record_are_read_again(put):
    own = put("my words")
    for found, paths in ((shipped(), []), (read([own], ["tools"]), [own]), (read([own]), [own])):
        assert recorded(found.names, paths) == found
    assert recorded(["other.txt"]) is None and recorded(["some.txt", "prose-1.jsonl"]) is None


def test_what_calibration_read_before_there_were_kinds_is_kept():
    found = recorded(["calibration.jsonl"])
    assert found is not None and len(found.documents) == 107
    assert found.digest == "6d593ea8b4fe288208816a51bc0634a6fa8039a0065ccc9658deb4d7a9d4fad0"


# Sequences


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(0, 300),
    length=st.integers(2, 40),
    first=st.none() | st.just(-1),
    limit=st.none() | st.integers(1, 20),
)
def test_sequences_do_not_overlap_and_are_spread_evenly(
    count: int, length: int, first: int | None, limit: int | None
) -> None:
    step = length - (first is not None)
    found = windows(np.arange(count), length, first, limit=limit)
    assert found.dtype == np.int64 and found.shape == (min(count // step, limit or count), length)
    if first is not None:
        assert (found[:, 0] == first).all()
        found = found[:, 1:]
    starts = found[:, 0]
    assert (starts % step == 0).all() and np.array_equal(found, starts[:, None] + np.arange(step))
    gaps = np.diff(starts) // step
    assert (gaps >= 1).all()
    if len(found) > 1:
        assert gaps.max() - gaps.min() <= 1
        assert starts[0] == 0 and starts[-1] == (count // step - 1) * step
