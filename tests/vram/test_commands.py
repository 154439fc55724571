"""Command lines of every engine."""

from __future__ import annotations

import pytest

from gemmaq import vram
from gemmaq.vram import Load, cards
from gemmaq.vram.commands import command, file_of
from gemmaq.vram.placement import place
from placements import LLAMA, build

LINES = {
    "llama.cpp": "llama-server -m m.gguf -c 4096 -ngl 999 -fa on -ctk q8_0 -ctv q8_0 -np 2",
    "ollama": "OLLAMA_CONTEXT_LENGTH=4096 OLLAMA_NUM_PARALLEL=2 OLLAMA_FLASH_ATTENTION=1 OLLAMA_KV_CACHE_TYPE=q8_0 "
    "ollama serve",
    "lmstudio": "lms load m --context-length 4096 --gpu max",
    "mlx": "mlx_lm.server --model m.gguf",
    "vllm": "vllm serve m.gguf --max-model-len 4096 --max-num-seqs 2",
    "libllama": None,
    "transformers": None,
}


@pytest.mark.parametrize("engine", vram.NAMES)
def test_every_engine(engine: str) -> None:
    assert command(vram.find(engine), "m.gguf", Load(4096, ("q8_0", "q8_0"), parallel=2)) == LINES[engine]


def test_settings_of_llama_cpp() -> None:
    load = Load(4096, ("q8_0", "f16"), 4, 256, flash_attention=False, swa_full=True, unified=False)
    line = command(LLAMA, "m.gguf", load)
    assert line == (
        "llama-server -m m.gguf -c 4096 -ngl 999 -fa off -ctk q8_0 -ctv f16 -np 4 -ub 256 --swa-full --no-kv-unified"
    )


def test_where_layers_and_experts_lie() -> None:
    gpus = [cards.find("12GB"), cards.find("8GB")]
    parts = place(LLAMA, build("27b"), Load(8192), gpus, offload=True)
    split = ",".join(map(str, parts.split))
    assert f"-ts {split}" in (command(LLAMA, "m", Load(8192), parts) or "")
    parts = place(LLAMA, build("27b"), Load(8192), gpus[:1], offload=True)
    assert parts.ngl and f"-ngl {parts.ngl} " in (command(LLAMA, "m", Load(8192), parts) or "")
    parts = place(LLAMA, build("26b-a4b"), Load(8192), gpus[:1], offload=True)
    assert (command(LLAMA, "m", Load(8192), parts) or "").endswith(f"-np 1 --n-cpu-moe {parts.cpu_moe}")


def test_names_are_those_of_the_files_of_a_conversion() -> None:
    assert file_of(LLAMA, "gemma-3-1b", "q4_k_m") == "gemma-3-1b-Q4_K_M.gguf"
    assert file_of(vram.find("mlx"), "gemma-3-1b", "q4_0") == "gemma-3-1b-q4_0"
    assert "--pipeline-parallel-size 2" in (command(vram.find("vllm"), "m", Load(4096), cards=2) or "")
