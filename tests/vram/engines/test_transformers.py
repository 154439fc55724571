"""Memory that transformers holds for small Gemma 3 models, compared with its memory model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gemmaq.errors import UsageError
from gemmaq.models.families import require_size as published
from gemmaq.models.gemma3.config import TextConfig, pattern
from gemmaq.models.gemma3.sizes import SIZES
from gemmaq.models.gemma3.towers import DEFAULT as TOWER_4B
from gemmaq.models.gemma3.vision_config import VisionConfig
from gemmaq.vram import Load, Model, estimate
from gemmaq.vram.engines import transformers
from runtimes import Require, need

SMALL = TextConfig(
    hidden_size=64,
    intermediate_size=256,
    num_hidden_layers=7,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    vocab_size=512,
    sliding_window=64,
    layer_pattern=pattern(7, 6),
)
TOWER = VisionConfig(
    hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, image_size=112, tokens=16
)
IMAGE = 500
"""The token that stands for a piece of an image."""

Generate = Callable[..., tuple[int, list[int]]]


def tracker(excluded: set[int]) -> Any:
    """A dispatch mode that follows the storage of every tensor but the excluded ones, while it is alive."""
    from torch import Tensor
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Tracker(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.alive: dict[int, tuple[Any, int]] = {}
            self.peak = 0

        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
            result = function(*arguments, **(options or {}))
            self.alive = {key: held for key, held in self.alive.items() if not held[0].expired()}
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in excluded:
                    storage = tensor.untyped_storage()
                    self.alive.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
            self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
            return result

    return Tracker()


@pytest.fixture
def generate(require: Require) -> Generate:
    """Run a model of any weights: the most bytes beyond the weights, and those of each layer's cache in the end."""
    need(require, "torch", "transformers")
    import torch
    from transformers import (
        DynamicCache,
        Gemma3Config,
        Gemma3ForCausalLM,
        Gemma3ForConditionalGeneration,
        Gemma3TextConfig,
    )

    def run(
        config: TextConfig,
        tokens: int,
        sequences: int = 1,
        *,
        flash: bool = True,
        dtype: str = "bfloat16",
        tower: VisionConfig | None = None,
        new: int = 1,
    ) -> tuple[int, list[int]]:
        names = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim"
        text = {name: getattr(config, name) for name in (*names.split(), "vocab_size", "sliding_window")}
        options = {"dtype": getattr(torch, dtype), "attn_implementation": "sdpa" if flash else "eager"}
        ids = torch.randint(5, IMAGE, (sequences, tokens))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if tower is None:
            model = Gemma3ForCausalLM._from_config(Gemma3TextConfig(**text), **options)
        else:
            vision = {field: getattr(tower, field) for field in (*names.split()[:4], "image_size", "patch_size")}
            both = Gemma3Config(
                text_config=text,
                vision_config={**vision, "vision_use_head": False},
                mm_tokens_per_image=tower.tokens,
                image_token_id=IMAGE,
            )
            model = Gemma3ForConditionalGeneration._from_config(both, **options)
            ids[:, 2 : 2 + tower.tokens] = IMAGE
            pixels = torch.randn(sequences, 3, tower.image_size, tower.image_size)
            inputs |= {"pixel_values": pixels, "token_type_ids": (ids == IMAGE).long()}
        weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        cache = DynamicCache(config=model.config.get_text_config())
        sampling = {"do_sample": True, "top_k": 64, "top_p": 0.95, "eos_token_id": None, "max_new_tokens": new}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # tensors this small gain nothing by more
        with torch.no_grad(), tracker(weights) as tracked:
            model.eval().generate(**inputs, **sampling, past_key_values=cache)
        torch.set_num_threads(threads)
        held = [
            layer.keys.untyped_storage().nbytes() + layer.values.untyped_storage().nbytes() for layer in cache.layers
        ]
        return tracked.peak, held

    return run


def room(config: TextConfig, tokens: int, sequences: int = 1, width: int = 2) -> int:
    """Bytes of a layer's cache."""
    return 2 * width * sequences * tokens * config.num_key_value_heads * config.head_dim


@pytest.mark.oracle
@pytest.mark.parametrize(("tokens", "sequences"), [(1, 1), (63, 1), (64, 1), (65, 2), (150, 1)])
def test_caches_have_the_size_of_those_of_transformers(tokens: int, sequences: int, generate: Generate) -> None:
    """Every layer holds the whole prompt: a sliding-window layer keeps a view of it."""
    _, held = generate(SMALL, tokens, sequences)
    assert held == [room(SMALL, tokens, sequences)] * 7
    load = Load(tokens, ("bf16", "bf16"), parallel=sequences)
    got = estimate(transformers.ENGINE, Model("small", SMALL, 0, 0), load)
    assert (got.kv_global, got.kv_local) == (held[5], sum(held[:5]) + held[6])
    _, held = generate(SMALL, tokens, sequences, new=3)
    after = [min(tokens + 2, SMALL.sliding_window) if local else tokens + 2 for local in SMALL.layer_pattern]
    assert held == [room(SMALL, tokens, sequences) for tokens in after]


TEXTS = {
    "small": SMALL,
    "wide heads": replace(SMALL, head_dim=256, num_key_value_heads=1),
    "heads of 128": replace(SMALL, head_dim=128),
    "wide MLP": replace(SMALL, intermediate_size=1024),
    "wide layers": replace(SMALL, hidden_size=512),
    "global layer last": replace(SMALL, num_hidden_layers=6, intermediate_size=64, layer_pattern=pattern(6, 6)),
    "many layers": replace(SMALL, num_hidden_layers=13, layer_pattern=pattern(13, 6)),
    "as many KV heads": replace(SMALL, num_key_value_heads=4),
    "below the window": replace(SMALL, sliding_window=1000),
    "many words": replace(SMALL, vocab_size=10_000),
}


@pytest.mark.oracle
@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize(("tokens", "sequences", "new"), [(40, 1, 3), (200, 1, 1), (150, 3, 3)])
def test_peak_is_what_transformers_holds(case: str, tokens: int, sequences: int, new: int, generate: Generate) -> None:
    peak, _ = generate(TEXTS[case], tokens, sequences, new=new)
    assert expected(TEXTS[case], tokens, sequences) == pytest.approx(peak, rel=0.02)


@pytest.mark.oracle
@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("case", ["heads of 128", "below the window"])
def test_peak_of_other_attention_and_dtypes(case: str, dtype: str, flash: bool, generate: Generate) -> None:
    peak, _ = generate(TEXTS[case], 150, 2, flash=flash, dtype=dtype)
    width = 2 if dtype == "bfloat16" else 4
    assert expected(TEXTS[case], 150, 2, width=width, flash=flash) == pytest.approx(peak, rel=0.02)


@pytest.mark.oracle
def test_peak_of_a_long_prompt_is_that_of_its_masks(generate: Generate) -> None:
    config = replace(SMALL, hidden_size=32, intermediate_size=32, num_attention_heads=1, num_key_value_heads=1)
    peak, _ = generate(config, 1000)
    assert expected(config, 1000) == pytest.approx(peak, rel=0.02)
    assert peak > 3 * 1000**2  # a bool, and the same in BF16


TOWERS = {
    "text is wider": (TOWER, 200),
    "tower is wider": (replace(TOWER, hidden_size=256, intermediate_size=1024, image_size=224), 40),
    "narrow MLP": (replace(TOWER, hidden_size=256, intermediate_size=256, image_size=224), 40),
}


@pytest.mark.oracle
@pytest.mark.parametrize("case", TOWERS)
@pytest.mark.parametrize("flash", [True, False])
def test_peak_with_an_image(case: str, flash: bool, generate: Generate) -> None:
    tower, tokens = TOWERS[case]
    peak, _ = generate(SMALL, tokens, tower=tower, flash=flash)
    load = Load(tokens, ("bf16", "bf16"), flash_attention=flash, vision=True)
    got = estimate(transformers.ENGINE, Model("small", SMALL, 0, 0, towers=1000, towers_config=tower), load)
    assert got.kv + got.compute + got.vision_compute == pytest.approx(peak, rel=0.02)
    assert (got.vision_compute > 0) == (case != "text is wider")


def expected(config: TextConfig, tokens: int, sequences: int = 1, *, width: int = 2, flash: bool = True) -> int:
    """The most bytes beyond the weights."""
    kind = {2: "bf16", 4: "f32"}[width]
    load = Load(tokens, (kind, kind), parallel=sequences, flash_attention=flash)
    got = estimate(transformers.ENGINE, Model("small", config, 0, 0), load)
    return got.kv + got.compute


def at(size: str, context: int, weights: int = 0, **options: Any) -> Any:
    config = published(size).config
    load = Load(context, options.pop("kv_types", ("bf16", "bf16")), **options)
    return estimate(
        transformers.ENGINE, Model(size, config, weights, 0, towers=840_000_000, towers_config=TOWER_4B), load
    )


@pytest.mark.parametrize("size", [size.name for size in SIZES])
def test_a_longer_context_takes_more_and_eager_attention_most(size: str) -> None:
    totals = [at(size, context).total for context in (64, 512, 4096, 32_768)]
    assert totals == sorted(totals)
    assert at(size, 32_768, flash_attention=False).total > 2 * totals[-1]
    assert at(size, 4096, vision=True).total > at(size, 4096).total


def test_quantized_weights_are_those_of_bf16() -> None:
    parameters = published("4b").config.parameters
    small = at("4b", 512, parameters * 9 // 16)
    assert small.weights == 2 * parameters
    assert any("decompressed" in note for note in small.notes)
    assert not any("decompressed" in note for note in at("4b", 512, 2 * parameters).notes)
    assert at("4b", 512, 2 * parameters, kv_types=("f32", "f32")).weights == 4 * parameters


def test_an_image_of_the_published_tower() -> None:
    """4096 patches are all that is counted: an image also takes 256 tokens of the context."""
    assert transformers.image_bytes(TOWER_4B, 2) == 2 * 4096 * (4 * 1152 + 2 * 4304)
    assert transformers.image_bytes(TOWER_4B, 2, flash=False) == 2 * 4096 * 6 * 1152 + 10 * 16 * 4096**2
    result = at("4b", 300, vision=True)
    assert result.vision_weights == 840_000_000
    assert result.kv + result.compute + result.vision_compute == transformers.image_bytes(TOWER_4B, 2)
    assert at("4b", 8192, vision=True).vision_compute == 0


@pytest.mark.parametrize("kv_types", [("q8_0", "q8_0"), ("bf16", "f32")])
def test_what_transformers_cannot_do_is_refused(kv_types: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=r"KV cache|own dtype"):
        at("4b", 512, kv_types=kv_types)
