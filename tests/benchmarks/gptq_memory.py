"""Peak memory of method gptq on full-size layers: the synthetic 1B whole, and the first three layers of the 12B.

    python tests/benchmarks/gptq_memory.py WORK_FOLDER [--tokens 8192] [--only 1b]

Weights are made up, dimensions real. Beside the peak stands what gemmaq says beforehand that calibration takes; the
rest is Python, torch, transformers and the tokenizer, about 0.9 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from rich import print as show
from rich.table import Table

from gemmaq.calibration import memory
from gemmaq.models.gemma3.config import TextConfig
from synthetic import full_size, write_checkpoint

GEMMAQ = [sys.executable, "-m", "gemmaq", "convert"]
TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


def shortened(config: TextConfig, layers: int) -> TextConfig:
    return replace(config, num_hidden_layers=layers, layer_pattern=config.layer_pattern[:layers])


MODELS = {"1b": full_size("1b"), "12b": shortened(full_size("12b"), 3)}


def source(work: Path, label: str, config: TextConfig) -> Path:
    """The checkpoint of a size with a real tokenizer, made where it is missing."""
    tokenizer, model = work / "tokenizer", work / f"gptq-{label}-{config.num_hidden_layers}"
    if not tokenizer.exists():
        subprocess.check_call(
            [*GEMMAQ, "sample:gemma-3-270m", "--to", "safetensors", "--quant", "bf16", "-o", tokenizer]
        )
    if not model.exists():
        part = write_checkpoint(model.with_name("part"), config)
        for name in TOKENIZER:
            (part / name).write_bytes((tokenizer / name).read_bytes())
        part.rename(model)
    return model


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--tokens", type=int, default=8192)
    options.add_argument("--only", choices=list(MODELS))
    asked = options.parse_args()
    made = Table(title=f"method gptq, {asked.tokens:,} tokens")
    for column in ("model", "layers", "peak, GB", "said beforehand, GB", "seconds"):
        made.add_column(column, justify="right")
    for label in [asked.only] if asked.only else MODELS:
        config, model, out = MODELS[label], source(asked.folder, label, MODELS[label]), asked.folder / f"out-{label}"
        command = [
            *GEMMAQ,
            model,
            "--method=gptq",
            f"--calibration-tokens={asked.tokens}",
            "--force",
            "--json",
            "-o",
            out,
        ]
        said = json.loads(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE).stdout)
        peak, beforehand = said["peak_rss_bytes"] / 1e9, memory(config, asked.tokens) / 1e9
        row = (label, config.num_hidden_layers, f"{peak:.2f}", f"{beforehand:.2f}", f"{said['seconds']:.0f}")
        made.add_row(*map(str, row))
    show(made)


if __name__ == "__main__":
    main()
