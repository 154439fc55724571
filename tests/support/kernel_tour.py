"""A tour of the commands, and the compiled functions that they call.

python tests/support/kernel_tour.py > kernels.txt && mv kernels.txt gemmaq/jit/
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

import grids
import lora_files
import quantized_folders
import small
from gemmaq import jit
from gemmaq.encodings import ENCODINGS
from gemmaq.jit import native
from gemmaq.models.gemma3.config import pattern
from gemmaq.planning.mixtures import MIXTURES
from inprocess import run_any
from synthetic import EVEN, write_checkpoint

CONFIG = replace(
    EVEN,
    hidden_size=256,
    intermediate_size=512,
    head_dim=128,
    query_pre_attn_scalar=128,
    num_hidden_layers=2,
    layer_pattern=pattern(2, 2),
    vocab_size=4096,
)
Command = tuple[object, ...]


def model(folder: Path) -> Path:
    """A model with rows of whole blocks of every type, and a tokenizer."""
    write_checkpoint(folder, CONFIG)
    for name, content in small.tokenizer(CONFIG.vocab_size).items():
        (folder / name).write_bytes(content)
    return folder


def commands(at: Path) -> Iterator[Command]:
    """Command lines that use every type, container, method and kind of source; some are refused."""
    source = model(at / "source")
    text = at / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 200)
    yield from _types(at, source, text)
    yield from _sources(at, source)
    yield from _trained(at, source, text)
    yield "convert", "sample:gemma-3-270m", "-o", at / "sample"
    yield "inspect", "sample:gemma-3-270m", "--tensors"


def _types(at: Path, source: Path, text: Path) -> Iterator[Command]:
    yield "imatrix", source, "--text", text, "-o", at / "imatrix.gguf"
    matrix = ("--imatrix", at / "imatrix.gguf")
    for name, encoding in ENCODINGS.items():
        if encoding.ggml_type is not None:
            out = at / f"gguf-{name}"
            types = ("--quant", name, "--embedding", name if encoding.plain else "q8_0")
            weighed = (*matrix, "--method", "importance") if encoding.weighted else ()
            yield "convert", source, *types, *weighed, "-o", out
            yield "convert", source, "--quant", name, "-o", at / f"plain-{name}"
            yield "verify", out, "--against", source, *weighed[:2]
            file = next(out.glob("*.gguf"), out)
            yield "convert", file, "--quant", "f32", "-o", at / f"f32-{name}"
            yield "convert", file, "--to", "safetensors", "--quant", "bf16", "-o", at / f"bf16-{name}"
        if encoding.mlx:
            yield "convert", source, "--to", "mlx", "--quant", name, "-o", at / f"mlx-{name}"
            yield "convert", at / f"mlx-{name}", "--quant", "q8_0", "-o", at / f"mlx-{name}-q8_0"
            yield "convert", source, "--to", "mlx", "--quant", name, "--scales", "f16", "-o", at / f"mlx-f16-{name}"
        if encoding.compressed_tensors:
            out = at / f"ct-{name}"
            yield "convert", source, "--to", "safetensors", "--quant", name, "-o", out
            yield "convert", out, "--quant", "q8_0", "-o", at / f"ct-{name}-q8_0"
            yield "verify", out, "--against", source
        for container in _containers(encoding):
            more, gptq = ("--to", container, "--quant", name), ("--method", "gptq", "--text", text)
            yield "convert", source, *more, *gptq, "-o", at / f"gptq-{container}-{name}"
            yield "convert", source, *more, *gptq, "--sweeps", 1, "-o", at / f"swept-{container}-{name}"
            yield "convert", source, *more, "--method", "importance", *matrix, "-o", at / f"by-{container}-{name}"
            yield "convert", source, *more, "--portable", "-o", at / f"portable-{container}-{name}"
    for name in MIXTURES:
        container = "mlx" if name.startswith("mixed") else "gguf"
        yield "convert", source, "--to", container, "--quant", name, "-o", at / f"mixture-{name}"


def _containers(encoding: Any) -> list[str]:
    held = {"gguf": encoding.ggml_type is not None, "mlx": encoding.mlx, "safetensors": encoding.compressed_tensors}
    return [container for container, holds in held.items() if holds]


def _sources(at: Path, source: Path) -> Iterator[Command]:
    for number, rule in enumerate(grids.RULES):
        folder = grids.regrid(source, at / f"grid-{number}", rule, embedding=True)
        yield "inspect", folder
        for container in ("gguf", "mlx", "safetensors"):
            yield "convert", folder, "--to", container, "-o", at / f"grid-{number}-{container}"
        yield "convert", folder, "--portable", "--recipe", "everywhere", "-o", at / f"grid-{number}-portable"
        yield "verify", at / f"grid-{number}-gguf", "--against", folder
    for number, (settings, make, _) in enumerate(quantized_folders.KINDS.values()):
        folder = at / f"kind-{number}"
        quantized_folders.write(folder, settings, make)
        yield "convert", folder, "--quant", "q8_0", "-o", at / f"kind-{number}-q8_0"
        yield "convert", folder, "--quant", "auto", "--to", "mlx", "-o", at / f"kind-{number}-auto"
    pair = lora_files.pair(256, 256)
    norms = {f"{lora_files.PREFIX}{lora_files.Q0}.lora_magnitude_vector": np.ones(256, np.float32)}
    for name, changes, more in (("lora", {}, {}), ("dora", {"use_dora": True}, norms)):
        folder = lora_files.write(at / name, lora_files.config(**changes), pair | more, base=source)
        yield "convert", folder, "-o", at / f"{name}-merged"


def _trained(at: Path, source: Path, text: Path) -> Iterator[Command]:
    for grid in ("q4_0", "int4-channel"):
        yield *small.words(source, text, at / f"qat-{grid}", "--steps", 2), "--grid", grid
    yield "evaluate", at / "gguf-q4_0", "--reference", source, "--text", text, "--tokens", 128, "--context", 64
    yield "sensitivity", source, "--text", text, "-o", at / "sensitivity.json"


def called(lines: Iterator[Command], told: Any = None) -> dict[tuple[str, str], str]:
    """Run command lines; (function, types of its arguments) -> type of its result, of what they call.

    Args:
        lines: Command lines.
        told: Told of each command line and its exit code.
    """
    found: dict[tuple[str, str], str] = {}
    whole = jit.Kernel.__call__

    def call(self: jit.Kernel, *arguments: Any) -> Any:
        result = whole(self, *arguments)
        kinds = [native.spelled(one) for one in arguments]
        key = (self.name, " ".join(map(str, kinds)))
        if key not in found:
            found[key] = "?" if None in kinds else _returned(self, arguments)
        return result

    with patch.object(jit.Kernel, "__call__", call):
        for line in lines:
            done = run_any(*line)
            if told is not None:
                told(line, done)
    return found


def _returned(kernel: jit.Kernel, arguments: Any) -> str:
    """The type of a result, in the words of `kernels.txt`; "?" if it has none there."""
    from numba import typeof, types

    wanted = tuple(typeof(one) for one in arguments)
    kernel.made.compile(wanted)
    return _spelled(kernel.made.overloads[wanted].signature.return_type, types)


def _spelled(kind: Any, types: Any) -> str:
    if isinstance(kind, types.BaseTuple):
        return f"({','.join(_spelled(part, types) for part in kind)})"
    if isinstance(kind, types.Boolean):
        return "bool"
    return str(kind) if isinstance(kind, types.Number | types.NoneType) else "?"


def main() -> None:
    """Print the functions that can be compiled beforehand; tell of the others on stderr."""

    def tell(line: Command, done: Any) -> None:
        if done.code:
            last = next(text for text in reversed(done.stderr.splitlines()) if "try:" not in text)
            print(done.code, *line, last[:150], file=sys.stderr, flush=True)

    with TemporaryDirectory() as folder:
        found = called(commands(Path(folder)), tell)
    for (name, kinds), result in sorted(found.items()):
        line = f"{name} {kinds} -> {result}"
        print(line, file=sys.stderr if "?" in line or "None" in kinds else sys.stdout)


if __name__ == "__main__":
    main()
