"""Importance matrices: both forms, damage of any kind, and llama.cpp quantizing with them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings

import gemma4
from damage import bounded, corrupted, gguf_bytes, key, small_model, tensor, text
from gemmaq.calibration import floor, imatrix
from gemmaq.calibration.imatrix import Entry, Imatrix, check, document, read
from gemmaq.checkpoint.rows import weights
from gemmaq.encodings import ENCODINGS, codec
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.span import Reader
from gemmaq.methods import Choice, Importance, quantize
from gemmaq.models.gemma3 import names
from gemmaq.sources.open import open_source
from oracles import QUANTIZED_BY, llama_quantize, llama_reads_imatrix, need_ggml, read_gguf

ONE = "blk.0.attn_q.weight"


def made(columns: Mapping[str, int], count: float = 512) -> Imatrix:
    random = np.random.default_rng(0)
    counts = np.array([count], np.float32)
    entries = {name: Entry(np.exp(random.standard_normal(n)).astype(np.float32), counts) for name, n in columns.items()}
    return Imatrix(entries, ("calibration.txt",), 1, 512)


def of_model(source: str | Path) -> Imatrix:
    tensors = open_source(str(source)).tensors.values()
    layers = [t for t in tensors if t.name.startswith("model.layers.") and len(t.shape) == 2]
    return made({names.to_gguf(t.name): t.columns for t in layers})


def older(
    entries: Mapping[str, tuple[int, list[float]]], tail: bytes = struct.pack("<ii", 3, 9) + b"some.text"
) -> bytes:
    """The form that llama-imatrix wrote before it wrote GGUF."""
    data = struct.pack("<i", len(entries))
    for name, (calls, sums) in entries.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack(f"<ii{len(sums)}f", calls, len(sums), *sums)
    return data + tail


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        (tmp_path / "some.imatrix").write_bytes(content)
        return tmp_path / "some.imatrix"

    return write


def same(a: Imatrix, b: Imatrix) -> None:
    assert list(a.entries) == sorted(b.entries)
    for name, entry in a.entries.items():
        np.testing.assert_array_equal(entry.counts, b.entries[name].counts)
        np.testing.assert_array_equal(entry.sums, b.entries[name].sums)


def test_what_is_written_is_read(put):
    before = made({"blk.1.ffn_down.weight": 64, ONE: 32, "blk.10.ffn_up.weight": 1, "output.weight": 33})
    content = document(before)
    after = read(put(content))
    same(after, before)
    assert (after.datasets, after.chunks, after.chunk_size) == (("calibration.txt",), 1, 512)
    assert document(after) == content
    backwards = Imatrix(dict(reversed(before.entries.items())), before.datasets, 1, 512)
    assert document(backwards) == content


def test_folders_of_texts_stay_private(put):
    some = Imatrix(made({ONE: 32}).entries, ("/home/me/secret/wiki.txt", r"C:\Users\me\wiki.txt", "a.txt", "dir/"))
    content = document(some)
    assert b"secret" not in content and b"Users" not in content
    assert read(put(content)).datasets == ("wiki.txt", "wiki.txt", "a.txt", "dir")
    tail = struct.pack("<ii", 3, 15) + b"/home/me/w\x1b.txt"
    assert read(put(older({ONE: (1, [1.0])}, tail))).datasets == ("w?.txt",)


def test_gguf_py_reads_it(put):
    some = made({ONE: 32, "blk.0.ffn_down.weight": 96})
    reader = GGUFReader(put(document(some)))
    assert reader.get_field("general.type").contents() == "imatrix"
    assert reader.get_field("imatrix.datasets").contents() == ["calibration.txt"]
    assert reader.get_field("imatrix.chunk_count").contents() == 1
    assert reader.get_field("imatrix.chunk_size").contents() == 512
    found = {t.name: t.data for t in reader.tensors}
    assert list(found) == [name + part for name in sorted(some.entries) for part in (".in_sum2", ".counts")]
    for name, entry in some.entries.items():
        np.testing.assert_array_equal(found[name + ".in_sum2"], entry.sums)
        np.testing.assert_array_equal(found[name + ".counts"], [512])


def test_the_older_form_is_read(put):
    some = read(put(older({ONE: (2, [1.0, 3.0]), "blk.0.attn_k.weight": (0, [5.0, 7.0])})))
    assert (some.datasets, some.chunks, some.chunk_size) == (("some.text",), 3, 0)
    np.testing.assert_array_equal(some.importance(ONE), np.array([0.5, 1.5], np.float32))
    np.testing.assert_array_equal(some.importance("blk.0.attn_k.weight"), np.array([5, 7], np.float32))
    for tail, chunks in ((b"", 0), (struct.pack("<i", 7), 7), (struct.pack("<ii", 7, 0), 7)):
        assert read(put(older({ONE: (2, [1.0])}, tail))).chunks == chunks
    same(read(put(document(some))), some)


def test_importance_is_as_llama_quantize_has_it():
    sums = np.array([3, 0, 1e-3], np.float32)
    seven, none = np.array([7], np.float32), np.zeros(1, np.float32)
    some = Imatrix({ONE: Entry(sums, seven), "blk.0.attn_k.weight": Entry(sums, none)})
    np.testing.assert_array_equal(some.importance(ONE), sums / np.float32(7))
    np.testing.assert_array_equal(some.importance("blk.0.attn_k.weight"), np.ones(3, np.float32))
    assert some.importance(ONE).dtype == np.float32
    with pytest.raises(InputError, match=r"no entry for token_embd\.weight"):
        some.importance("token_embd.weight")


def test_experts_have_an_importance_each(put, tmp_path: Path):
    counts = np.array([2, 0, 4], np.float32)
    some = Imatrix({ONE: Entry(np.arange(6, dtype=np.float32), counts)}, ("a.txt",))
    np.testing.assert_array_equal(some.importance(ONE), np.array([0, 0.5, 1, 1, 1, 1.25], np.float32))
    after = read(put(document(some)))
    same(after, some)
    shapes = {t.name: list(t.shape) for t in GGUFReader(put(document(some))).tensors}
    assert shapes == {f"{ONE}.in_sum2": [2, 3], f"{ONE}.counts": [1, 3]}


def test_an_importance_matrix_of_other_experts_is_told(tmp_path: Path):
    checkpoint = open_source(str(gemma4.write(tmp_path / "gemma-4-tiny", gemma4.EXPERTS)))
    entries = {
        checkpoint.family.names.to_gguf(t.name): floor.entry(np.ones((t.matrices, t.columns)), np.ones(t.matrices, int))
        for t in checkpoint.matrices.values()
    }
    check(Imatrix(entries), checkpoint)
    stack = "blk.0.ffn_down_exps.weight"
    older = Entry(entries[stack].sums, np.ones(1, np.float32))
    check(Imatrix(entries | {stack: older}), checkpoint)
    other = Entry(entries[stack].sums, np.ones(4, np.float32))
    with pytest.raises(
        InputError, match=r"1536 columns in 4 matrices for model\.layers\.0\.experts\.down_proj.*in 16 matrices"
    ):
        check(Imatrix(entries | {stack: other}), checkpoint)


def test_another_models_is_told(tmp_path: Path):
    checkpoint = open_source(str(small_model(tmp_path / "small")))
    good = of_model(tmp_path / "small")
    check(good, checkpoint)
    lacking = {name: entry for name, entry in good.entries.items() if name != "blk.1.ffn_down.weight"}
    with pytest.raises(InputError, match=r"another model.*no entry for model\.layers\.1\.mlp\.down_proj\.weight"):
        check(Imatrix(lacking), checkpoint)
    other = dict(good.entries) | {ONE: Entry(np.ones(3, np.float32), np.ones(1, np.float32))}
    with pytest.raises(InputError, match=r"another model.*3 columns for model\.layers\.0\.self_attn\.q_proj\.weight"):
        check(Imatrix(other), checkpoint)


KEYS = (
    key("general.type", 8, text("imatrix")),
    key("imatrix.datasets", 9, struct.pack("<IQ", 8, 1) + text("a.txt")),
    key("imatrix.chunk_count", 4, struct.pack("<I", 1)),
    key("imatrix.chunk_size", 4, struct.pack("<I", 512)),
)
SUMS, COUNTS = tensor(f"{ONE}.in_sum2", [32, 1], 0, 0), tensor(f"{ONE}.counts", [1, 1], 0, 128)


def gguf(keys: Any = KEYS, tensors: Any = (SUMS, COUNTS), sums: float = 1, counts: float = 1) -> bytes:
    data = np.full(32, sums, "<f4").tobytes() + np.full(8, counts, "<f4").tobytes() + bytes(256)
    return gguf_bytes(keys, tensors) + data


def with_number(name: str, value: bytes, kind: int = 4) -> list[bytes]:
    return [key(name, kind, value) if text(name) == k[: len(text(name))] else k for k in KEYS]


UNUSABLE = {
    "empty": (b"", "is truncated|is not"),
    "magic alone": (b"GGUF", "not a GGUF file"),
    "a text": (b"Once upon a time there was a model", "number of entries"),
    "no entries": (struct.pack("<i", 0), "number of entries is 0"),
    "entries without number": (struct.pack("<i", -3), "number of entries is -3"),
    "a name of negative length": (struct.pack("<ii", 1, -1), "length of a name is -1"),
    "a name of two GB": (struct.pack("<ii", 1, 2**31 - 1), "length of a name"),
    "a name that rings": (older({"a\7": (1, [1.0])}), "unreadable"),
    "a name twice": (older({"a": (1, [1.0]), "b": (1, [1.0])}, b"").replace(b"b", b"a"), "occurs twice"),
    "negative columns": (struct.pack("<iic", 1, 1, b"a") + struct.pack("<ii", 1, -1), "number of columns of a is -1"),
    "too many columns": (struct.pack("<iic", 1, 1, b"a") + struct.pack("<ii", 1, 2**31 - 1), "number of columns"),
    "columns that are not there": (
        struct.pack("<iic", 1, 1, b"a") + struct.pack("<ii", 1, 2**23),
        "ends within an entry, at byte",
    ),
    "negative calls": (older({"a": (-1, [1.0])}), "number of calls of a is -1"),
    "older, not a number": (older({"a": (1, [np.nan])}), "sums of a are"),
    "older, infinite": (older({"a": (1, [np.inf])}), "sums of a are"),
    "older, negative": (older({"a": (1, [-1.0])}), "sums of a are"),
    "older, with more": (older({"a": (1, [1.0])}) + b"more", "follow its last entry"),
    "a model": (gguf([key("general.type", 8, text("model")), *KEYS[1:]]), "general.type is 'model'"),
    "type a number": (gguf([key("general.type", 4, bytes(4)), *KEYS[1:]]), "general.type is 0"),
    "no datasets": (gguf([KEYS[0], *KEYS[2:]]), "imatrix.datasets"),
    "datasets a number": (gguf(with_number("imatrix.datasets", bytes(4))), "imatrix.datasets"),
    "no chunks": (gguf([*KEYS[:2], KEYS[3]]), "imatrix.chunk_count"),
    "no chunk size": (gguf(KEYS[:3]), "imatrix.chunk_size"),
    "chunks beyond reason": (gguf(with_number("imatrix.chunk_count", b"\xff" * 8, 10)), "imatrix.chunk_count"),
    "negative chunks": (gguf(with_number("imatrix.chunk_count", b"\xff" * 4, 5)), "imatrix.chunk_count"),
    "chunks a float": (gguf(with_number("imatrix.chunk_size", b"\xff" * 4, 6)), "imatrix.chunk_size"),
    "nothing": (gguf(tensors=()), "has no entries"),
    "other tensors": (gguf(tensors=[tensor("a", [32], 0, 0)]), "has no entries"),
    "no counts": (gguf(tensors=[SUMS]), "sums or counts of .* are missing"),
    "no squares": (gguf(tensors=[tensor(f"{ONE}.counts", [1], 0, 0)]), "sums or counts of .* are missing"),
    "counts of other experts": (gguf(tensors=[SUMS, tensor(f"{ONE}.counts", [1, 5], 0, 128)]), "32 sums and 5 counts"),
    "squares in F16": (gguf(tensors=[tensor(f"{ONE}.in_sum2", [32], 1, 0), COUNTS]), "not F32"),
    "beyond the end": (gguf(tensors=[tensor(f"{ONE}.in_sum2", [1 << 20], 0, 0)]), "truncated"),
    "squares not a number": (gguf(sums=np.nan), "sums of .* are not all finite"),
    "squares negative": (gguf(sums=-1), "sums of .* are not all finite"),
    "squares infinite": (gguf(sums=np.inf), "sums of .* are not all finite"),
    "counts not a number": (gguf(counts=np.nan), "number of inputs of .* is nan"),
    "counts negative": (gguf(counts=-1), "number of inputs of .* is -1.0"),
    "counts infinite": (gguf(counts=np.inf), "number of inputs of .* is inf"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_is_no_importance_matrix_is_told(kind, put):
    content, said = UNUSABLE[kind]
    path = put(content)
    with bounded(), pytest.raises(InputError, match=said) as told:
        read(path)
    assert str(path) in told.value.message and len(told.value.message) < 1000


def test_what_llama_imatrix_adds_does_no_harm(put):
    more = tensor(f"{ONE}.in_sum", [32, 1], 0, 160)
    some = read(put(gguf(tensors=[SUMS, COUNTS, more])))
    assert list(some.entries) == [ONE] and some.entries[ONE].counts == [1]


def test_no_file_is_told(tmp_path: Path):
    with pytest.raises(NotFoundError, match="does not exist"):
        read(tmp_path / "none.gguf")
    with pytest.raises(InputError):
        read(tmp_path)


GOOD = {
    "gguf": document(made({ONE: 32, "blk.0.ffn_down.weight": 8})),
    "older": older({ONE: (2, [1.0, 2.0]), "blk.0.ffn_down.weight": (3, [0.5] * 7)}),
}


@pytest.mark.parametrize("form", GOOD)
def test_damage_is_told_or_does_no_harm(form, tmp_path):
    path = tmp_path / "damaged"

    @settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(corrupted(GOOD[form]))
    def damaged(content: bytes) -> None:
        path.write_bytes(content)
        try:
            with bounded():
                some = read(path)
        except InputError as error:
            assert str(path) in error.message and len(error.message) < 1000
            return
        assert some.entries
        for name in some.entries:
            assert np.isfinite(some.importance(name)).all() and (some.importance(name) >= 0).all()
        same(imatrix.read(_written(path, document(some))), some)

    damaged()


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_every_cut_is_told_or_does_no_harm(tmp_path):
    path = tmp_path / "cut"
    for content in GOOD.values():
        for end in range(len(content)):
            path.write_bytes(content[:end])
            try:
                assert read(path).entries
            except InputError as error:
                assert str(path) in error.message


@pytest.mark.oracle
def test_llama_cpp_reads_it(require, put):
    need_ggml(require)
    some = made({ONE: 32, "blk.0.ffn_down.weight": 96, "blk.10.attn_output.weight": 8})
    path = put(document(some))
    for chunk_size, content in (
        (512, document(some)),
        (0, older({ONE: (2, [1.0, 2.0]), "blk.0.ffn_down.weight": (3, [0.5] * 7)})),
    ):
        path.write_bytes(content)
        ours = read(path)
        sums, chunks, size = llama_reads_imatrix(path)
        assert (list(sums), chunks, size) == (sorted(ours.entries), ours.chunks, chunk_size)
        for name, entry in ours.entries.items():
            np.testing.assert_array_equal(sums[name], entry.sums)


@pytest.mark.slow
@pytest.mark.oracle
def test_llama_cpp_quantizes_the_270m_to_the_same_bytes(require, gemmaq, sample_bf16, tmp_path):
    need_ggml(require)
    some = read(_written(tmp_path / "imatrix.gguf", document(of_model(sample_bf16))))
    check(some, open_source(str(sample_bf16)))
    gemmaq("convert", sample_bf16, "--quant", "bf16", "-o", tmp_path / "bf16")
    (source,) = (tmp_path / "bf16").glob("*.gguf")
    theirs = tmp_path / "theirs.gguf"
    llama_quantize(source, theirs, "q4_0", {name: some.importance(name) for name in some.entries})
    _, tensors = read_gguf(theirs)
    compared, promoted = 0, 0
    with Reader() as reader:
        for name, tensor in open_source(str(sample_bf16)).tensors.items():
            if names.to_gguf(name) not in some.entries:
                continue
            kind, _, raw = tensors[names.to_gguf(name)]
            encoding = next(e for e in ENCODINGS.values() if e.ggml_type == kind)
            x = weights(tensor, 0, tensor.rows, reader)
            values = quantize(
                x, encoding, Choice("importance", importance=Importance(some.importance(names.to_gguf(name))))
            )
            assert codec(encoding).pack(values).tobytes() == raw, name
            compared += encoding.name == "q4_0"
            promoted += encoding.name == "q4_1"
    assert (compared, promoted) == (124, 2)


@pytest.mark.oracle
def test_llama_cpp_makes_the_same_file_of_iq4_nl(require, gemmaq, tiny, tmp_path):
    need_ggml(require)
    some = of_model(tiny)
    matrix = _written(tmp_path / "imatrix.gguf", document(some))
    gemmaq("convert", tiny, "--quant", "bf16", "-o", tmp_path / "bf16")
    (source,) = (tmp_path / "bf16").glob("*.gguf")
    options = ("--quant", "iq4_nl", "--method", "importance", "--imatrix", matrix)
    gemmaq("convert", tiny, *options, "-o", tmp_path / "ours")
    (ours,) = (tmp_path / "ours").glob("*.gguf")
    told = QUANTIZED_BY | {
        "quantize.imatrix.file": "imatrix.gguf",
        "quantize.imatrix.dataset": "calibration.txt",
        "quantize.imatrix.entries_count": len(some.entries),
        "quantize.imatrix.chunks_count": 1,
    }
    importance = {name: some.importance(name) for name in some.entries}
    llama_quantize(source, tmp_path / "theirs.gguf", "iq4_nl", importance, told)
    assert ours.read_bytes() == (tmp_path / "theirs.gguf").read_bytes()
