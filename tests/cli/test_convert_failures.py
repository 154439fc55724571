"""`gemmaq convert` when something is wrong: the exit code, one clear message, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import inprocess
from damage import add_tensor, contained, edit_header, edit_json, mounted, poison, small_model, stored, tree
from gemmaq.errors import OutputError
from gemmaq.files.workplace import claim
from gemmaq.models.gemma3.names import EMBEDDING, FINAL_NORM
from inprocess import Done, run

GIB = 1 << 30
QUIET_NAN, INFINITE, MINUS_INFINITE, LARGEST = 0x7FC0, 0x7F80, 0xFF80, 0x7F7F
"""Bits of BF16 numbers."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "source/gemma-3-tiny")


def refused(code: int, words: tuple[str, ...], *arguments: object, under: Path) -> Done:
    """A conversion that fails with this code and these words, and changes nothing under a folder."""
    return inprocess.refused(code, words, "convert", *arguments, under=under)


DAMAGES: list[tuple[Callable[[Path], object], int, tuple[str, ...]]] = [
    (lambda m: os.truncate(m / "model.safetensors", 100_000), 3, ("model.safetensors", "truncated", "download")),
    (lambda m: os.truncate(m / "model.safetensors", 5), 3, ("model.safetensors",)),
    (lambda m: (m / "model.safetensors").write_bytes(b"\xff" * 64), 3, ("model.safetensors", "header")),
    (lambda m: edit_header(m / "model.safetensors", lambda h: h.pop(FINAL_NORM)), 3, (FINAL_NORM,)),
    (lambda m: edit_header(m / "model.safetensors", lambda h: h[FINAL_NORM].update(dtype="I16")), 3, ("I16",)),
    (lambda m: edit_json(m / "config.json", lambda c: c.update(architectures=["Phi3ForCausalLM"])), 3, ("Phi3For",)),
    (lambda m: (m / "config.json").write_text("{"), 3, ("config.json", "JSON")),
    (lambda m: (m / "config.json").unlink(), 5, ("config.json",)),
    (lambda m: (m / "model.safetensors").unlink(), 5, (".safetensors",)),
    (lambda m: (m / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x"}}'), 3, ("../x",)),
    (lambda m: (m / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b"}}'), 3, ("names 'b'",)),
    (lambda m: (m / "tokenizer.model").write_bytes(b"\xff" * 99), 3, ("tokenizer.model",)),
    (lambda m: (m / "tokenizer.model").unlink(), 5, ("tokenizer.json",)),
    (lambda m: (m / "tokenizer_config.json").write_text('{"chat_template": "\\ud800"}'), 3, ("tokenizer_config.json",)),
]


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_a_damaged_source_is_refused(number: int, model: Path, out: Path, tmp_path: Path) -> None:
    damage, code, words = DAMAGES[number]
    damage(model)
    refused(code, words, model, "-o", out, under=tmp_path)


@pytest.mark.parametrize(
    "options", [("--to", "gguf", "--quant", "q4_0"), ("--to", "safetensors", "--quant", "bf16", "--threads", 4)]
)
@pytest.mark.parametrize("bits", [QUIET_NAN, INFINITE, MINUS_INFINITE])
@pytest.mark.parametrize("name", [EMBEDDING, "model.layers.1.mlp.down_proj.weight", FINAL_NORM])
def test_nan_and_infinite_weights_are_refused_naming_the_tensor(
    name: str, bits: int, options: tuple[object, ...], model: Path, out: Path, tmp_path: Path
) -> None:
    poison(model, name, bits)
    refused(3, (name, "NaN or infinite"), model, "-o", out, *options, under=tmp_path)


@pytest.mark.parametrize("quant", ["f16", "q4_0", "q8_0"])
def test_weights_too_large_for_the_type_are_refused_naming_the_tensor(
    quant: str, model: Path, out: Path, tmp_path: Path
) -> None:
    name = "model.layers.0.self_attn.k_proj.weight"
    poison(model, name, LARGEST)
    refused(3, (name, quant.upper(), "bf16"), model, "-o", out, "--quant", quant, under=tmp_path)
    run("convert", model, "-o", out, "--quant", "bf16")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--quant", "q3_x"), ("q3_x", "did you mean", "q3_k")),
        (("--to", "onnx"), ("onnx", "known: gguf, mlx")),
        (("--method", "magic"), ("magic",)),
        (("--max-shard-size", "2 apples"), ("2 apples",)),
        (("--max-shard-size", "0"), ("'0'",)),
        (("--threads", "0"), ("threads",)),
        (("--no-such-flag",), ("--no-such-flag",)),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    options: tuple[str, ...], words: tuple[str, ...], model: Path, out: Path, tmp_path: Path
) -> None:
    refused(2, words, model, "-o", out, *options, under=tmp_path)


@pytest.mark.parametrize("source", ["absent", "absent.gguf", "./absent/folder", "sample:absent"])
def test_a_source_that_is_not_there_is_not_found(source: str, out: Path, tmp_path: Path) -> None:
    refused(5, (source,), source, "-o", out, under=tmp_path)


@pytest.mark.parametrize("source", ["x" * 300, "~no-such-user/model", "nul\0byte", ""])
def test_a_source_that_cannot_be_is_refused(source: str, out: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out.parent)
        refused(5, (), source, "-o", out, under=tmp_path)


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "link", "dangling link"])
def test_an_existing_output_is_refused(kind: str, model: Path, out: Path, tmp_path: Path) -> None:
    if kind.endswith("folder"):
        out.mkdir()
    if kind == "folder":
        (out / "old.gguf").write_text("old")
    elif kind == "file":
        out.write_text("old")
    elif kind == "link":
        out.symlink_to(model)
    elif kind == "dangling link":
        out.symlink_to(tmp_path / "nowhere")
    refused(7, (str(out), "exists", "--force"), model, "-o", out, under=tmp_path)


def test_force_replaces_an_earlier_artifact(model: Path, out: Path) -> None:
    run("convert", model, "-o", out, "--to", "safetensors")
    run("convert", model, "-o", out, "--quant", "q8_0", "--force")
    assert list(contained(out.parent)) == ["out/gemma-3-tiny-Q8_0.gguf"]


def test_force_leaves_the_earlier_artifact_alone_where_the_new_one_fails(
    model: Path, out: Path, tmp_path: Path
) -> None:
    run("convert", model, "-o", out)
    poison(model, FINAL_NORM, QUIET_NAN)
    refused(3, (FINAL_NORM,), model, "-o", out, "--force", under=tmp_path)


@pytest.mark.parametrize("foreign", ["notes.txt", "deep/er/photo.jpg", ".hidden"])
def test_force_refuses_a_folder_with_foreign_files(foreign: str, model: Path, out: Path, tmp_path: Path) -> None:
    run("convert", model, "-o", out)
    (out / foreign).parent.mkdir(parents=True, exist_ok=True)
    (out / foreign).write_text("precious")
    refused(7, (foreign,), model, "-o", out, "--force", under=tmp_path)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_force_refuses_what_is_no_folder(kind: str, model: Path, out: Path, tmp_path: Path) -> None:
    if kind == "file":
        out.write_text("precious")
    else:
        out.symlink_to(tmp_path / "source")
    refused(7, (str(out),), model, "-o", out, "--force", under=tmp_path)


@pytest.mark.parametrize("output", ["source/gemma-3-tiny", "source", "source/../source/gemma-3-tiny"])
def test_an_output_that_would_replace_the_source_is_refused(output: str, model: Path, tmp_path: Path) -> None:
    refused(7, ("source",), model, "-o", tmp_path / output, "--force", under=tmp_path)
    linked = tmp_path / "link"
    linked.symlink_to(model)
    refused(7, ("source",), linked, "-o", tmp_path / output, "--force", under=tmp_path)


def test_an_output_below_a_file_is_not_writable(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(7, ("cannot be written",), model, "-o", tmp_path / "file/deep/out", under=tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 250])
def test_an_output_no_disk_can_name_is_not_writable(name: str, model: Path, out: Path, tmp_path: Path) -> None:
    refused(7, (), model, "-o", out.parent / name, under=tmp_path)


def test_the_folder_one_stands_in_is_not_replaced(model: Path, out: Path, tmp_path: Path) -> None:
    run("convert", model, "-o", out, "--quant", "q8_0")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        refused(7, ("exists",), model, "-o", ".", under=tmp_path)
        refused(7, (), model, "-o", ".", "--force", under=tmp_path)


def test_a_read_only_disk_is_not_writable(model: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro") as disk:
        refused(7, (str(disk / "out"), "ead-only"), model, "-o", disk / "out", under=tmp_path)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for half an artifact."""
    with mounted(tmp_path / "disk", "size=64k") as disk:
        yield disk


def test_a_disk_too_small_shows_before_any_work(model: Path, full: Path, tmp_path: Path) -> None:
    refused(7, ("bytes free", "needed"), model, "-o", full / "new/out", "--quant", "f16", under=tmp_path)


@pytest.mark.parametrize("reserves", [True, False], ids=["reserving space", "writing"])
def test_a_disk_that_fills_up_on_the_way_leaves_nothing(
    reserves: bool, model: Path, full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(GIB, 0, GIB))
    if not reserves:
        monkeypatch.setattr(os, "posix_fallocate", cannot)
    refused(7, ("no space left", str(full / "out")), model, "-o", full / "out", "--quant", "f16", under=tmp_path)


def test_a_dry_run_writes_nothing(model: Path, out: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    run("convert", model, "-o", out, "--dry-run")
    assert tree(tmp_path) == before


def test_a_dry_run_refuses_what_the_real_run_refuses(model: Path, out: Path, tmp_path: Path) -> None:
    out.mkdir()
    for more in ((), ("--dry-run",)):
        refused(7, ("exists", "--force"), model, "-o", out, *more, under=tmp_path)
        refused(7, ("which is read",), model, "-o", model, "--force", *more, under=tmp_path)


def test_an_output_that_cannot_be_is_refused_before_weights_are_read(
    model: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("gemmaq.planning.survey.weights", read)
    out.mkdir()
    refused(7, ("exists",), model, "-o", out, under=tmp_path)
    out.rmdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(GIB, GIB, 0))
    refused(7, ("0 bytes free",), model, "-o", out, under=tmp_path)
    refused(3, ("mlx cannot hold Q4_K",), model, "-o", out, "--to", "mlx", "--quant", "q4_k", under=tmp_path)


def test_a_dry_run_tells_of_missing_space(model: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(GIB, GIB, 0))
    done = run("convert", model, "-o", out, "--dry-run", "--json")
    assert "0 bytes free" in json.loads(done.stdout)["warnings"][-1] and "0 bytes free" in done.stderr


SLOW = """
import sys, time
from gemmaq.files.span import Reader
from gemmaq.cli.app import main
fast = Reader.into
def slow(*arguments):
    time.sleep(0.1)
    fast(*arguments)
Reader.into = slow
sys.argv[0] = "gemmaq"
main()
"""
"""The command line over a disk that takes a tenth of a second for every tensor."""


@pytest.mark.parametrize("options", [(), ("--force", "--threads", "4")])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_nothing_half_written(
    number: signal.Signals, code: int, options: tuple[str, ...], model: Path, out: Path
) -> None:
    if options:
        run("convert", model, "-o", out, "--quant", "q8_0")
    before = tree(out.parent)
    process = writing(model, out, options)
    run("convert", model, "-o", out, "--force", code=7)
    with pytest.raises(OutputError, match="is being written by another gemmaq"):
        claim(out)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in stderr and stdout == ""
    assert ("interrupted" in stderr) == (number == signal.SIGINT)
    assert tree(out.parent) == before


@pytest.mark.parametrize("options", [(), ("--force", "--threads", "4")])
def test_what_a_killed_run_left_goes_with_the_next(options: tuple[str, ...], model: Path, out: Path) -> None:
    if options:
        run("convert", model, "-o", out, "--quant", "q8_0")
    before = {path.name for path in out.parent.iterdir()}
    process = writing(model, out, options)
    process.kill()
    process.communicate(timeout=60)
    assert {path.name for path in out.parent.iterdir()} > before
    run("convert", model, "-o", out, *options)
    assert {path.name for path in out.parent.iterdir()} == before | {out.name}


def writing(model: Path, out: Path, options: tuple[str, ...]) -> subprocess.Popen[str]:
    """A process that has begun to write."""
    command = [sys.executable, "-c", SLOW, "convert", str(model), "-o", str(out), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 60
    while not list(out.parent.glob("*.partial/*")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("options", [("--tensors",), ("--json", "--tensors"), ()])
def test_a_closed_pipe_ends_quietly(options: tuple[str, ...], model: Path) -> None:
    command = [sys.executable, "-m", "gemmaq", "inspect", str(model), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) not in (1, 120), "a closed pipe is no bug of ours"
    process.stderr.close()


def test_the_first_line_of_a_long_listing_can_be_taken(model: Path) -> None:
    command = f"set -o pipefail; '{sys.executable}' -m gemmaq inspect '{model}' --tensors | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("\n") == 1 and "gemma-3-tiny" in done.stdout
    assert done.stderr == "" and done.returncode in (0, 141)


def test_a_table_written_to_a_closed_pipe_ends_with_the_code_of_a_closed_pipe() -> None:
    command = [sys.executable, "-m", "gemmaq", "estimate-vram"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 141
    process.stderr.close()


def test_left_out_parts_are_warned_about(model: Path, out: Path) -> None:
    add_tensor(model, "vision_tower.encoder.weight", stored(model, FINAL_NORM), "vision.safetensors")
    add_tensor(model, "model.surplus.weight", stored(model, FINAL_NORM), "surplus.safetensors")
    done = run("convert", model, "-o", out, "--mmproj", "none")
    assert "the vision side lacks" in done.stderr and "model.surplus.weight" in done.stderr
