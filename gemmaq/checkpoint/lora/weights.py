"""Tensors of an adapter's file, by the modules that they belong to.

Source of the names: `peft.utils.save_and_load.get_peft_model_state_dict`, PEFT 0.21 and the spellings before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gemmaq.checkpoint import Tensor, plain
from gemmaq.checkpoint.stored import header
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files import safetensors_header
from gemmaq.files.span import FileSpan

NAME = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
_ENCODINGS = {"BF16": ENCODINGS["bf16"], "F16": ENCODINGS["f16"], "F32": ENCODINGS["f32"]}
_PREFIX = "base_model.model."
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
A, B, TABLE_A, TABLE_B, MAGNITUDE, TOKENS = (
    *("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"),
    *("lora_magnitude_vector", "trainable_tokens_delta"),
)
_PART = re.compile(
    rf"(?P<module>.+?)(?:\.token_adapter)?\.(?P<part>{A}|{B}|{TABLE_A}|{TABLE_B}|{MAGNITUDE}|{TOKENS})"
    r"(?:\.default)?(?:\.weight)?"
)
_SAVED = re.compile(r"\.modules_to_save(?:\.default)?(?=\.)")
_BASE = re.compile(r"\.(?:token_adapter\.base_layer|base_layer|original_module)(?=\.)")


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """What the file of an adapter holds, under names of the base model's modules.

    Attributes:
        span: The file.
        parts: Module -> its arrays by part: `A`, `B`, `TABLE_A`, `TABLE_B`, `MAGNITUDE`, `TOKENS`.
        saved: Tensor -> the one that the adapter has in its place.
        bases: Tensor -> the one that the adapter's changes are added to, in place of the base model's.
        loose: Tensors that are one of these two: the config decides.
    """

    span: FileSpan
    parts: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    saved: Mapping[str, Tensor] = field(default_factory=dict)
    bases: Mapping[str, Tensor] = field(default_factory=dict)
    loose: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors of the file."""
        of_parts = (tensor for arrays in self.parts.values() for tensor in arrays.values())
        return (*of_parts, *self.saved.values(), *self.bases.values(), *self.loose.values())


def read(folder: Path) -> AdapterWeights:
    """Read the header of an adapter's file.

    Raises:
        NotFoundError: There is none, or it is a file of torch.save and torch is not installed.
        InputError: It cannot be read, or holds tensors of other types than F32, F16 and BF16, or one twice.
    """
    path = next((folder / name for name in (NAME, PICKLED) if (folder / name).is_file()), None)
    if path is None:
        raise NotFoundError(f"has no {NAME}", "download the whole adapter", path=folder)
    span = FileSpan.of(path)
    parts: dict[str, dict[str, Tensor]] = {}
    others_: dict[str, dict[str, Tensor]] = {"saved": {}, "bases": {}, "loose": {}}
    for entry in header(span):
        tensor = _tensor(span, entry)
        name = _WRAPPERS.sub("", entry.name).removeprefix("module.").removeprefix(_PREFIX)
        match = _PART.fullmatch(name)
        if match is not None:
            place, key = parts.setdefault(match["module"], {}), match["part"]
        elif _SAVED.search(name):
            place, key = others_["saved"], _SAVED.sub("", name)
        elif _BASE.search(name):
            place, key = others_["bases"], _BASE.sub("", name)
        else:
            place, key = others_["loose"], name
        if key in place:
            raise InputError(f"has two tensors for {match['module'] if match else key}", path=span, tensor=entry.name)
        place[key] = tensor
    return AdapterWeights(span, parts, **others_)


def _tensor(span: FileSpan, entry: safetensors_header.Entry) -> Tensor:
    if entry.dtype not in _ENCODINGS:
        raise InputError(
            f"has dtype {entry.dtype}", f"supported: {', '.join(_ENCODINGS)}", path=span, tensor=entry.name
        )
    if min(entry.shape, default=1) < 1:
        raise InputError(
            f"has the shape {list(entry.shape)}: it was saved while its weights were spread over devices",
            "save it with gathered weights",
            path=span,
            tensor=entry.name,
        )
    return plain(
        entry.name, entry.shape, _ENCODINGS[entry.dtype], span=span, offset=entry.offset, strides=entry.strides
    )
