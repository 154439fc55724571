"""GGUF files as Ollama's converter wrote them: model and towers in one file, which its store calls by digest."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable
from pathlib import Path

from damage import gguf_bytes, key, tensor

_PARTS = {
    "ln1": "layer_norm1", "ln2": "layer_norm2", "attn_out": "attn_output", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2",
}  # fmt: skip
_OUTER = {
    "v.patch_embd": "v.patch_embedding", "v.position_embd": "v.position_embedding", "v.post_ln": "v.post_layernorm",
    "mm.input_projection": "mm.mm_input_projection", "mm.soft_emb_norm": "mm.mm_soft_emb_norm",
}  # fmt: skip


def gemma3_name(name: str) -> str:
    """Name of a tensor of an mmproj file in Ollama's layout."""
    stem, _, kind = name.rpartition(".")
    block = re.fullmatch(r"(v\.blk\.\d+)\.(.+)", stem)
    return f"{block[1]}.{_PARTS.get(block[2], block[2])}.{kind}" if block else f"{_OUTER[stem]}.{kind}"


def joined(model: Path, mmproj: Path, folder: Path, rename: Callable[[str], str], tokens: int | None = None) -> Path:
    """One file of both, under its digest; the keys of the towers begin with the model's architecture."""
    from gguf import GGUFReader

    keys: list[bytes] = []
    infos: list[bytes] = []
    data, name = bytearray(), ""
    for path in (model, mmproj):
        reader = GGUFReader(path)
        name = reader.fields["general.architecture"].contents() if path == model else name
        for field in reader.fields.values():
            said = field.name
            if said.startswith("GGUF.") or (path == mmproj and not said.startswith(("clip.vision.", "clip.audio."))):
                continue
            if "rope.freq_base_swa" in said:
                said = said.replace("rope.freq_base_swa", "rope.local.freq_base")
            said = said.replace("clip.", f"{name}.", 1)
            if not said.endswith(("projector_type", "projection_dim", "scale_factor")):
                keys.append(key(said, int(field.types[0]), b"".join(part.tobytes() for part in field.parts[3:])))
        for stored in reader.tensors:
            called = rename(stored.name) if path == mmproj else stored.name
            infos.append(tensor(called, [int(n) for n in stored.shape], int(stored.tensor_type), len(data)))
            data += stored.data.tobytes()
            data += bytes(-len(data) % 32)
    if tokens is not None:
        keys.append(key(f"{name}.mm.tokens_per_image", 4, struct.pack("<I", tokens)))
    content = gguf_bytes(keys, infos) + bytes(data)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"sha256-{hashlib.sha256(content).hexdigest()}"
    path.write_bytes(content)
    return path
