"""The vision side of Gemma 3: a SigLIP tower, the same in 4B, 12B and 27B, and a projector into the text model.

Canonical names are those of the original release (`vision_tower.vision_model.encoder.layers.0...`). Dimensions are
those of the published config files, and their sums agree with the published parameter counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gemmaq.errors import InputError
from gemmaq.models import gguf_numbers, hf_values
from gemmaq.models.arrangements import Arrangement, permuted
from gemmaq.models.config_keys import GELU_TANH
from gemmaq.models.gemma3.config import MODEL_TYPE, MULTIMODAL, TextConfig
from gemmaq.models.gemma3.vision_config import VisionConfig
from gemmaq.models.gemma3.vocabulary import IMAGE_ROLES
from gemmaq.models.roles import Place, Role

MODULES: tuple[str, ...] = ("vision_tower", "multi_modal_projector")
REPEATS_HEAD = True
PROJECTION = "multi_modal_projector.mm_input_projection_weight"
PROJECTOR_NORM = "multi_modal_projector.mm_soft_emb_norm.weight"
_TOWER = "vision_tower.vision_model."
_EMBEDDINGS = _TOWER + "embeddings."
PATCH_EMBEDDING = _EMBEDDINGS + "patch_embedding.weight"

_SPELLINGS = re.compile(
    r"(model\.)*(?:(?P<tower>vision_tower\.(vision_model\.)?|vision_model\.)|multi_?modal_projector\.)(?P<rest>.+)"
)
_HEAD = ("head.",)
_LAYER_GGUF = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
_OTHER_GGUF = {
    PATCH_EMBEDDING: "v.patch_embd.weight",
    _EMBEDDINGS + "patch_embedding.bias": "v.patch_embd.bias",
    _EMBEDDINGS + "position_embedding.weight": "v.position_embd.weight",
    _TOWER + "post_layernorm.weight": "v.post_ln.weight",
    _TOWER + "post_layernorm.bias": "v.post_ln.bias",
    PROJECTION: "mm.input_projection.weight",
    PROJECTOR_NORM: "mm.soft_emb_norm.weight",
}


DEFAULT = VisionConfig()
_FIXED: Mapping[str, tuple[Any, ...]] = {"hidden_act": GELU_TANH, "num_channels": (3,)}
"""Values that every runtime computes with, whatever the file says."""
_TOKENS = {"image_token": "image_token_index", "boi_token": "boi_token_index", "eoi_token": "eoi_token_index"}


def from_hf(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> VisionConfig:
    """Read the vision side of config.json and preprocessor_config.json.

    Raises:
        InputError: A value is of the wrong kind.
    """
    section = config.get("vision_config")
    merged = dict(section) if isinstance(section, Mapping) else {}
    for key, values in _FIXED.items():
        if merged.get(key, values[0]) not in (*values, None):
            raise InputError(f"config.json: vision_config has {key} {merged[key]!r:.60}, not {values[0]!r}")
    merged["tokens"] = config.get("mm_tokens_per_image", preprocessor.get("image_seq_length"))
    merged |= {
        name: config.get(spelled, config.get(spelled.removesuffix("_index") + "_id"))
        for name, spelled in _TOKENS.items()
    }
    ids, colors = tuple(_TOKENS), ("image_mean", "image_std")
    found = hf_values.fill(VisionConfig, merged, "config.json: the vision side's ", from_zero=ids, skip=colors)
    return checked(replace(found, **hf_values.colors(preprocessor)))


def checked(config: VisionConfig) -> VisionConfig:
    """Check that an image can be cut into patches and pooled into tokens, and return the config.

    Raises:
        InputError: It cannot.
    """
    side = math.isqrt(config.tokens)
    small = min(config.hidden_size, config.num_attention_heads, config.patch_size, side) >= 1
    if not small or config.num_hidden_layers > 4096 or config.image_size < config.patch_size:
        raise InputError("config.json: the dimensions of the vision side make no sense")
    return config


def markers(config: VisionConfig) -> tuple[str, ...]:
    """Tokens before and behind an image; runtimes of GGUF put its embeddings between them."""
    del config
    return tuple(IMAGE_ROLES[role] for role in ("boi_token", "eoi_token"))


def to_hf_config(config: VisionConfig) -> dict[str, Any]:
    """`vision_config` of a config.json."""
    return {
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": config.hidden_size,
        "image_size": config.image_size,
        "intermediate_size": config.intermediate_size,
        "layer_norm_eps": config.layer_norm_eps,
        "model_type": "siglip_vision_model",
        "num_attention_heads": config.num_attention_heads,
        "num_channels": 3,
        "num_hidden_layers": config.num_hidden_layers,
        "patch_size": config.patch_size,
        "vision_use_head": False,
    }


def token_keys(config: VisionConfig) -> dict[str, int]:
    """Keys of a config.json about images, outside `vision_config`."""
    return {"mm_tokens_per_image": config.tokens} | {
        spelled: getattr(config, name) for name, spelled in _TOKENS.items()
    }


def processor_files(config: VisionConfig) -> dict[str, dict[str, Any]]:
    """Content of preprocessor_config.json and processor_config.json, as in the published models."""
    common = {"image_seq_length": config.tokens, "processor_class": "Gemma3Processor"}
    image = {
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_pan_and_scan": None,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(config.image_mean),
        "image_processor_type": "Gemma3ImageProcessor",
        "image_std": list(config.image_std),
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": config.image_size, "width": config.image_size},
    }
    return {"preprocessor_config.json": image | common, "processor_config.json": common}


def canonical(name: str) -> str | None:
    """Canonical name of a vision tensor, None for one that is not needed (SigLIP's pooling head)."""
    match = _SPELLINGS.fullmatch(name)
    if match is None or match["rest"].startswith(_HEAD):
        return None
    return (_TOWER if match["tower"] else "multi_modal_projector.") + match["rest"]


def to_gguf(name: str) -> str:
    """Name of a canonical name in an mmproj file."""
    if name in _OTHER_GGUF:
        return _OTHER_GGUF[name]
    layer, _, rest = name.removeprefix(_TOWER + "encoder.layers.").partition(".")
    part, _, kind = rest.rpartition(".")
    return f"v.blk.{layer}.{_LAYER_GGUF[part]}.{kind}"


def shapes(config: VisionConfig, text_hidden: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the vision side: name and shape (rows first), in the order of files."""
    hidden, wide = config.hidden_size, config.intermediate_size
    yield PROJECTION, (hidden, text_hidden)
    yield PROJECTOR_NORM, (hidden,)
    yield _EMBEDDINGS + "patch_embedding.bias", (hidden,)
    yield PATCH_EMBEDDING, (hidden, 3, config.patch_size, config.patch_size)
    yield _EMBEDDINGS + "position_embedding.weight", (config.patches, hidden)
    matrices = {"mlp.fc1": (wide, hidden), "mlp.fc2": (hidden, wide)}
    for layer in range(config.num_hidden_layers):
        for part in _LAYER_GGUF:
            norm = part.startswith("layer_norm")
            shape = (hidden,) if norm else matrices.get(part, (hidden, hidden))
            yield f"{_TOWER}encoder.layers.{layer}.{part}.weight", shape
            yield f"{_TOWER}encoder.layers.{layer}.{part}.bias", shape[:1]
    yield _TOWER + "post_layernorm.bias", (hidden,)
    yield _TOWER + "post_layernorm.weight", (hidden,)


def is_norm(name: str) -> bool:
    """Whether a tensor is an RMS norm: the projector's."""
    return name == PROJECTOR_NORM


def place(name: str) -> Place:
    """Place of a vision tensor in the model."""
    del name
    return Place(Role.TOWER, kind="vision")


def to_hf(name: str) -> str:
    """Name in a folder that transformers loads: the canonical one."""
    return name


def in_gguf(name: str, shape: tuple[int, ...]) -> Arrangement | None:
    """None: an mmproj file has every tensor as it is."""
    del name, shape
    return None


def channels_last(name: str, shape: tuple[int, ...]) -> Arrangement | None:
    """How MLX stores the convolution over patches; None for the other tensors, stored as they are."""
    return permuted(shape, (0, 2, 3, 1)) if name == PATCH_EMBEDDING else None


def mmproj_type(name: str, shape: tuple[int, ...], requested: str) -> str:
    """Type of a tensor in an mmproj file, as llama.cpp's converter has it.

    F32 for vectors and embeddings, F16 for the projection whatever is requested, else the requested type.
    """
    if len(shape) < 2 or name.startswith(_EMBEDDINGS):
        return "f32"
    return "f16" if name == PROJECTION else requested


TOWER_PARAMETERS = sum(math.prod(shape) for name, shape in shapes(DEFAULT, 1) if name.startswith(_TOWER))


def projector_parameters(text_hidden: int) -> int:
    """Number of weights of the projector into a text model of that width: a matrix and a norm."""
    return DEFAULT.hidden_size * (text_hidden + 1)


def with_towers(document: dict[str, Any], config: TextConfig, towers_config: VisionConfig) -> dict[str, Any]:
    """config.json of a model with vision, from that of its text side as `to_hf` gives it."""
    del config
    return {
        **hf_values.nested(document, MULTIMODAL, MODEL_TYPE),
        "initializer_range": document["initializer_range"],
        "vision_config": to_hf_config(towers_config),
        **token_keys(towers_config),
    }


_KEYS = {
    "image_size": "image_size",
    "patch_size": "patch_size",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_epsilon": "layer_norm_eps",
}
_USUAL_SCALE = 4
"""Default of clip.vision.projector.scale_factor: patches to tokens along the side of an image."""


def to_keys(config: VisionConfig, text_hidden: int) -> dict[str, Any]:
    """Keys of an mmproj file, with prefix."""
    keys: dict[str, Any] = {
        "clip.has_vision_encoder": True,
        "clip.projector_type": "gemma3",
        "clip.use_gelu": True,
        "clip.vision.projection_dim": text_hidden,
    }
    keys |= {f"clip.vision.{key}": getattr(config, name) for key, name in _KEYS.items()}
    keys |= {"clip.vision.image_mean": config.image_mean, "clip.vision.image_std": config.image_std}
    scale = config.image_size // config.patch_size // math.isqrt(config.tokens)
    if scale not in (0, _USUAL_SCALE):
        keys["clip.vision.projector.scale_factor"] = scale
    return keys


def from_keys(keys: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], pieces: Sequence[str]) -> VisionConfig:
    """Vision config from the keys of an mmproj file, which say everything.

    Raises:
        InputError: A key is missing or of the wrong kind, or the projector is another one.
    """
    del shapes, pieces
    if keys.get("clip.use_silu") or keys.get("clip.use_gelu", True) is not True:
        raise InputError("the GGUF keys of the vision tower name another activation than GELU")
    if keys.get("clip.projector_type") != "gemma3":
        raise InputError(f"the projector is of the type {keys.get('clip.projector_type')!r}, not gemma3")
    values: dict[str, Any] = {}
    for key, name in _KEYS.items():
        value, kind = keys.get(f"clip.vision.{key}"), float if name == "layer_norm_eps" else int
        if not isinstance(value, kind) or isinstance(value, bool) or not 0 < value < 1 << 32:
            raise InputError(f"GGUF key clip.vision.{key} is {value!r:.60}")
        values[name] = value if kind is int else float(f"{value:.7g}")
    values |= gguf_numbers.colors(keys)
    scale = keys.get("clip.vision.projector.scale_factor", _USUAL_SCALE)
    if not isinstance(scale, int) or isinstance(scale, bool) or scale < 1:
        raise InputError(f"GGUF key clip.vision.projector.scale_factor is {scale!r:.60}")
    values["tokens"] = max(1, values["image_size"] // values["patch_size"] // scale) ** 2
    return checked(VisionConfig(**values))


_BUILT_IN = {
    **{
        old.removeprefix(_TOWER).replace("embeddings.", "v."): new
        for old, new in _OTHER_GGUF.items()
        if old.startswith(_EMBEDDINGS)
    },
    "v.post_layernorm.weight": "v.post_ln.weight",
    "v.post_layernorm.bias": "v.post_ln.bias",
    "mm.mm_input_projection.weight": "mm.input_projection.weight",
    "mm.mm_soft_emb_norm.weight": "mm.soft_emb_norm.weight",
}
_BUILT_IN_PARTS = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "attn_output": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
"""Names of Ollama's converter and those of llama.cpp's; parts of a layer that are not here have one name."""


def built_in(keys: Mapping[str, Any], names: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Keys of an mmproj file, and names in one, of a vision tower in the model's own file; empty if there is none."""
    if not keys.get("gemma3.vision.block_count"):
        return {}, {}
    renamed = {}
    for name in names:
        block = re.fullmatch(r"(v\.blk\.\d+\.)(.+)(\.weight|\.bias)", name)
        if block:
            renamed[name] = block[1] + _BUILT_IN_PARTS.get(block[2], block[2]) + block[3]
        elif name.startswith(("v.", "mm.")):
            renamed[name] = _BUILT_IN.get(name, name)
    tokens = keys.get("gemma3.mm.tokens_per_image", DEFAULT.tokens)
    found = {"clip.projector_type": "gemma3", "clip.use_gelu": True}
    found |= {f"clip.vision.{key}": keys.get(f"gemma3.vision.{key}") for key in _KEYS}
    sides = [found["clip.vision.image_size"], found["clip.vision.patch_size"], tokens]
    if all(hf_values.is_count(side) for side in sides):
        found["clip.vision.projector.scale_factor"] = sides[0] // sides[1] // math.isqrt(tokens)
    return found, renamed
