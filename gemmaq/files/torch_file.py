"""Reads which tensors a file of torch.save holds, and where: by torch's reader of weights alone, mapped into memory.

Such a file is a zip archive: a pickle that describes the tensors, and their bytes, uncompressed, each storage a member
of its own. Source: torch.serialization, and caffe2/serialize/inline_container.h of PyTorch.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.safetensors_header import Entry
from gemmaq.files.span import FileSpan
from gemmaq.files.whole import size_of

if TYPE_CHECKING:
    import torch

_DTYPES = {
    "bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "int8": "I8", "uint8": "U8", "int16": "I16",
    "uint16": "U16", "int32": "I32", "uint32": "U32", "int64": "I64", "uint64": "U64", "bool": "BOOL",
}  # fmt: skip
"""Name of a dtype in torch -> in safetensors."""
_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Beginning of files as torch.save wrote them before version 1.6: the pickled magic number."""
_LOCAL_HEADER = struct.Struct("<26xHH")
_BLOCKED = re.compile(r"GLOBAL ([\w.]+)|(?:Trying to call|instantiate|class) ([\w.]+)")
_MOST = 1 << 26
"""Bytes that describe the tensors or list the members: of a model's file, they are less than one in a hundred of it."""
_STATES = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which trainers keep the weights beside other things."""


def parse(span: FileSpan) -> list[Entry]:
    """The tensors of a file of torch.save.

    Nothing in the file is run: torch reads it with `weights_only=True`, and never otherwise.

    Raises:
        NotFoundError: torch is not installed.
        InputError: It is no such file, holds more than tensors, or contradicts itself.
    """
    path = span.paths[0]
    members = _members(path)
    loaded = _load(path)
    tensors = dict(_tensors(loaded, path))
    base = _base(list(_everywhere(loaded)), members, path)
    return [_entry(name, tensor, base, path) for name, tensor in tensors.items()]


def _load(path: Path) -> Any:
    """What torch reads from a file."""
    try:
        import torch
    except ImportError as error:
        raise NotFoundError("is a PyTorch file, and torch is not installed", "pip install torch", path=path) from error
    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < (2, 6):
        raise NotFoundError(
            f"is a PyTorch file, and torch {torch.__version__} does not read such files safely",
            "pip install -U torch",
            path=path,
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        found = _BLOCKED.search(str(error))
        what = f" ({found[1] or found[2]})" if found else ""
        raise InputError(
            f"holds more than tensors{what}: loading it could run code of its author, so it is refused",
            "use a safetensors version of the model",
            path=path,
        ) from error
    except Exception as error:  # whatever a damaged file makes of torch's reader
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"is damaged or no PyTorch file: {reason:.200}", path=path) from error


class _Bounded(io.FileIO):
    """A file of which no more is read at once than any part that describes it may have."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _MOST:
            raise ValueError(f"a part of it claims {size:,} bytes")
        return super().read(_MOST if size is None or size < 0 else size) or b""


def _members(path: Path) -> dict[int, int]:
    """Places of the storages in a file: offset -> bytes.

    Raises:
        InputError: It is no archive of torch.save, or one that this reader does not know.
    """
    found: dict[int, int] = {}
    try:
        size_of(path)
        with _Bounded(path) as file:
            if file.read(len(_OLD)) == _OLD:
                raise InputError(
                    "is in the format of PyTorch before 1.6, which cannot be mapped into memory",
                    f"save it anew: torch.save(torch.load({path.name!r}, weights_only=True), {path.name!r})",
                    path=path,
                )
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    folder, _, name = member.filename.rpartition("/")
                    if name == "data.pkl" and max(member.file_size, member.compress_size) > _MOST:
                        raise InputError(f"has {member.file_size:,} bytes that describe its tensors", path=path)
                    if (
                        name == "byteorder"
                        and member.file_size < 16
                        and folder.count("/") == 0
                        and archive.read(member) == b"big"
                    ):
                        raise InputError("was saved on a big-endian machine", "save it anew as safetensors", path=path)
                    if folder.rpartition("/")[2] != "data":
                        continue
                    if member.compress_type != zipfile.ZIP_STORED:
                        raise InputError("is compressed", "save it anew with torch.save", path=path)
                    file.seek(member.header_offset)
                    name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
                    found[member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes] = member.file_size
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    except (zipfile.BadZipFile, struct.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"is damaged or no PyTorch file: {error}", path=path) from error
    return found


def _tensors(value: Any, path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a state dict by name; of the one in a trainer's checkpoint."""
    import torch

    if isinstance(value, Mapping) and not any(isinstance(part, torch.Tensor) for part in value.values()):
        value = next((value[key] for key in _STATES if isinstance(value.get(key), Mapping)), value)
    if not isinstance(value, Mapping):
        raise InputError(f"holds a {type(value).__name__}, not tensors by name", path=path)
    for name, tensor in value.items():
        if isinstance(tensor, torch.Tensor):
            if not isinstance(name, str) or not name.isprintable() or len(name) > 1024:
                raise InputError(f"has the tensor name {name!r:.60}", path=path)
            yield name, tensor


def _everywhere(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in what was loaded, those of optimizers too."""
    import torch

    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set)):
            waiting += value


def _base(tensors: list[torch.Tensor], members: Mapping[int, int], path: Path) -> int:
    """Address of the first byte of the file in memory, by the places of all storages there and in the file.

    Raises:
        InputError: They do not fit each other.
    """
    storages = {}
    for tensor in tensors:
        with contextlib.suppress(NotImplementedError, RuntimeError):  # sparse tensors have none; `_entry` names them
            storage = tensor.untyped_storage()
            if storage.nbytes():
                storages[storage.data_ptr()] = storage.nbytes()
    if not storages:
        return 0
    first, size = next(iter(storages.items()))
    bases = [
        first - offset
        for offset, length in members.items()
        if length == size
        and (first - offset) % mmap.PAGESIZE == 0
        and all(members.get(at - first + offset) == bytes_ for at, bytes_ in storages.items())
    ]
    if len(bases) != 1:
        raise InputError("stores its tensors in an unknown way", "save it anew as safetensors", path=path)
    return bases[0]


def _entry(name: str, tensor: torch.Tensor, base: int, path: Path) -> Entry:
    """Where a tensor lies in its file."""
    import torch

    dtype = _DTYPES.get(str(tensor.dtype).removeprefix("torch."))
    strided = tensor.layout is torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    if dtype is None or not strided or tensor.is_conj() or tensor.is_neg():
        raise InputError(f"is a {tensor.dtype} tensor of the layout {tensor.layout}", path=path, tensor=name)
    shape, item = tuple(tensor.shape), tensor.element_size()
    strides = None if tensor.is_contiguous() else tuple(step * item for step in tensor.stride())
    offset = tensor.data_ptr() - base if tensor.numel() else 0
    return Entry(name, dtype, shape, offset, tensor.numel() * item, strides)
