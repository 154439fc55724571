"""Tiny Gemma 4 models that see and hear, one of every kind: folders as a release has them, with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gemma4
import gemma4_tokenizer
from gemmaq.models.gemma4.config import TextConfig
from gemmaq.models.gemma4.hf_config import to_hf
from synthetic import bf16, write_safetensors

Section = dict[str, Any]
Shapes = Iterator[tuple[str, tuple[int, ...]]]

PIXELS = 48
"""Along the side of the square that becomes a token: three patches."""
RATE = 16000
"""Samples of a second of sound."""

_TOWER: Section = {
    "model_type": "gemma4_vision",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "global_head_dim": 64,
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"},
    "patch_size": 16,
    "pooling_kernel_size": 3,
    "position_embedding_size": 64,
    "default_output_length": 280,
    "standardize": False,
    "use_clipped_linears": False,
}
CLIPPED = _TOWER | {"use_clipped_linears": True}
"""Like E2B and E4B."""
STANDARDIZED = _TOWER | {"intermediate_size": 272, "standardize": True}
"""Like 26B-A4B, with rows of the last projection that no block of 32 divides."""
WIDE_HEADS = STANDARDIZED | {"hidden_size": 288, "intermediate_size": 304, "num_attention_heads": 4}
WIDE_HEADS |= {"num_key_value_heads": 4, "head_dim": 72, "global_head_dim": 72}
"""Like 31B: heads of 72 numbers."""
SOUND: Section = {
    "model_type": "gemma4_audio",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "silu",
    "subsampling_conv_channels": [128, 32],
    "conv_kernel_size": 5,
    "residual_weight": 0.5,
    "attention_chunk_size": 12,
    "attention_context_left": 13,
    "attention_context_right": 0,
    "attention_logit_cap": 50.0,
    "attention_invalid_logits_value": -1e9,
    "use_clipped_linears": True,
    "rms_norm_eps": 1e-6,
    "gradient_clipping": 1e10,
    "output_proj_dims": 192,
}
"""Like E2B and E4B. Runtimes fix 128 bands of frequency and with them the first number of channels."""
PATCHES: Section = {
    "model_type": "gemma4_unified_vision",
    "patch_size": 16,
    "pooling_kernel_size": 3,
    "model_patch_size": 48,
    "mm_embed_dim": 256,
    "mm_posemb_size": 32,
    "num_soft_tokens": 280,
    "output_proj_dims": 256,
    "rms_norm_eps": 1e-6,
}
"""Like 12B, which has no towers."""
WAVES: Section = {
    "model_type": "gemma4_unified_audio",
    "audio_embed_dim": 640,
    "audio_samples_per_token": 640,
    "hidden_size": 640,
    "output_proj_dims": 640,
    "rms_norm_eps": 1e-6,
}


@dataclass(frozen=True)
class Kind:
    """A kind of Gemma 4: its text model, and `vision_config` and `audio_config` of its config.json."""

    text: TextConfig
    vision: Section
    audio: Section | None

    @property
    def unified(self) -> bool:
        """Whether pieces of images and sound go to the text model without a tower."""
        return "mm_embed_dim" in self.vision


KINDS = {
    "dense": Kind(gemma4.DENSE, WIDE_HEADS, None),
    "effective": Kind(gemma4.EFFECTIVE, CLIPPED, SOUND),
    "experts": Kind(gemma4.EXPERTS, STANDARDIZED, None),
    "unified": Kind(gemma4.UNIFIED, PATCHES, WAVES),
}
HEARING = tuple(kind for kind, model in KINDS.items() if model.audio)
_CLIPS = ("input_min", "input_max", "output_min", "output_max")
_SMALL = (".o_proj.", ".post.", ".down_proj.", ".linear_end.", ".ffw_layer_2.")
"""Matrices whose inputs are means or come from an activation."""


def shapes(kind: Kind) -> Shapes:
    """Name and shape (rows first) of every tensor but those of the text model, as a release has them."""
    width = kind.text.hidden_size
    sides = {"vision": kind.vision, "audio": kind.audio}
    for side, section in sides.items():
        if section is not None:
            seen = section.get("output_proj_dims", section.get("hidden_size"))
            yield f"model.embed_{side}.embedding_projection.weight", (width, seen)
    if kind.unified:
        yield from _embedder(kind.vision)
    else:
        yield from _vision_tower(kind.vision)
        if kind.audio is not None:
            yield from _audio_tower(kind.audio)


def _embedder(config: Section) -> Shapes:
    before, pixels, width = "model.vision_embedder.", 3 * config["model_patch_size"] ** 2, config["mm_embed_dim"]
    yield before + "patch_dense.weight", (width, pixels)
    yield before + "patch_dense.bias", (width,)
    for norm, size in (("patch_ln1", pixels), ("patch_ln2", width), ("pos_norm", width)):
        yield f"{before}{norm}.weight", (size,)
        yield f"{before}{norm}.bias", (size,)
    yield before + "pos_embedding", (config["mm_posemb_size"], 2, width)


def _vision_tower(config: Section) -> Shapes:
    before, width, ffn = "model.vision_tower.", config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"] * config["head_dim"]
    yield before + "patch_embedder.input_proj.weight", (width, 3 * config["patch_size"] ** 2)
    yield before + "patch_embedder.position_embedding_table", (2, config["position_embedding_size"], width)
    if config["standardize"]:
        yield before + "std_bias", (width,)
        yield before + "std_scale", (width,)
    linears = {f"self_attn.{part}_proj": (heads, width) for part in "qkv"} | {"self_attn.o_proj": (width, heads)}
    linears |= {"mlp.gate_proj": (ffn, width), "mlp.up_proj": (ffn, width), "mlp.down_proj": (width, ffn)}
    norms = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    for layer in range(config["num_hidden_layers"]):
        inside = f"{before}encoder.layers.{layer}."
        yield from _linears(inside, linears, clipped=config["use_clipped_linears"])
        yield from ((f"{inside}{norm}.weight", (width,)) for norm in norms)
        yield from ((f"{inside}self_attn.{norm}_norm.weight", (config["head_dim"],)) for norm in "qk")


def _audio_tower(config: Section) -> Shapes:
    before, width, seen = "model.audio_tower.", config["hidden_size"], 1
    for at, channels in enumerate(config["subsampling_conv_channels"]):
        layer = f"{before}subsample_conv_projection.layer{at}."
        yield layer + "conv.weight", (channels, seen, 3, 3)
        yield layer + "norm.weight", (channels,)
        seen = channels
    first, last = config["subsampling_conv_channels"]
    yield before + "subsample_conv_projection.input_proj_linear.weight", (width, first // 4 * last)
    yield before + "output_proj.weight", (config["output_proj_dims"], width)
    yield before + "output_proj.bias", (config["output_proj_dims"],)
    linears = {f"self_attn.{part}": (width, width) for part in ("q_proj", "k_proj", "v_proj", "post")}
    linears |= {"lconv1d.linear_start": (2 * width, width), "lconv1d.linear_end": (width, width)}
    for part in ("feed_forward1", "feed_forward2"):
        linears |= {f"{part}.ffw_layer_1": (4 * width, width), f"{part}.ffw_layer_2": (width, 4 * width)}
    norms = [f"feed_forward{at}.{when}_layer_norm" for at in (1, 2) for when in ("pre", "post")]
    norms += ["lconv1d.pre_layer_norm", "lconv1d.conv_norm", "norm_pre_attn", "norm_post_attn", "norm_out"]
    for layer in range(config["num_hidden_layers"]):
        inside = f"{before}layers.{layer}."
        yield from _linears(inside, linears, clipped=config["use_clipped_linears"])
        yield from ((f"{inside}{norm}.weight", (width,)) for norm in norms)
        yield inside + "lconv1d.depthwise_conv1d.weight", (width, 1, config["conv_kernel_size"])
        yield inside + "self_attn.relative_k_proj.weight", (width, width)
        yield inside + "self_attn.per_dim_scale", (width // config["num_attention_heads"],)


def _linears(before: str, parts: dict[str, tuple[int, int]], *, clipped: bool) -> Shapes:
    for part, shape in parts.items():
        yield f"{before}{part}.linear.weight", shape
        if clipped:
            yield from ((f"{before}{part}.{clip}", ()) for clip in _CLIPS)


def weights(kind: Kind, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """F32 weights of every tensor of `shapes`; every bound of a clipped matrix cuts off some numbers."""
    random = np.random.default_rng(seed)
    for name, shape in shapes(kind):
        values = np.asarray(random.standard_normal(shape), np.float32)
        if name.endswith(_CLIPS):
            values = (np.abs(values) * np.float32(0.3) + 1) * np.float32(0.15 if any(m in name for m in _SMALL) else 1)
            values = -values if name.endswith("min") else values
        elif name.endswith("std_bias"):
            values *= np.float32(3)
        elif name.endswith(("bias", "position_embedding_table", "pos_embedding")):
            values *= np.float32(0.3)
        elif name.endswith("per_dim_scale"):
            pass
        elif values.ndim == 1:
            values = 1 + np.float32(0.2) * values
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                values *= np.float32(0.3)  # attention is not scaled
        else:
            values *= np.float32(np.prod(shape[1:]) ** -0.5)
        yield name, values


def config_json(kind: Kind) -> Section:
    """config.json in the spelling of the releases."""
    text = to_hf(kind.text, "bfloat16")
    model = "gemma4_unified" if kind.unified else "gemma4"
    name = "Gemma4Unified" if kind.unified else "Gemma4"
    text = {key: value for key, value in text.items() if key not in ("architectures", "torch_dtype")}
    text |= {"dtype": "bfloat16", "model_type": f"{model}_text"}
    text |= {"use_bidirectional_attention": None if kind.text.layer_embedding else "vision"}
    common = {"dtype": "bfloat16", "initializer_range": 0.02}
    return {
        "architectures": [f"{name}ForConditionalGeneration"],
        "audio_config": kind.audio and kind.audio | common,
        **common,
        "eos_token_id": [1, gemma4_tokenizer.vocabulary()["<turn|>"]],
        "model_type": model,
        "text_config": text,
        "tie_word_embeddings": True,
        "vision_config": kind.vision | common,
        "vision_soft_tokens_per_image": 280,
        **token_ids(),
    }


def token_ids() -> dict[str, int]:
    """Ids of the tokens around and in place of images and sounds, by the keys of config.json."""
    ids = gemma4_tokenizer.vocabulary()
    named = {"image_token_id": "<|image|>", "audio_token_id": "<|audio|>", "video_token_id": "<|video|>"}
    named |= {"boi_token_id": "<|image>", "eoi_token_id": "<image|>"}
    named |= {"boa_token_id": "<|audio>", "eoa_token_id": "<audio|>", "eoa_token_index": "<audio|>"}
    return {key: ids[piece] for key, piece in named.items()}


def processor_json(kind: Kind) -> Section:
    """processor_config.json in the spelling of the releases."""
    name = "Gemma4Unified" if kind.unified else "Gemma4"
    plain = {"image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0], "resample": 3, "rescale_factor": 1 / 255}
    plain |= {"do_convert_rgb": True, "do_rescale": True, "do_resize": True}
    plain |= {"patch_size": 16, "pooling_kernel_size": 3}
    mel = {"feature_size": 128, "fft_length": 512, "frame_length": 320, "hop_length": 160, "mel_floor": 0.001}
    mel |= {"min_frequency": 0.0, "max_frequency": 8000.0, "preemphasis": 0.0, "preemphasis_htk_flavor": True}
    mel |= {"dither": 0.0, "fft_overdrive": False, "input_scale_factor": 1.0}
    mel |= {"per_bin_mean": None, "per_bin_stddev": None}
    sound = {"feature_size": 640, "audio_samples_per_token": 640} if kind.unified else mel
    sound |= {"padding_side": "right", "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": RATE}
    image = {"image_processor_type": f"{name}ImageProcessor", "image_seq_length": 280, "max_soft_tokens": 280}
    video = {"video_processor_type": f"{name}VideoProcessor", "max_soft_tokens": 70, "num_frames": 32}
    video |= {"do_sample_frames": True, "return_metadata": False, "do_normalize": True}
    return {
        "audio_ms_per_token": 40,
        "audio_seq_length": 750,
        "feature_extractor": {"feature_extractor_type": f"{name}AudioFeatureExtractor", **sound},
        "image_processor": {**image, "do_normalize": False, **plain},
        "image_seq_length": 280,
        "processor_class": f"{name}Processor",
        "video_processor": {**video, **plain},
    }


def write(folder: Path, kind: Kind, tensors: dict[str, np.ndarray] | None = None) -> Path:
    """A folder in BF16 with everything that a release has.

    Args:
        folder: The folder, which is made where it is missing.
        kind: The model.
        tensors: F32 weights in place of random ones, by the names of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {name.replace("model.", "model.language_model.", 1): value for name, value in gemma4.weights(kind.text)}
    stored = {name: bf16(value) for name, value in (values | dict(weights(kind)) | (tensors or {})).items()}
    layout = {name: ("BF16", value.shape) for name, value in stored.items()}
    write_safetensors(folder / "model.safetensors", layout, stored)
    generation = {"bos_token_id": 2, "do_sample": True, "eos_token_id": [1, 106], "pad_token_id": 0}
    generation |= {"temperature": 1.0, "top_k": 64, "top_p": 0.95}
    documents = {"config": config_json(kind), "processor_config": processor_json(kind), "generation_config": generation}
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return gemma4_tokenizer.write(folder)


def folders(root: Path) -> dict[str, Path]:
    """A folder of every kind."""
    return {name: write(root / f"gemma-4-{name}", kind) for name, kind in KINDS.items()}


def picture(seed: int = 0, rows: int = 7, columns: int = 11) -> np.ndarray:
    """An image of coloured squares in noise, one per token, u8 [48 rows, 48 columns, 3].

    No runtime resizes it if it has 70 to 280 tokens.
    """
    random = np.random.default_rng(seed)
    squares = random.integers(0, 200, (rows, columns, 3)).repeat(PIXELS, 0).repeat(PIXELS, 1)
    return (squares + random.integers(0, 56, squares.shape)).astype(np.uint8)


def sound(seed: int = 0, seconds: float = 1.0) -> np.ndarray:
    """Notes of changing loudness in a little noise, f32 [samples] at 16 kHz."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    notes = sum(
        np.sin(2 * np.pi * (pitch * time + random.random())) * np.sin(3 * time + random.random()) ** 2
        for pitch in random.uniform(80, 4000, 6)
    )
    return (0.1 * notes + 0.01 * random.standard_normal(time.size)).astype(np.float32)
