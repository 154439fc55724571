"""A LoRA adapter alone, as a GGUF file that llama.cpp adds to a model while it runs.

Source of the layout: llama.cpp's convert_lora_to_gguf.py and src/llama-adapter.cpp. llama.cpp scales the product of a
pair by alpha / rank, with one alpha for all: another scaling (rank-stabilized, `alpha_pattern`) is put into B.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gemmaq.artifact import digests, origin, provenance, record
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.checkpoint.lora import config as lora_config
from gemmaq.checkpoint.lora.merged import LowRank, Merged
from gemmaq.checkpoint.rows import weights
from gemmaq.encodings import ENCODINGS, Encoding, codec
from gemmaq.errors import InputError
from gemmaq.files import sums
from gemmaq.files.atomic import check_output, staging
from gemmaq.files.gguf_writer import F32, U32, Info, Keys, aligned, header
from gemmaq.files.span import Reader
from gemmaq.models.identity import identify

NAME = "gguf-lora"
TYPES = ("f32", "f16", "bf16")
_QUANTIZATION_VERSION = 2


@dataclass(frozen=True, slots=True)
class Pair:
    """The two matrices of a model's matrix.

    Attributes:
        name: Name of the model's matrix in a GGUF file.
        a: A, [rank, columns].
        b: B, [rows, rank].
        factor: What B is multiplied with, so that alpha / rank is the scaling.
    """

    name: str
    a: Tensor
    b: Tensor
    factor: float


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapter to write: name of the file, its type, its header, and the pairs."""

    name: str
    encoding: Encoding
    head: bytes
    pairs: tuple[Pair, ...]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        stored = (tensor for pair in self.pairs for tensor in (pair.a, pair.b))
        return len(self.head) + sum(aligned(_nbytes(tensor, self.encoding)) for tensor in stored)


def lay_out(checkpoint: Checkpoint, kind: str) -> Adapted:
    """Lay out the adapter of a checkpoint.

    Args:
        checkpoint: An adapter with its base model, of which only headers are read.
        kind: Type of the file, one of `TYPES`.

    Raises:
        InputError: There is no adapter, or it has what such a file cannot hold.
    """
    adapter = checkpoint.adapter
    if adapter is None:
        raise InputError("is no LoRA adapter", f"--to {NAME} is for folders of PEFT", path=checkpoint.location)
    settings, encoding = lora_config.read(adapter.config), ENCODINGS[kind]
    alpha = settings.alpha or 1.0  # llama.cpp takes 0 for no scaling
    pairs = tuple(_pairs(checkpoint, alpha))
    keys, identity = Keys(), identify(checkpoint.name)
    keys.text("general.architecture", checkpoint.family.gguf.ARCHITECTURE)
    keys.text("general.type", "adapter")
    keys.text("adapter.type", "lora")
    keys.text("general.name", identity.title)
    keys.text("general.base_model.0.name", adapter.base.name)
    keys.number("general.base_model.count", 1, U32)
    if settings.invocation:
        keys.array("adapter.alora.invocation_tokens", np.array(settings.invocation, "<u4"), U32)
    keys.number("adapter.lora.alpha", alpha, F32)
    keys.number("general.file_type", encoding.file_type or 0, U32)
    keys.number("general.quantization_version", _QUANTIZATION_VERSION, U32)
    infos = [
        Info(f"{pair.name}.{part}", tensor.shape, encoding.ggml_type or 0, _nbytes(tensor, encoding))
        for pair in pairs
        for part, tensor in (("lora_a", pair.a), ("lora_b", pair.b))
    ]
    return Adapted(f"{identity.stem}-{kind.upper()}-LoRA.gguf", encoding, header(keys, infos)[0], pairs)


def _nbytes(tensor: Tensor, encoding: Encoding) -> int:
    return tensor.rows * encoding.row_bytes(tensor.columns)


def _pairs(checkpoint: Checkpoint, alpha: float) -> Iterator[Pair]:
    """The pairs of all matrices that an adapter changes."""
    assert checkpoint.adapter is not None
    base, names = checkpoint.adapter.base, checkpoint.family.names
    old = {**base.tensors, **base.towers}
    for name, tensor in {**checkpoint.tensors, **checkpoint.towers}.items():
        decoder = tensor.decoder
        if tensor is old.get(name):
            continue
        if name in checkpoint.towers:
            raise _unheld(checkpoint, f"changes {name}: llama.cpp adds adapters to text models only")
        if tensor.place.role.is_table and not (decoder and name in base.tensors and name == names.HEAD):
            raise _unheld(checkpoint, f"changes {name}: llama.cpp cannot add to a table that is also the head")
        if not isinstance(decoder, Merged) or decoder.base is not old.get(name):
            raise _unheld(checkpoint, f"stores {name} whole, for which such a file has no place")
        step = decoder.steps[0]
        if len(decoder.steps) > 1 or not isinstance(step, LowRank):
            raise _unheld(checkpoint, f"changes {name} by more than one pair of matrices")
        if step.magnitude is not None:
            raise _unheld(checkpoint, f"is a DoRA adapter, with norms of {name}, for which such a file has no place")
        rank = step.a.shape[0]
        yield Pair(names.to_gguf(name), step.a, step.b, step.scaling / (alpha / rank))


def _unheld(checkpoint: Checkpoint, problem: str) -> InputError:
    return InputError(
        problem, "convert it with --to gguf, which merges it into its base model", path=checkpoint.location
    )


def write(checkpoint: Checkpoint, adapted: Adapted, folder: Path, *, force: bool) -> None:
    """Write the file with its record and checksums into a new folder, one matrix at a time in memory.

    Raises:
        InputError: The adapter cannot be read, or holds weights that are not finite in the type.
        OutputError: The folder exists, does not fit, or cannot be written.
    """
    check_output(folder, adapted.size, inputs=checkpoint.files, force=force)
    with staging(folder, force) as stage, Reader() as reader:
        digest = hashlib.sha256()
        with (stage / adapted.name).open("wb") as file:
            for data in (adapted.head, *_data(adapted, reader)):
                file.write(data)
                digest.update(data)
        listed = provenance.Listed(adapted.name, adapted.size, digest.hexdigest())
        about = record.adapter_text(_source(checkpoint), adapted.encoding.label, listed)
        (stage / provenance.NAME).write_bytes(about)
        of_record = hashlib.sha256(about).hexdigest()
        (stage / sums.NAME).write_bytes(sums.text({adapted.name: listed.sha256, provenance.NAME: of_record}))


def _source(checkpoint: Checkpoint) -> record.MergedAdapter:
    """The adapter with the digests of its files."""
    found = origin.of_adapter(checkpoint)
    assert found is not None
    made = record.merged(record.Source(found, [digests.of_file(file.path) for file in found.files]), checkpoint)
    assert made is not None
    return made


def _data(adapted: Adapted, reader: Reader) -> Iterator[bytes]:
    """The tensor data, matrix by matrix, each padded to the alignment."""
    pack = codec(adapted.encoding).pack
    assert pack is not None
    for pair in adapted.pairs:
        for tensor, factor in ((pair.a, 1.0), (pair.b, pair.factor)):
            rows = weights(tensor, 0, tensor.rows, reader)
            if factor != 1:
                rows = rows * np.float32(factor)
            largest = np.finfo(np.float16).max if adapted.encoding.name == "f16" else np.finfo(np.float32).max
            if not (np.abs(rows) <= largest).all():
                raise InputError(
                    f"holds weights that {adapted.encoding.label} does not", path=tensor.span, tensor=tensor.name
                )
            data = pack(rows).tobytes()
            yield data.ljust(aligned(len(data)), b"\0")
