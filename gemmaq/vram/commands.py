"""Command lines that run a model in an engine with the settings of an estimate."""

from __future__ import annotations

from collections.abc import Callable

from gemmaq.files.quoting import shell
from gemmaq.vram import Engine, Load
from gemmaq.vram.placement import Placement


def command(engine: Engine, file: str, load: Load, placement: Placement | None = None, *, cards: int = 1) -> str | None:
    """Command line of an engine, None for a library, which has none.

    Args:
        engine: The engine.
        file: Path or name of what it loads.
        load: Settings of the run.
        placement: Where the layers lie; None for all of them on cards of one kind.
        cards: Number of these cards.
    """
    make = _COMMANDS.get(engine.name)
    return make(file, load, placement, cards) if make else None


def file_of(engine: Engine, model: str, quant: str) -> str:
    """Name that gemmaq gives to a model's file in a type, or a folder for it."""
    return f"{model}-{quant.upper()}.gguf" if engine.container == "gguf" else f"{model}-{quant}"


def _llama_server(file: str, load: Load, placement: Placement | None, cards: int) -> str:
    ngl = 999 if placement is None or placement.ngl == placement.depth else placement.ngl
    words = ["llama-server -m", shell(file), f"-c {load.context}", f"-ngl {ngl}"]
    words.append(f"-fa {'on' if load.flash_attention else 'off'}")
    if load.kv_types != ("f16", "f16"):
        words.append("-ctk {} -ctv {}".format(*load.kv_types))
    words.append(f"-np {load.parallel}")
    words += [f"-ub {load.ubatch}"] * (load.ubatch is not None) + ["--swa-full"] * bool(load.swa_full)
    if load.unified is not None and load.parallel > 1:
        words.append("--kv-unified" if load.unified else "--no-kv-unified")
    if placement is not None:
        words += ["-ts " + ",".join(map(str, placement.split))] * (len(placement.split) > 1)
        words += [f"--n-cpu-moe {placement.cpu_moe}"] * (placement.cpu_moe > 0)
    return " ".join(words)


def _ollama(file: str, load: Load, placement: Placement | None, cards: int) -> str:
    cache = "" if load.kv_types[0] == "f16" else f"OLLAMA_FLASH_ATTENTION=1 OLLAMA_KV_CACHE_TYPE={load.kv_types[0]} "
    return f"OLLAMA_CONTEXT_LENGTH={load.context} OLLAMA_NUM_PARALLEL={load.parallel} {cache}ollama serve"


def _lmstudio(file: str, load: Load, placement: Placement | None, cards: int) -> str:
    return f"lms load {shell(file.removesuffix('.gguf'))} --context-length {load.context} --gpu max"


def _mlx(file: str, load: Load, placement: Placement | None, cards: int) -> str:
    return f"mlx_lm.server --model {shell(file)}"


def _vllm(file: str, load: Load, placement: Placement | None, cards: int) -> str:
    cache = f" --kv-cache-dtype {load.kv_types[0]}" if "fp8" in load.kv_types[0] else ""
    several = f" --pipeline-parallel-size {cards}" if cards > 1 else ""
    return f"vllm serve {shell(file)} --max-model-len {load.context} --max-num-seqs {load.parallel}{cache}{several}"


_COMMANDS: dict[str, Callable[[str, Load, Placement | None, int], str]] = {
    "llama.cpp": _llama_server,
    "ollama": _ollama,
    "lmstudio": _lmstudio,
    "mlx": _mlx,
    "vllm": _vllm,
}
"""Name of an engine -> what makes its command line."""
