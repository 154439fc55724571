"""The towers in config.json and in the files of the processor of images and sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gemmaq.errors import InputError
from gemmaq.models import hf_values
from gemmaq.models.gemma4 import hf_config
from gemmaq.models.gemma4.config import TextConfig
from gemmaq.models.gemma4.towers_config import (
    MEL_BINS,
    POOLING_KERNEL_SIZE,
    AudioTower,
    Patches,
    Tokens,
    TowersConfig,
    VisionTower,
    Waves,
)

_MOST_LAYERS = 4096
_THETA = 100.0
_SAME_EVERYWHERE: dict[type, dict[str, Any]] = {
    VisionTower: {
        "attention_bias": False,
        "hidden_activation": "gelu_pytorch_tanh",
        "pooling_kernel_size": POOLING_KERNEL_SIZE,
    },
    AudioTower: {
        "attention_chunk_size": 12,
        "attention_context_left": 13,
        "attention_context_right": 0,
        "attention_invalid_logits_value": -1e9,
        "attention_logit_cap": 50.0,
        "gradient_clipping": 1e10,
        "hidden_act": "silu",
        "residual_weight": 0.5,
    },
    Patches: {},
    Waves: {},
}
"""Values that llama.cpp computes with whatever a file says."""
_MEL = {
    "dither": 0.0,
    "feature_size": MEL_BINS,
    "fft_length": 512,
    "fft_overdrive": False,
    "frame_length": 320,
    "hop_length": 160,
    "input_scale_factor": 1.0,
    "max_frequency": 8000.0,
    "mel_floor": 0.001,
    "min_frequency": 0.0,
    "per_bin_mean": None,
    "per_bin_stddev": None,
    "preemphasis": 0.0,
    "preemphasis_htk_flavor": True,
}
_RATE, _TOKEN_MS = 16000, 40
"""Samples per second of sound, and milliseconds per token."""
_VIDEO_TOKENS, _VIDEO_FRAMES = 70, 32
"""Tokens per frame of a video, and frames taken from one."""


def from_hf(config: Mapping[str, Any], processor: Mapping[str, Any]) -> TowersConfig:
    """Read config.json and the settings of the processor.

    Raises:
        InputError: A value is of the wrong kind, or one that no runtime but transformers computes with.
    """
    unified = config.get("model_type") == hf_config.UNIFIED
    vision = _section(config, "vision_config", Patches if unified else VisionTower)
    audio = _section(config, "audio_config", Waves if unified else AudioTower)
    ids = {**config}
    if config.get("eoa_token_id") is None:
        ids["eoa_token_id"] = config.get("eoa_token_index")  # as transformers spells it
    said = hf_values.text_side(config).get("use_bidirectional_attention", "vision" if unified else None)
    found = TowersConfig(
        vision=vision,
        audio=audio,
        tokens=hf_values.fill(Tokens, ids, "config.json: "),
        bidirectional=said == "vision",
        **_processor(processor),
    )
    return checked(found)


def _section(config: Mapping[str, Any], name: str, kind: Any) -> Any:
    """A tower from `vision_config` or `audio_config`, None if there is none."""
    section, where = config.get(name), f"config.json: {name}"
    if section is None:
        return None
    if not isinstance(section, Mapping):
        raise InputError(f"{where} is {section!r:.60}")
    tower = hf_values.fill(kind, section, f"{where}.")
    fixed = dict(_SAME_EVERYWHERE[kind])
    if isinstance(tower, VisionTower):
        fixed |= _heads(tower)
    elif isinstance(tower, Patches):
        fixed |= {"model_patch_size": tower.side, "output_proj_dims": tower.mm_embed_dim}
    for key, value in fixed.items():
        if section.get(key, value) != value:
            raise InputError(
                f"{where} has {key} {section[key]!r:.60}, not {value!r}",
                "no runtime but transformers can run such a model",
            )
    rope = section.get("rope_parameters") or {}
    plain = isinstance(rope, Mapping) and rope.get("rope_type", "default") == "default"
    if isinstance(tower, VisionTower) and not (plain and rope.get("rope_theta", _THETA) == _THETA):
        raise InputError(f"{where} has rope_parameters {rope!r:.60}, not a plain rope_theta of {_THETA:g}")
    return tower


def _heads(tower: VisionTower) -> dict[str, int]:
    """Fields about heads in `vision_config` that follow from others."""
    head = tower.hidden_size // tower.num_attention_heads
    return {"head_dim": head, "num_key_value_heads": tower.num_attention_heads}


def _processor(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of TowersConfig from the settings of the processor, as far as they are there."""
    found: dict[str, Any] = {**hf_values.colors(settings)}
    spelled = {
        "image_tokens": settings.get("max_soft_tokens", settings.get("image_seq_length")),
        "audio_tokens": settings.get("audio_seq_length"),
    }
    for name, value in spelled.items():
        if value is not None:
            if not hf_values.is_count(value):
                raise InputError(f"the processor has {value!r:.60} for {name.replace('_', ' ')}")
            found[name] = value
    return found


def checked(config: TowersConfig) -> TowersConfig:
    """The config, if its dimensions belong together.

    Raises:
        InputError: They do not, or there is neither vision nor audio.
    """
    if config.vision is None and config.audio is None:
        raise InputError("config.json: has neither vision_config nor audio_config, but there are tensors of towers")
    for tower in (config.vision, config.audio):
        if not isinstance(tower, (VisionTower, AudioTower)):
            continue
        if tower.num_hidden_layers > _MOST_LAYERS:
            raise InputError(f"a tower of {tower.num_hidden_layers} layers")
        if tower.hidden_size % tower.num_attention_heads:
            raise InputError(f"a tower of {tower.hidden_size} numbers cannot have {tower.num_attention_heads} heads")
        if isinstance(tower, AudioTower) and tower.subsampling_conv_channels[0] != MEL_BINS:
            raise InputError(
                f"the audio tower has {tower.subsampling_conv_channels[0]} channels in its first convolution",
                f"runtimes compute with {MEL_BINS}, as many as there are mel bins",
            )
    return config


def with_towers(document: dict[str, Any], config: TextConfig, towers: TowersConfig) -> dict[str, Any]:
    """config.json of a model with towers, from that of its text side as `to_hf` gives it."""
    model_type = hf_config.UNIFIED if towers.unified else hf_config.MODEL_TYPE
    whole = hf_config.nested(document)
    bidirectional = not config.layer_embedding if towers.bidirectional is None else towers.bidirectional
    text = whole["text_config"] | {
        "model_type": hf_config.UNIFIED_TEXT if towers.unified else hf_config.TEXT_MODEL_TYPE,
        "use_bidirectional_attention": "vision" if bidirectional else None,
    }
    return whole | {
        "architectures": [f"Gemma4{'Unified' if towers.unified else ''}ForConditionalGeneration"],
        "audio_config": _audio_config(towers.audio),
        "eoa_token_index": towers.tokens.eoa_token_id,
        "initializer_range": document["initializer_range"],
        "model_type": model_type,
        "text_config": text,
        "vision_config": _vision_config(towers.vision, towers.image_tokens),
        "vision_soft_tokens_per_image": towers.image_tokens,
        **asdict(towers.tokens),
    }


def _vision_config(tower: VisionTower | Patches | None, tokens: int) -> dict[str, Any] | None:
    if tower is None:
        return None
    common = asdict(tower) | _SAME_EVERYWHERE[type(tower)] | {"initializer_range": 0.02}
    if isinstance(tower, Patches):
        return common | {
            "model_patch_size": tower.side,
            "model_type": "gemma4_unified_vision",
            "num_soft_tokens": tokens,
            "output_proj_dims": tower.mm_embed_dim,
        }
    heads = _heads(tower)
    return common | {
        "attention_dropout": 0.0,
        "default_output_length": tokens,
        "global_head_dim": heads["head_dim"],
        "max_position_embeddings": 131072,
        "model_type": "gemma4_vision",
        "rope_parameters": {"rope_theta": _THETA, "rope_type": "default"},
        **heads,
    }


def _audio_config(tower: AudioTower | Waves | None) -> dict[str, Any] | None:
    if tower is None:
        return None
    common = asdict(tower) | _SAME_EVERYWHERE[type(tower)] | {"initializer_range": 0.02}
    if isinstance(tower, Waves):
        same = ("audio_samples_per_token", "hidden_size", "output_proj_dims")
        return common | dict.fromkeys(same, tower.audio_embed_dim) | {"model_type": "gemma4_unified_audio"}
    channels = list(tower.subsampling_conv_channels)
    return common | {"model_type": "gemma4_audio", "subsampling_conv_channels": channels}


def processor_files(config: TowersConfig) -> dict[str, dict[str, Any]]:
    """Content of processor_config.json, as in the published models."""
    name, vision, audio = "Gemma4Unified" if config.unified else "Gemma4", config.vision, config.audio
    pixels = {
        "do_convert_rgb": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(config.image_mean),
        "image_std": list(config.image_std),
        "patch_size": vision.patch_size if vision else VisionTower().patch_size,
        "pooling_kernel_size": vision.pooling_kernel_size if isinstance(vision, Patches) else POOLING_KERNEL_SIZE,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }
    samples = (audio if isinstance(audio, Waves) else Waves()).audio_embed_dim
    sound = {"audio_samples_per_token": samples, "feature_size": samples} if config.unified else _MEL
    return {
        "processor_config.json": {
            "audio_ms_per_token": _TOKEN_MS,
            "audio_seq_length": config.audio_tokens,
            "feature_extractor": {
                "feature_extractor_type": f"{name}AudioFeatureExtractor",
                "padding_side": "right",
                "padding_value": 0.0,
                "return_attention_mask": True,
                "sampling_rate": _RATE,
                **sound,
            },
            "image_processor": {
                "do_normalize": False,
                "image_processor_type": f"{name}ImageProcessor",
                "image_seq_length": config.image_tokens,
                "max_soft_tokens": config.image_tokens,
                **pixels,
            },
            "image_seq_length": config.image_tokens,
            "processor_class": f"{name}Processor",
            "video_processor": {
                "do_normalize": True,
                "do_sample_frames": True,
                "max_soft_tokens": _VIDEO_TOKENS,
                "num_frames": _VIDEO_FRAMES,
                "return_metadata": False,
                "video_processor_type": f"{name}VideoProcessor",
                **pixels,
            },
        }
    }
