"""Names and shapes of the tensors of the towers: spellings of Hugging Face and MLX, names in an mmproj file.

The canonical name is that of MLX's folders: `vision_tower.encoder.layers.0.self_attn.q_proj.linear.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gemmaq.models.gemma4.towers_config import FFN_FACTOR, MEL_BINS, AudioTower, Patches, TowersConfig, VisionTower
from gemmaq.models.towers import Shapes

MODULES: tuple[str, ...] = ("vision_tower", "audio_tower", "embed_vision", "embed_audio", "vision_embedder")
CLIPS = ("input_min", "input_max", "output_min", "output_max")
"""Bounds of a matrix's inputs and outputs, numbers without dimensions."""
VISION_PROJECTION = "embed_vision.embedding_projection.weight"
AUDIO_PROJECTION = "embed_audio.embedding_projection.weight"
PROJECTIONS = (VISION_PROJECTION, AUDIO_PROJECTION)
PATCH_INPUT = "vision_tower.patch_embedder.input_proj.weight"
POSITIONS = "vision_tower.patch_embedder.position_embedding_table"
STANDARD = ("vision_tower.std_bias", "vision_tower.std_scale")
SQUARE_INPUT = "vision_embedder.patch_dense.weight"
SQUARE_NORM = "vision_embedder.patch_ln1"
SQUARE_POSITIONS = "vision_embedder.pos_embedding"
SUBSAMPLING = "audio_tower.subsample_conv_projection."
DEPTHWISE = "lconv1d.depthwise_conv1d.weight"
DIMENSION_SCALE = "self_attn.per_dim_scale"

_VISION_LINEARS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_out",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_VISION_NORMS = {
    "input_layernorm": "ln1",
    "post_attention_layernorm": "attn_post_norm",
    "pre_feedforward_layernorm": "ln2",
    "post_feedforward_layernorm": "ffn_post_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}
_AUDIO_LINEARS = {
    "feed_forward1.ffw_layer_1": "ffn_up",
    "feed_forward1.ffw_layer_2": "ffn_down",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.post": "attn_out",
    "lconv1d.linear_start": "conv_pw1",
    "lconv1d.linear_end": "conv_pw2",
    "feed_forward2.ffw_layer_1": "ffn_up_1",
    "feed_forward2.ffw_layer_2": "ffn_down_1",
}
_AUDIO_NORMS = {
    "feed_forward1.pre_layer_norm": "ffn_norm",
    "feed_forward1.post_layer_norm": "ffn_post_norm",
    "norm_pre_attn": "attn_pre_norm",
    "norm_post_attn": "attn_post_norm",
    "lconv1d.pre_layer_norm": "conv_norm",
    "lconv1d.conv_norm": "norm_conv",
    "feed_forward2.pre_layer_norm": "ffn_norm_1",
    "feed_forward2.post_layer_norm": "ffn_post_norm_1",
    "norm_out": "ln2",
}
_AUDIO_OTHERS = {
    DEPTHWISE: "conv_dw.weight",
    "self_attn.relative_k_proj.weight": "attn_k_rel.weight",
    DIMENSION_SCALE: "per_dim_scale.weight",
}
_OUTER = {
    VISION_PROJECTION: "mm.input_projection.weight",
    AUDIO_PROJECTION: "mm.a.input_projection.weight",
    PATCH_INPUT: "v.patch_embd.weight",
    POSITIONS: "v.position_embd.weight",
    **{name: "v." + name.removeprefix("vision_tower.") for name in STANDARD},
    **{f"{SUBSAMPLING}layer{at}.conv.weight": f"a.conv1d.{at}.weight" for at in (0, 1)},
    **{f"{SUBSAMPLING}layer{at}.norm.weight": f"a.conv1d.{at}.norm.weight" for at in (0, 1)},
    SUBSAMPLING + "input_proj_linear.weight": "a.input_projection.weight",
    "audio_tower.output_proj.weight": "a.pre_encode.out.weight",
    "audio_tower.output_proj.bias": "a.pre_encode.out.bias",
}
_EMBEDDER = {
    SQUARE_INPUT: "v.patch_embd.weight",
    SQUARE_INPUT.replace("weight", "bias"): "v.patch_embd.bias",
    **{
        f"vision_embedder.{norm}.{kind}": f"v.patch_norm.{at}.{kind}"
        for at, norm in enumerate(("patch_ln1", "patch_ln2", "pos_norm"), 1)
        for kind in ("weight", "bias")
    },
    SQUARE_POSITIONS: "v.position_embd.weight",
}
_OUTER |= _EMBEDDER


def _inside(linears: Mapping[str, str], norms: Mapping[str, str]) -> dict[str, str]:
    """Name within a layer -> that in an mmproj file."""
    names = {f"{part}.linear.weight": f"{gguf}.weight" for part, gguf in linears.items()}
    names |= {f"{part}.{clip}": f"{gguf}.{clip}" for part, gguf in linears.items() for clip in CLIPS}
    return names | {f"{part}.weight": f"{gguf}.weight" for part, gguf in norms.items()}


_LAYERS = {
    "vision_tower.encoder.layers.": ("v.blk.", _inside(_VISION_LINEARS, _VISION_NORMS)),
    "audio_tower.layers.": ("a.blk.", _inside(_AUDIO_LINEARS, _AUDIO_NORMS) | _AUDIO_OTHERS),
}
_IN_LAYER = re.compile(r"(.+?\.)(\d+)\.(.+)")
_IN_MEMORY = re.compile(r"embed_vision\.(?=patch_|pos_)"), re.compile(r"(?<=embed_vision\.)multimodal_embedder\.")
"""Names that transformers gives tensors of a unified model in memory, other than in files."""


def canonical(name: str) -> str | None:
    """Canonical name of a tensor in any spelling, None for one that no model needs."""
    while name.startswith("model."):
        name = name.removeprefix("model.")
    name = _IN_MEMORY[1].sub("", _IN_MEMORY[0].sub("vision_embedder.", name))
    return None if _in_gguf(name) is None else name


def to_hf(name: str) -> str:
    """Name of a canonical name in a folder that transformers loads."""
    return "model." + name


def to_gguf(name: str) -> str:
    """Name of a canonical name in an mmproj file."""
    found = _in_gguf(name)
    assert found is not None
    return found


def _in_gguf(name: str) -> str | None:
    """Name in an mmproj file, None for a name that no tensor has."""
    match = _IN_LAYER.fullmatch(name)
    if match is None or match[1] not in _LAYERS:
        return _OUTER.get(name)
    before, inside = _LAYERS[match[1]]
    return f"{before}{match[2]}.{inside[match[3]]}" if match[3] in inside else None


def shapes(config: TowersConfig, text_hidden: int) -> Shapes:
    """Every tensor of the towers: name and shape (rows first), in the order of files."""
    vision, audio = config.vision, config.audio
    if isinstance(vision, VisionTower):
        yield VISION_PROJECTION, (text_hidden, vision.hidden_size)
        yield from _vision_tower(vision)
    elif vision is not None:
        yield VISION_PROJECTION, (text_hidden, vision.mm_embed_dim)
        yield from _embedder(vision)
    if isinstance(audio, AudioTower):
        yield AUDIO_PROJECTION, (text_hidden, audio.output_proj_dims)
        yield from _audio_tower(audio)
    elif audio is not None:
        yield AUDIO_PROJECTION, (text_hidden, audio.audio_embed_dim)


def _embedder(config: Patches) -> Shapes:
    width, pixels = config.mm_embed_dim, 3 * config.side**2
    matrices = {SQUARE_INPUT: (width, pixels), SQUARE_POSITIONS: (config.mm_posemb_size, 2, width)}
    for name in _EMBEDDER:
        yield name, matrices.get(name, (pixels if name.startswith(SQUARE_NORM) else width,))


def _vision_tower(config: VisionTower) -> Shapes:
    width, ffn = config.hidden_size, config.intermediate_size
    yield PATCH_INPUT, (width, 3 * config.patch_size**2)
    yield POSITIONS, (2, config.position_embedding_size, width)
    linears = dict.fromkeys(_VISION_LINEARS, (width, width))
    linears |= {"mlp.gate_proj": (ffn, width), "mlp.up_proj": (ffn, width), "mlp.down_proj": (width, ffn)}
    head = width // config.num_attention_heads
    for layer in range(config.num_hidden_layers):
        before = f"vision_tower.encoder.layers.{layer}."
        yield from _linears(before, linears, clipped=config.use_clipped_linears)
        for norm in _VISION_NORMS:
            yield f"{before}{norm}.weight", (head if norm.startswith("self_attn.") else width,)
    for name in STANDARD if config.standardize else ():
        yield name, (width,)


def _audio_tower(config: AudioTower) -> Shapes:
    width, seen, (first, last) = config.hidden_size, 1, config.subsampling_conv_channels
    for at, channels in enumerate((first, last)):
        yield f"{SUBSAMPLING}layer{at}.conv.weight", (channels, seen, 3, 3)
        yield f"{SUBSAMPLING}layer{at}.norm.weight", (channels,)
        seen = channels
    yield SUBSAMPLING + "input_proj_linear.weight", (width, MEL_BINS // 4 * last)
    wide = FFN_FACTOR * width
    linears = dict.fromkeys(_AUDIO_LINEARS, (width, width)) | {"lconv1d.linear_start": (2 * width, width)}
    for part in ("feed_forward1", "feed_forward2"):
        linears |= {f"{part}.ffw_layer_1": (wide, width), f"{part}.ffw_layer_2": (width, wide)}
    for layer in range(config.num_hidden_layers):
        before = f"audio_tower.layers.{layer}."
        yield from _linears(before, linears, clipped=config.use_clipped_linears)
        yield from ((f"{before}{norm}.weight", (width,)) for norm in _AUDIO_NORMS)
        yield before + DEPTHWISE, (width, 1, config.conv_kernel_size)
        yield before + "self_attn.relative_k_proj.weight", (width, width)
        yield before + DIMENSION_SCALE, (width // config.num_attention_heads,)
    yield "audio_tower.output_proj.weight", (config.output_proj_dims, width)
    yield "audio_tower.output_proj.bias", (config.output_proj_dims,)


def _linears(before: str, parts: Mapping[str, tuple[int, int]], *, clipped: bool) -> Shapes:
    for part, shape in parts.items():
        yield f"{before}{part}.linear.weight", shape
        yield from ((f"{before}{part}.{clip}", ()) for clip in CLIPS if clipped)
