"""Model files broken on purpose, and checks that a failure leaves nothing behind."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from gemmaq.artifact.digests import of_file, of_files
from gemmaq.errors import InputError
from gemmaq.files import sentencepiece, sums
from gemmaq.files.sentencepiece import BYTE, CONTROL, NORMAL
from gemmaq.files.span import FileSpan
from gemmaq.models.gemma3.config import TextConfig, pattern
from records import edit_record
from synthetic import TINY, write_checkpoint, write_safetensors

SMALL = replace(TINY, num_hidden_layers=2, layer_pattern=pattern(2, 6))
"""Two layers, 28 tensors."""

HEADER_MEMORY = 32 << 20
"""What reading a header of a few kB may allocate at most, whatever the header claims."""

Header = dict[str, Any]


def small_model(folder: Path, config: TextConfig = SMALL, **options: Any) -> Path:
    """A whole model with a tokenizer of as many pieces as it has embedding rows; see `write_checkpoint`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _files_of_model(config, **options).items():
        (folder / name).write_bytes(content)
    return folder


@cache
def _files_of_model(config: TextConfig, **options: Any) -> Mapping[str, bytes]:
    with TemporaryDirectory() as place:
        folder = write_checkpoint(Path(place), config, **options)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    named = [(text, 0.0, CONTROL) for text in ("<pad>", "<eos>", "<bos>", "<unk>")]
    made = [(f"<0x{n:02X}>", 0.0, BYTE) for n in range(256)]
    made += [(f"piece{n}", -float(n), NORMAL) for n in range(config.vocab_size)]
    pieces = (named + made)[: config.vocab_size]
    return {**files, "tokenizer.model": sentencepiece.write(pieces, len(pieces))}


def flip(path: Path, at: float) -> None:
    """Flip a bit of a file, at this share of its bytes."""
    content = bytearray(path.read_bytes())
    content[min(int(at * len(content)), len(content) - 1)] ^= 16
    path.write_bytes(content)


def header_of(path: Path) -> tuple[Header, bytes]:
    """The header of a safetensors file, and its data."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), content[start:]


def safetensors_bytes(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file with this header, be it text or a value to spell as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def edit_header(path: Path, change: Callable[[Header], object]) -> None:
    """Rewrite the header of a safetensors file, leaving its data alone."""
    header, data = header_of(path)
    change(header)
    path.write_bytes(safetensors_bytes(header, data))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a JSON file."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def add_tensor(folder: Path, name: str, values: np.ndarray, file: str = "extra.safetensors") -> None:
    """Give a one-file model one more BF16 tensor, in a file of its own, and an index that knows it."""
    write_safetensors(folder / file, {name: ("BF16", values.shape)}, {name: values})
    header, _ = header_of(folder / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    known = (
        json.loads(index.read_text())["weight_map"] if index.exists() else dict.fromkeys(header, "model.safetensors")
    )
    index.write_text(json.dumps({"weight_map": {**known, name: file}}))


def stored(folder: Path, name: str) -> np.ndarray:
    """The BF16 bits of a tensor of a one-file model, u16."""
    header, data = header_of(folder / "model.safetensors")
    begin, end = header[name]["data_offsets"]
    return np.frombuffer(data[begin:end], np.uint16).reshape(header[name]["shape"]).copy()


def poison(folder: Path, name: str, bits: int, at: int = -1) -> None:
    """Overwrite one BF16 weight of a tensor, by default its last."""
    for path in folder.glob("*.safetensors"):
        header, data = header_of(path)
        if name in header:
            begin, end = header[name]["data_offsets"]
            weights = np.frombuffer(data[begin:end], np.uint16).copy()
            weights[at] = bits
            path.write_bytes(safetensors_bytes(header, data[:begin] + weights.tobytes() + data[end:]))
            return
    raise KeyError(name)


def sealed_anew(artifact: Path) -> None:
    """Digests of what is there now in gemmaq.json and SHA256SUMS, as who changes an artifact on purpose writes them."""

    def update(said: dict[str, Any]) -> None:
        for file in said["files"]:
            file |= {"sha256": of_file(artifact / file["path"]), "bytes": (artifact / file["path"]).stat().st_size}

    edit_record(artifact, update)
    files = {path.name: path for path in artifact.iterdir() if path.name != sums.NAME}
    (artifact / sums.NAME).write_bytes(sums.text(of_files(files)))


def text(value: str | bytes) -> bytes:
    """A GGUF string."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def key(name: str, kind: int, value: bytes) -> bytes:
    """A GGUF key, its value already in bytes."""
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    """A GGUF tensor info; `shape` as GGUF has it, columns first."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf_bytes(
    keys: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: int = 0,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    magic: bytes = b"GGUF",
) -> bytes:
    """A GGUF file with `data` zero bytes behind its padded header."""
    claimed = counts or (len(tensors), len(keys))
    head = magic + struct.pack("<IQQ", version, *claimed) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32 + data)


def edit_gguf_keys(path: Path, change: Callable[[dict[str, tuple[int, bytes]]], object]) -> None:
    """Rewrite the keys (name -> type and bytes) of a GGUF file, leaving tensors and data alone."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    fields = [field for name, field in reader.fields.items() if not name.startswith("GGUF.")]
    keys = {f.name: (int(f.types[0]), b"".join(part.tobytes() for part in f.parts[3:])) for f in fields}
    infos = [b"".join(part.tobytes() for part in t.field.parts) for t in reader.tensors]
    data = path.read_bytes()[reader.data_offset :]
    change(keys)
    path.write_bytes(gguf_bytes([key(name, *value) for name, value in keys.items()], infos) + data)


def edit_gguf_tensors(path: Path, changes: Mapping[str, Any]) -> None:
    """Give tensors of a GGUF file another name or type, or None to take them out; their bytes stay."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    infos = []
    for stored in reader.tensors:
        change = changes.get(stored.name, stored.name)
        name, kind = (change, stored.tensor_type) if isinstance(change, str) else (stored.name, change)
        shape = [int(size) for size in stored.shape]
        if kind is not None:
            infos.append(tensor(name, shape, int(kind), stored.data_offset - reader.data_offset))
    header = path.read_bytes()[: reader.tensors[0].field.offset]
    data = path.read_bytes()[reader.data_offset :]
    head = header[:8] + len(infos).to_bytes(8, "little") + header[16:] + b"".join(infos)
    path.write_bytes(head + bytes(-len(head) % 32) + data)


@contextmanager
def bounded() -> Iterator[None]:
    """Fails if the block takes more memory or time than a header may."""

    def too_long(*_: object) -> None:
        raise TimeoutError("the header keeps its reader busy")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(5)
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert peak < HEADER_MEMORY, f"{peak:,} bytes were allocated"


def parse_safely(parse: Callable[[FileSpan], Any], path: Path, content: bytes) -> Any:
    """What `parse` makes of a file, None if it refuses; any other failure is one of the test."""
    path.write_bytes(content)
    with bounded():
        try:
            return parse(FileSpan.of(path))
        except InputError as error:
            assert str(path) in error.message
            assert len(error.message) < 1000
            return None


@st.composite
def corrupted(draw: st.DrawFn, good: bytes) -> bytes:
    """A good file with some bytes overwritten, cut out or put in, its end perhaps missing."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(content[: draw(st.just(None) | st.integers(0, len(content)))])


def tree(folder: Path) -> Mapping[str, bytes | None]:
    """Everything under a folder: name -> content, None for a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


BESIDE = frozenset(("Modelfile", "README.md", "SHA256SUMS", "gemmaq.json", "params"))
"""What an artifact has beside what its container writes."""


def contained(folder: Path) -> dict[str, bytes]:
    """What containers wrote under a folder: name -> content; without what tells of source and run, or is hidden."""
    files = {name: content for name, content in tree(folder).items() if content is not None and name[0] != "."}
    return {name: content for name, content in files.items() if name.rpartition("/")[2] not in BESIDE}


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs with these options; skips the test where mounting is not permitted."""
    folder.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting is not permitted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
