"""`gemmaq imatrix`: a dry run, a real one, and what stands in the way."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from gemmaq.calibration import statistics
from gemmaq.calibration.imatrix import Entry, Imatrix, document, read
from gemmaq.cli.app import main
from inprocess import refused, run

SHORT = ("--calibration-tokens", 128, "--calibration-context", 32)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "letters.txt"
    path.write_text("".join(chr(97 + n % 26) for n in range(2000)))
    return path


def test_a_dry_run_counts_and_writes_nothing(small: Path, text: Path, out: Path) -> None:
    pytest.importorskip("torch")
    done = run("imatrix", small, "--text", text, "-o", out, *SHORT, "--dry-run", "--json")
    said = json.loads(done.stdout)
    assert said["schema"] == "gemmaq.imatrix/1"
    assert (said["sequences"], said["tokens"], said["texts"]) == (4, 128, ["letters.txt"])
    assert not out.exists()


def test_a_real_run(small: Path, text: Path, out: Path) -> None:
    pytest.importorskip("torch")
    said = json.loads(run("imatrix", small, "--text", text, "-o", out, *SHORT, "--json").stdout)
    assert said["matrices"] == len(read(out).entries) == 14
    assert said["bytes"] == out.stat().st_size
    assert run("imatrix", small, "--text", text, "-o", out, *SHORT, "-q", "--force").stdout == f"{out}\n"


def test_outputs_that_cannot_be(small: Path, text: Path, out: Path, tmp_path: Path) -> None:
    out.touch()
    refused(7, ("exists", "--force"), "imatrix", small, "--text", text, "-o", out, under=tmp_path)
    for output in (tmp_path, tmp_path / "absent/file"):
        refused(7, ("cannot be written",), "imatrix", small, "--text", text, "-o", output, "--force", under=tmp_path)


def rest_of(text: Path) -> Path:
    """A second text, of other words."""
    path = text.with_name("numbers.txt")
    path.write_text("".join(str(n * n) for n in range(400)))
    return path


def test_files_are_merged_without_a_model(small: Path, text: Path, out: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    files = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for file, words in zip(files, (text, rest_of(text)), strict=True):
        run("imatrix", small, "--text", words, "-o", file, *SHORT, "-q")
    both = ("--merge", files[0], "--merge", files[1])
    assert not out.exists() and run("imatrix", *both, "-o", out, "--dry-run", "-q").stdout == f"{out}\n"
    assert not out.exists()
    said = json.loads(run("imatrix", *both, "-o", out, "--json").stdout)
    assert (said["texts"], said["tokens"], said["sequences"]) == ([], 0, 0)
    assert (said["merged"], said["chunks"]) == ([str(file) for file in files], 8)
    assert said["datasets"] == ["letters.txt", "numbers.txt"] == list(read(out).datasets)
    merged = out.read_bytes()
    words = ("imatrix", small, "--text", rest_of(text), *SHORT, "--merge", files[0], "-o", out, "--force")
    done = run(*words)
    assert "4 sequences of 32 tokens from numbers.txt; 1 file merged" in done.stderr
    again = read(out)
    assert (again.chunks, again.datasets) == (8, ("letters.txt", "numbers.txt"))
    out.write_bytes(merged)
    for name, entry in read(out).entries.items():
        np.testing.assert_allclose(entry.sums, again.entries[name].sums, rtol=1e-6)
        assert (entry.counts == again.entries[name].counts).all()


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_merged_are_the_whole(parts: int, small: Path, text: Path, out: Path, tmp_path: Path) -> None:
    """On machines that share nothing. Sums of a part are rounded to f32, so those of the whole may differ by that."""
    pytest.importorskip("torch")
    words, files, sequences = ("imatrix", small, "--text", text, *SHORT), list[Path](), list[int]()
    for number in range(1, parts + 1):
        file = tmp_path / f"{number}.gguf"
        done = run(*words, "--part", f"{number}/{parts}", "-o", file, "--json")
        said = json.loads(done.stdout)
        assert said["part"] == f"{number}/{parts}"
        files.append(file)
        sequences.append(said["sequences"])
    assert sum(sequences) == 4 and max(sequences) - min(sequences) <= 1
    run("imatrix", *(word for file in files for word in ("--merge", file)), "-o", out)
    run(*words, "-o", tmp_path / "whole.gguf")
    found, whole = read(out), read(tmp_path / "whole.gguf")
    assert (found.chunks, found.datasets, found.entries.keys()) == (4, ("letters.txt",), whole.entries.keys())
    for name, entry in whole.entries.items():
        np.testing.assert_allclose(found.entries[name].sums, entry.sums, rtol=1e-6)
        assert (found.entries[name].counts == entry.counts).all()


def test_a_part_says_so(small: Path, text: Path, out: Path) -> None:
    pytest.importorskip("torch")
    done = run("imatrix", small, "--text", text, *SHORT, "--part", "1/3", "-o", out)
    assert "part 1/3: 2 sequences of 32 tokens from letters.txt" in done.stderr


def test_parts_that_cannot_be(small: Path, text: Path, out: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    words = ("imatrix", small, "--text", text, *SHORT, "-o", out)
    for part in ("0/2", "3/2", "1", "1/", "/2", "-1/2", "a/b", "1/0", "1.0/2", "\u0661/2"):
        refused(2, ("--part", "1/4"), *words, "--part", part, under=tmp_path)
    refused(2, ("--part 1/5", "4 sequences of 32 tokens"), *words, "--part", "1/5", under=tmp_path)


def test_merging_that_cannot_be(small: Path, text: Path, out: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    file = tmp_path / "a.gguf"
    run("imatrix", small, "--text", text, "-o", file, *SHORT, "-q")
    some = read(file)
    entries = {name: Entry(entry.sums[:8], entry.counts) for name, entry in some.entries.items()}
    other = tmp_path / "other.gguf"
    other.write_bytes(document(Imatrix(entries, (), 1, 32)))
    for code, words, options in (
        (2, ("twice",), ("--merge", file, "--merge", file)),
        (2, ("--save-every", "only merged"), ("--merge", file, "--save-every", 3)),
        (2, ("--calibration-context", "only merged"), ("--merge", file, "--calibration-context", 32)),
        (2, ("--part", "only merged"), ("--merge", file, "--part", "1/2")),
        (2, ("no model",), ("--merge", file, "--text", text)),
        (2, ("no model",), ()),
        (3, ("different models", "columns"), ("--merge", file, "--merge", other)),
        (3, ("another model",), (small, "--merge", other)),
        (3, ("another model",), (small, "--text", text, "--merge", other)),
        (3, ("importance matrix",), ("--merge", text)),
        (5, ("does not exist",), ("--merge", tmp_path / "none")),
    ):
        refused(code, words, "imatrix", *options, "-o", out, under=tmp_path)
    refused(2, ("-o",), "imatrix", small, "--text", text, under=tmp_path)


def test_what_is_done_is_kept_when_a_run_is_interrupted(
    small: Path, text: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    words = ("imatrix", small, "--text", text, "-o", out, *SHORT, "--save-every", 3)
    calls = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return squares(*arguments)

    squares = statistics.squares
    monkeypatch.setattr(statistics, "squares", interrupted)
    done = inprocess_interrupted(*words)
    assert f"{out} is written after every 3 of 4 sequences" in done
    assert f"{out} holds what is done: 3 sequences" in done
    assert read(out).chunks == 3
    run(*words, "--force", "-q")
    assert read(out).chunks == 4
    whole = read(out)
    run(*words[:-2], "--force", "-q")
    for name, entry in read(out).entries.items():
        np.testing.assert_allclose(entry.sums, whole.entries[name].sums, rtol=1e-6)


def inprocess_interrupted(*arguments: object) -> str:
    """Run a command that is interrupted: what it says on stderr."""
    err = io.StringIO()
    with patch.object(sys, "argv", ["gemmaq", *map(str, arguments)]), redirect_stderr(err), pytest.raises(SystemExit):
        main()
    assert "interrupted" in err.getvalue()
    return err.getvalue()


def test_a_matrix_is_no_model(small: Path, text: Path, out: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "imatrix.gguf"
    run("imatrix", small, "--text", text, "-o", path, *SHORT, "-q")
    refused(3, ("is an importance matrix", "--show-statistics"), "inspect", path, under=tmp_path)
    refused(5, ("neither config.json nor a .gguf file",), "inspect", tmp_path, under=tmp_path)


def test_statistics_of_a_file_are_shown(small: Path, text: Path, out: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run("imatrix", small, "--text", text, "-o", out, *SHORT, "-q")
    shown = run("imatrix", "--show-statistics", out).stdout
    assert "letters.txt, 4 sequences of 32 tokens" in shown and "ffn_down" in shown
    said = json.loads(run("imatrix", "--show-statistics", out, "--json").stdout)
    assert (said["schema"], said["chunks"], said["datasets"]) == ("gemmaq.imatrix/1", 4, ["letters.txt"])
    assert len(said["kinds"]) == 7 and len(said["tensors"]) == 14
    for options in ((small,), ("-o", out), ("--text", text), ("--save-every", 2)):
        refused(2, ("does nothing else",), "imatrix", "--show-statistics", out, *options, under=tmp_path)
    refused(3, ("not a usable importance matrix",), "imatrix", "--show-statistics", text, under=tmp_path)
