"""What vLLM makes of folders, on the CPU: `python vllm_run.py < jobs > answers`, run by the Python of vLLM.

Jobs are a JSON list of {"folder", "ids", "count"}. Answers, in the last line, are a list of {"ids": the prompt and the
tokens chosen after it, "logprobs": natural logarithms of the probabilities of all but the first of them}.

A model with towers needs "media" as well, file -> file: inputs of the towers (.npz) -> the embeddings that vLLM makes
of them, f32 [tokens, width] (.npy).
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "2",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_CPU_INT4_W4A8": "0",  # activations stay BF16, as on a GPU
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def register(folder: str) -> None:
    """Have the folder's class at hand: vLLM would start a process to look at it, or take that of transformers."""
    from vllm import ModelRegistry

    (name,) = json.loads((Path(folder) / "config.json").read_text())["architectures"]
    ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())


def run_experts_dequantized() -> None:
    """Let vLLM read int4 experts as ever, but compute in BF16: its kernels for such experts need a GPU."""
    import torch
    from vllm.model_executor.layers.fused_moe import UnquantizedFusedMoEMethod
    from vllm.model_executor.layers.fused_moe.oracle.int_wna16 import WNA16MoEBackend
    from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
        compressed_tensors_moe_wna16 as experts,
    )

    def dequantize(method: Any, layer: Any) -> None:
        for name in "w13_weight", "w2_weight":
            packed, scale = getattr(layer, f"{name}_packed"), getattr(layer, f"{name}_scale")
            codes = (packed.unsqueeze(-1) >> torch.arange(0, 32, 4)) & 15
            weight = (codes.view(*scale.shape, -1) - 8) * scale.unsqueeze(-1)
            layer.register_parameter(name, torch.nn.Parameter(weight.flatten(-2), requires_grad=False))
        dense = UnquantizedFusedMoEMethod(method.moe)
        dense.process_weights_after_loading(layer)
        layer._replace_quant_method(dense)

    experts.select_wna16_moe_backend = lambda **_: (WNA16MoEBackend.EMULATION, None)
    experts.CompressedTensorsWNA16MoEMethod.process_weights_after_loading = dequantize


def run_int4_dequantized() -> None:
    """Let vLLM read int4 matrices as ever, but compute in F32 where it has no kernel: on CPUs without AVX-512."""
    import torch
    from vllm.model_executor.kernels.linear.mixed_precision.cpu import CPUWNA16LinearKernel as Kernel
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    if hasattr(torch.ops._C, "cpu_gemm_wna16"):
        return

    def dequantize(kernel: Any, layer: Any) -> None:
        packed, scales = getattr(layer, kernel.w_q_name), getattr(layer, kernel.w_s_name)
        codes = (packed.unsqueeze(-1) >> torch.arange(0, 32, 4)) & 15
        groups = scales.unsqueeze(-1).float()
        layer.dequantized = ((codes.view(*scales.shape, -1) - 8) * groups).flatten(-2)

    def multiply(kernel: Any, layer: Any, x: Any, bias: Any = None) -> Any:
        return torch.nn.functional.linear(x.float(), layer.dequantized, bias).to(x.dtype)

    Kernel.process_weights_after_loading, Kernel.apply_weights = dequantize, multiply


def do_without_torchvision() -> None:
    """Let classes of models with towers be imported: they ask for torchvision, and call it to resize images only."""
    from importlib.machinery import ModuleSpec
    from unittest.mock import MagicMock

    for inside in "", ".io", ".transforms", ".transforms.functional", ".transforms.v2", ".transforms.v2.functional":
        name = f"torchvision{inside}"
        sys.modules[name] = MagicMock(__spec__=ModuleSpec(name, None), __path__=[], __version__="0.28.0")


def encode(model: Any, given: str, out: str) -> None:
    """Put the embeddings of an image or a sound into a file."""
    import numpy as np
    import torch

    inputs = {name: torch.from_numpy(array) for name, array in np.load(given).items()}
    wide = {name: array.bfloat16() if array.is_floating_point() else array for name, array in inputs.items()}

    def embed(whole: Any) -> Any:
        with torch.inference_mode():
            (found,) = whole.embed_multimodal(**wide)
            return found.float().numpy()

    np.save(out, model.apply_model(embed)[0])


def run(folder: str, ids: list[int], count: int, media: dict[str, str] | None = None) -> dict[str, Any]:
    """Continue the ids by `count` tokens, greedily, then embed what is to be seen and heard."""
    from vllm import LLM, SamplingParams

    register(folder)
    text = {"skip_tokenizer_init": True, "max_num_batched_tokens": len(ids) + count}
    towers = {"skip_mm_profiling": True, "limit_mm_per_prompt": {"image": 1, "audio": 1, "video": 0}}
    model = LLM(
        folder,
        dtype="bfloat16",
        enforce_eager=True,
        kv_cache_memory_bytes=1 << 26,
        max_model_len=len(ids) + count,
        max_num_seqs=1,
        enable_prefix_caching=False,
        **(text if media is None else towers),
    )
    greedy = SamplingParams(
        temperature=0, max_tokens=count, ignore_eos=True, prompt_logprobs=0, logprobs=0, detokenize=False
    )
    (answer,) = model.generate([{"prompt_token_ids": ids}], greedy, use_tqdm=False)
    for given, out in (media or {}).items():
        encode(model, given, out)
    chosen = [*ids, *answer.outputs[0].token_ids]
    scores = [*answer.prompt_logprobs[1:], *answer.outputs[0].logprobs]
    return {"ids": chosen, "logprobs": [score[token].logprob for token, score in zip(chosen[1:], scores, strict=True)]}


if __name__ == "__main__":
    import torch

    torch.cpu._init_amx()  # vLLM's int4 kernel forgets to ask for the tiles
    jobs = json.load(sys.stdin)
    if find_spec("torchvision") is None and any("media" in job for job in jobs):
        do_without_torchvision()  # before transformers looks for it
    run_experts_dequantized()
    run_int4_dequantized()
    answers = [run(**job) for job in jobs]
    print(json.dumps(answers))
