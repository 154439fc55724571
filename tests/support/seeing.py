"""A small but complete multimodal Gemma 3: transformers' own classes, Gemma's tokenizer, weights that make sense of
what they are given, in every layout of names that is about.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

IMAGE_SIZE = 224
TOKENS = 16
IMAGE_TOKEN, BEGIN, END = 262144, 255999, 256000
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 7,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "vocab_size": 262208,
    "sliding_window": 64,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
    },
}
VISION = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 14,
    "image_size": IMAGE_SIZE,
    "vision_use_head": False,
}
TENSORS = 7 + 16 * 3
"""Of the vision side."""

_SPECIAL = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
_CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + m['role'] + '\\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

Rename = Callable[[str], str]


def _original(name: str) -> str:
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def _inner(name: str) -> str:
    """As the modules are nested in transformers 5."""
    if name.startswith("language_model."):
        return name.replace("language_model.model.", "model.language_model.")
    return f"model.{name}"


def _mixed(name: str) -> str:
    return name if name.startswith("language_model.") else f"model.{_original(name)}"


LAYOUTS: dict[str, Rename] = {"transformers": str, "original": _original, "inner": _inner, "mixed": _mixed}
"""Layout -> its name for what transformers 5 saves as `vision_tower.*`, `multi_modal_projector.*`,
`language_model.model.*`."""


def write_tokenizer(source: Path, folder: Path) -> None:
    """Gemma's tokenizer as multimodal releases have it: a token for a piece of an image behind those of the text."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if "token" in path.name:
            shutil.copy(path, folder / path.name)
    token = {"content": _SPECIAL["image_token"], "single_word": False, "lstrip": False, "rstrip": False}
    token |= {"normalized": False, "special": True}
    document = json.loads((folder / "tokenizer.json").read_text())
    document["added_tokens"].append({"id": IMAGE_TOKEN, **token})
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"][str(IMAGE_TOKEN)] = token
    settings |= {**_SPECIAL, "extra_special_tokens": _SPECIAL, "processor_class": "Gemma3Processor"}
    settings |= {"eos_token": "<end_of_turn>", "chat_template": _CHAT}
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": _CHAT}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False))
    (folder / "added_tokens.json").write_text(json.dumps({_SPECIAL["image_token"]: IMAGE_TOKEN}))


def write_processor(folder: Path, image_size: int = IMAGE_SIZE, tokens: int = TOKENS) -> None:
    """preprocessor_config.json and processor_config.json as published, but for the size of an image."""
    common = {"image_seq_length": tokens, "processor_class": "Gemma3Processor"}
    image = {
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_pan_and_scan": None,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "Gemma3ImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "pan_and_scan_max_num_crops": None,
        "pan_and_scan_min_crop_size": None,
        "pan_and_scan_min_ratio_to_activate": None,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": image_size, "width": image_size},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(common | image, indent=2))
    (folder / "processor_config.json").write_text(json.dumps(common, indent=2))


def config_of(**vision: Any) -> Any:
    """A Gemma3Config; `tokens` and fields of the vision side in place of those of VISION."""
    from transformers import Gemma3Config

    tokens = vision.pop("tokens", TOKENS)
    return Gemma3Config(
        text_config=TEXT,
        vision_config=VISION | vision,
        mm_tokens_per_image=tokens,
        image_token_index=IMAGE_TOKEN,
        boi_token_index=BEGIN,
        eoi_token_index=END,
        eos_token_id=[1, 106],
    )


def build(config: Any, seed: int = 0) -> Any:
    """A model in BF16 whose answers hang on the text and on the image, and are neither flat nor a single token's."""
    import torch
    from transformers import Gemma3ForConditionalGeneration

    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(config).eval()
    hidden, seen = config.text_config.hidden_size, config.vision_config.hidden_size
    with torch.no_grad():
        for name, weights in model.named_parameters():
            columns = weights.shape[-1] if weights.ndim == 2 else weights[0].numel()
            if name.endswith("language_model.norm.weight"):
                weights.normal_(5.0, 0.3)
            elif "vision_tower" in name and "norm" in name and name.endswith("weight"):
                weights.normal_(1.0, 0.2)
            elif weights.ndim == 1:
                weights.normal_(0.0, 0.2)
            elif "embed_tokens" in name:
                weights.normal_(0.0, hidden**-0.5)
            elif "mm_input_projection" in name:
                weights.normal_(0.0, 1.5 * seen**-0.5)
            elif "position_embedding" in name:
                weights.normal_(0.0, 0.3)
            else:
                weights.normal_(0.0, columns**-0.5)
    return model.to(torch.bfloat16)


def write_model(folder: Path, model: Any, tokenizer: Path) -> Path:
    """A complete folder, named as transformers 5 does."""
    model.save_pretrained(folder)
    write_tokenizer(tokenizer, folder)
    write_processor(folder, model.config.vision_config.image_size, model.config.mm_tokens_per_image)
    generation = {"bos_token_id": 2, "do_sample": True, "eos_token_id": [1, 106], "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation | {"top_k": 64, "top_p": 0.95}))
    return folder


def relabel(source: Path, target: Path, rename: Rename) -> Path:
    """A folder with the same tensors under other names; a name that becomes empty is left out."""
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            (target / path.name).hardlink_to(path)
    renamed = {rename(name): tensor for name, tensor in load_file(source / "model.safetensors").items()}
    renamed.pop("", None)
    save_file(renamed, target / "model.safetensors", metadata={"format": "pt"})
    return target


def picture(seed: int, size: int = IMAGE_SIZE) -> Any:
    """A PIL image of coarse coloured squares, as large as the model wants, so that nobody has to resize it."""
    from PIL import Image

    squares = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(squares.repeat(size // 8, 0).repeat(size // 8, 1))


def load(folder: Path, **options: Any) -> Any:
    """A folder in transformers, f32, nothing missing and nothing too much."""
    import torch
    from transformers import AutoModelForImageTextToText

    model, info = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, **options
    )
    assert not any(info.values()), info
    return model.eval()


def logits(model: Any, inputs: Any) -> np.ndarray:
    """F32 [tokens, vocabulary] of what a processor made, or of ids."""
    import torch

    given = {"input_ids": torch.tensor([inputs])} if isinstance(inputs, list) else inputs
    with torch.inference_mode():
        result: np.ndarray = model(**given).logits[0].numpy()
    return result


def projector(folder: Path) -> Path:
    """The mmproj file of an artifact."""
    (path,) = folder.glob("mmproj-*.gguf")
    return path


def text(folder: Path) -> Path:
    """The text model's GGUF of an artifact."""
    (path,) = (path for path in folder.glob("*.gguf") if not path.name.startswith("mmproj-"))
    return path


@contextmanager
def lent_text(model: Any, path: Path) -> Iterator[None]:
    """Lend a model in transformers the text weights of a GGUF file."""
    import torch

    import runtimes

    parameters = dict(model.named_parameters())
    own = {}
    with torch.no_grad():
        for name, weights in runtimes.gguf_weights(path):
            parameter = parameters[name.replace("model.", "model.language_model.", 1)]
            own[parameter] = parameter.data
            parameter.data = weights
    try:
        yield
    finally:
        for parameter, weights in own.items():
            parameter.data = weights
