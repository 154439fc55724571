"""Importance matrices of parts of a text are together that of the whole text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import gemma4
from gemmaq.calibration.complete import importance
from gemmaq.calibration.floor import LEAST, entry
from gemmaq.calibration.imatrix import Entry, Imatrix, document, read
from gemmaq.calibration.merge import merged
from gemmaq.calibration.resources import Resources
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError
from gemmaq.progress import ignore
from gemmaq.sources.open import open_source

ONE, STACK = "blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight"


def of_tokens(checkpoint: Checkpoint, tokens: np.ndarray, *names: str) -> Imatrix:
    resources = Resources("cpu", 2)
    (matrix,) = importance(checkpoint, tokens, names, resources=resources, progress=ignore)
    return matrix


def simple(sums: Sequence[float], count: float, *datasets: str, chunks: int = 1, size: int = 8) -> Imatrix:
    one = Entry(np.array(sums, np.float32), np.array([count], np.float32))
    return Imatrix({ONE: one}, datasets, chunks, size)


def alike(one: Imatrix, other: Imatrix) -> None:
    assert set(one.entries) == set(other.entries)
    for name, wanted in other.entries.items():
        found = one.entries[name]
        np.testing.assert_allclose(found.sums, wanted.sums, rtol=1e-5, atol=1e-5 * float(wanted.sums.max()))
        np.testing.assert_array_equal(found.counts, wanted.counts)
        assert (found.seen is None) == (wanted.seen is None)
        if found.seen is not None:
            np.testing.assert_array_equal(found.seen, wanted.seen)


@pytest.mark.usefixtures("torch_and_transformers")
def test_parts_of_a_text_are_together_the_whole(checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    whole = of_tokens(checkpoint, tokens, "a.txt", "b.txt")
    found = merged([of_tokens(checkpoint, tokens[:3], "a.txt"), of_tokens(checkpoint, tokens[3:], "b.txt", "a.txt")])
    alike(found, whole)
    for name, wanted in whole.entries.items():
        np.testing.assert_allclose(found.entries[name].sums, wanted.sums, rtol=3e-7)
    assert (found.datasets, found.chunks, found.chunk_size) == (("a.txt", "b.txt"), len(tokens), tokens.shape[1])


@pytest.mark.usefixtures("torch_and_transformers")
def test_experts_with_few_tokens_are_together_the_whole(tmp_path: Path) -> None:
    """Their share of what the others saw is taken out before, also of files."""
    checkpoint = open_source(str(gemma4.write(tmp_path / "gemma-4-tiny", gemma4.EXPERTS)))
    tokens = np.random.default_rng(0).integers(0, checkpoint.config.vocab_size, (9, 64))
    whole, parts = of_tokens(checkpoint, tokens), [of_tokens(checkpoint, part) for part in (tokens[:2], tokens[2:])]
    for number, part in enumerate(parts):
        (tmp_path / str(number)).write_bytes(document(part))
    assert any(entry.seen is not None for entry in whole.entries.values())
    for held in (parts, [read(tmp_path / "0"), read(tmp_path / "1")]):
        found = merged(held)
        alike(found, whole)
        assert found.warnings == whole.warnings


@pytest.mark.usefixtures("torch_and_transformers")
def test_passes_through_the_model_give_what_one_does(checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    reports = []
    resources = Resources("cpu", 2)
    passes = importance(checkpoint, tokens, ("a.txt",), resources=resources, progress=reports.append, every=2)
    found = list(passes)
    assert [matrix.chunks for matrix in found] == [2, 4, 5]
    alike(found[0], of_tokens(checkpoint, tokens[:2]))
    alike(found[-1], of_tokens(checkpoint, tokens))
    assert [(report.done, report.total) for report in reports] == [(number + 1, 6) for number in range(6)]


def test_an_expert_that_gets_enough_in_all_has_no_share_of_others() -> None:
    counts = np.array([LEAST // 2, 3 * LEAST])
    sums = np.array([[2.0, 4.0], [900.0, 90.0]])
    part = Imatrix({STACK: entry(sums, counts)}, ("a",), 1, 8)
    found = merged([part, part]).entries[STACK]
    np.testing.assert_array_equal(part.entries[STACK].counts, [LEAST, 3 * LEAST])
    np.testing.assert_allclose(found.sums.reshape(2, 2), 2 * sums, rtol=1e-4)
    for held in (found.counts, found.seen):
        np.testing.assert_array_equal(held, 2 * counts)


def test_the_older_form_counts_sequences() -> None:
    older = simple([1, 2], 3, "old", chunks=3, size=0)
    found = merged([older, simple([10, 10], 80, "new", chunks=10, size=8)])
    np.testing.assert_array_equal(found.entries[ONE].sums, [18, 26])
    np.testing.assert_array_equal(found.entries[ONE].counts, [104])
    assert (found.datasets, found.chunks, found.chunk_size) == (("old", "new"), 13, 8)
    found = merged([older, older])
    np.testing.assert_array_equal(found.importance(ONE), older.importance(ONE))
    assert (found.datasets, found.chunks, found.chunk_size) == (("old",), 6, 0)


def test_sequences_of_other_lengths_count_by_their_tokens() -> None:
    found = merged([simple([1], 16, chunks=2, size=8), simple([1], 64, chunks=2, size=32)])
    assert (found.chunks, found.chunk_size) == (10, 8)


def test_a_count_for_all_experts_is_one_for_each() -> None:
    older = Imatrix({STACK: Entry(np.ones(4, np.float32), np.array([2], np.float32))}, (), 2, 0)
    newer = Imatrix({STACK: Entry(np.ones(4, np.float32), np.array([16, 0], np.float32))}, (), 2, 8)
    for order in ((older, newer), (newer, older)):
        np.testing.assert_array_equal(merged(order).entries[STACK].counts, [32, 16])


def test_other_models_are_told() -> None:
    with pytest.raises(InputError, match=r"different models cannot be merged: blk\.0\.attn_q\.weight has 2 and 3 col"):
        merged([simple([1, 2], 3), simple([1, 2, 3], 3)])


def test_entries_that_some_lack_are_told() -> None:
    more = Imatrix({**simple([1], 3).entries, "output.weight": simple([1], 3).entries[ONE]}, (), 1, 8)
    found = merged([simple([1], 3), more])
    assert found.warnings == ("1 of 2 entries are not in all of the files, output.weight for example",)
    np.testing.assert_array_equal(found.entries["output.weight"].counts, [3])
