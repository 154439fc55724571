"""Headers that are huge or broken: an answer or a refusal within seconds, never a hang or a bug."""

from __future__ import annotations

import io
import json
import math
import signal
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from damage import SMALL, corrupted, gguf_bytes, key, safetensors_bytes, small_model, tensor, text
from gemmaq.cli.app import main
from gemmaq.models.gemma3.names import shapes, to_gguf
from inprocess import run

MANY = 60_000
SECONDS = 5


@contextmanager
def in_time() -> Iterator[None]:
    """Fails if the block computes for longer than a header may."""

    def too_long(*_: object) -> None:
        raise TimeoutError("the header keeps its reader busy")

    before = signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def answer(*arguments: object) -> tuple[int, str]:
    """Exit code and message on stderr, whichever way the command ends."""
    out, err = io.StringIO(), io.StringIO()
    command = ["gemmaq", "estimate-vram", *map(str, arguments)]
    with in_time(), patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(str(ended.code or 0))
    assert (code == 0) == bool(out.getvalue())
    return code, err.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("hostile") / "gemma-3-tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    out = folder.with_name("out")
    run("convert", folder, "--quant", "q4_0", "-o", out, "-q")
    return out / "gemma-3-tiny-Q4_0.gguf"


NUMBERS = {
    "block_count": SMALL.num_hidden_layers,
    "context_length": SMALL.max_position_embeddings,
    "embedding_length": SMALL.hidden_size,
    "feed_forward_length": SMALL.intermediate_size,
    "attention.head_count": SMALL.num_attention_heads,
    "attention.head_count_kv": SMALL.num_key_value_heads,
    "attention.key_length": SMALL.head_dim,
    "attention.value_length": SMALL.head_dim,
    "attention.sliding_window": SMALL.sliding_window,
    "attention.sliding_window_pattern": 6,
}


def keys_of_a_model(**changes: int) -> list[bytes]:
    """Keys of a header, some with other numbers."""
    numbers = {**NUMBERS, **changes}
    keys = [key(f"gemma3.{name}", 4, struct.pack("<I", number)) for name, number in numbers.items()]
    return [key("general.architecture", 8, text("gemma3")), *keys]


def tensors_of_a_model() -> tuple[list[bytes], int]:
    """Tensors in F32, and where the last one ends."""
    infos, at = [], 0
    for name, shape in shapes(SMALL):
        infos.append(tensor(to_gguf(name), shape[::-1], 0, at))
        at += -(-4 * math.prod(shape) // 32) * 32
    return infos, at


def many(first: int = 0) -> list[bytes]:
    """Tensors of one number each."""
    return [tensor(f"blk.{number}.attn_q.weight", (1,), 0, 32 * number) for number in range(first, MANY)]


def test_sixty_thousand_tensors_of_nothing_known(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(keys_of_a_model(), many(), 32 * MANY))
    code, message = answer(path)
    assert code == 3 and "lacks tensor" in message and len(message) < 1000


def test_sixty_thousand_tensors_beside_a_model(tmp_path: Path) -> None:
    """The model is read; a note names tensors that were left out."""
    infos, at = tensors_of_a_model()
    infos += [tensor(f"extra.{number}", (1,), 0, at + 32 * number) for number in range(MANY)]
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(keys_of_a_model(), infos, at + 32 * MANY))
    code, message = answer(path, "--context", 1024, "--gpu", "24GB")
    assert code == 0 and "extra.0" in message and str(MANY - 1) in message and len(message) < 1000


def test_more_tensors_than_are_there(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    for counts in ((1 << 63, 9), (MANY, 10), (5, 1 << 63), (1 << 20, 10)):
        path.write_bytes(gguf_bytes(keys_of_a_model(), [], counts=counts))
        code, message = answer(path)
        assert code == 3 and path.name in message


def test_sixty_thousand_tensors_in_a_folder(folder: Path, tmp_path: Path) -> None:
    spans = ((n, [2 * n, 2 * n + 2]) for n in range(MANY))
    entries = {f"extra.{n}": {"dtype": "BF16", "shape": [1], "data_offsets": span} for n, span in spans}
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(entries, bytes(2 * MANY)))
    code, message = answer(tmp_path, "--context", 1024)
    assert code == 3 and "lacks tensor" in message and len(message) < 1000


def test_sixty_thousand_tensors_beside_those_of_a_folder(folder: Path, tmp_path: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header, end = json.loads(content[8:start]), len(content) - start
    for number in range(MANY):
        at = end + 2 * number
        header[f"extra.{number}"] = {"dtype": "BF16", "shape": [1], "data_offsets": [at, at + 2]}
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(header, content[start:] + bytes(2 * MANY)))
    code, message = answer(tmp_path, "--context", 1024, "--gpu", "24GB")
    assert code == 0 and len(message) < 1000


ODD = (0, 1, 3, 4097, (1 << 31) - 1, (1 << 32) - 1)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_header_with_an_odd_dimension(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.gguf"
    infos, at = tensors_of_a_model()
    codes = []
    for number in (NUMBERS[name], *ODD):
        path.write_bytes(gguf_bytes(keys_of_a_model(**{name: number}), infos, at))
        engine = ("llama.cpp", "vllm")[len(codes) % 2]
        code, message = answer(path, "--context", 1, "--gpu", "8GB", "--engine", engine, "--quant", "bf16")
        assert code in (0, 3), f"{name} = {number}: {code} {message}"
        codes.append(code)
    assert codes[0] == 0 and 3 in codes


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_gguf_header(model: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.gguf"
        path.write_bytes(data.draw(corrupted(model.read_bytes()[:4000])) + model.read_bytes()[4000:])
        code, message = answer(path, "--context", 1, "--gpu", "8GB")
        assert code in (0, 3), message
        assert len(message) < 2000


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_folder(folder: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        for name in ("config.json", "model.safetensors"):
            (Path(place) / name).write_bytes((folder / name).read_bytes())
        path = Path(place) / data.draw(st.sampled_from(("config.json", "model.safetensors")))
        content = path.read_bytes()
        path.write_bytes(data.draw(corrupted(content[:3000])) + content[3000:])
        code, message = answer(place, "--context", 1, "--gpu", "8GB", "--engine", "vllm")
        assert code in (0, 3), message
        assert len(message) < 2000
