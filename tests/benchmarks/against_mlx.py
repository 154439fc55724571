"""gemmaq against mlx_lm's own tuned quantizations, at equal bytes: the 270M as MLX folders, KL on text held out.

    python tests/benchmarks/against_mlx.py --work FOLDER [--skip dwq,dynamic] [--tokens 2040] [--samples 64]
        [--calibration-tokens 8192]

The source is the sample, dithered off the lattices of its own quantization (see methods_270m.py). mlx_lm's
dynamic_quant (4 and 5 bits by sensitivity, for a number of bits per weight) and dwq (scales and biases tuned to the
unquantized model) get the same text as gemmaq, in place of the sets that they download, and compute on the CPU in f32.
Folders that are there already are taken again, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from methods_270m import texts
from rich import print as show
from rich.table import Table

from gemmaq.qat.dither import dithered_folder
from gemmaq.sources.open import open_source

GROUP, LENGTH = 64, 512


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--skip", default="", help="tools to leave out: dynamic, dwq, chosen")
    options.add_argument("--tokens", type=int, default=2040)
    options.add_argument("--samples", type=int, default=64, help=f"sequences of {LENGTH} tokens for mlx_lm")
    options.add_argument("--bits", default="4.8", help="bits per weight of dynamic_quant and of chosen types")
    options.add_argument("--learning-rate", type=float, default=1e-6, help="of dwq; mlx_lm's default is 1e-6")
    options.add_argument("--calibration-tokens", type=int, default=8192)
    asked = options.parse_args()
    skipped = set(asked.skip.split(","))
    folder = asked.work
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source"
    if not source.exists():
        dithered_folder(open_source("sample:gemma-3-270m", tokenizer=True), source, 0)
    calibrated, held = texts(folder)
    calibrate = [f"--calibration-tokens={asked.calibration_tokens}", *(f"--text={path}" for path in calibrated)]
    makers = {
        "gemmaq nearest": lambda out: gemmaq(
            "convert", source, "--to=mlx", "--embedding=q4_0", "--method=nearest", "-o", out
        ),
        "gemmaq gptq": lambda out: gemmaq(
            "convert", source, "--to=mlx", "--embedding=q4_0", "--method=gptq", *calibrate, "-o", out
        ),
    }
    if "chosen" not in skipped:
        makers[f"gemmaq chosen {asked.bits}"] = lambda out: gemmaq(
            "convert", source, "--to=mlx", f"--target-bpw={asked.bits}", "--method=gptq", *calibrate, "-o", out
        )
    if "dynamic" not in skipped:
        makers[f"mlx_lm dynamic_quant {asked.bits}"] = lambda out: dynamic(source, calibrated, out, asked)
    if "dwq" not in skipped:
        makers["mlx_lm dwq"] = lambda out: dwq(source, calibrated, out, asked)
    models, seconds = {}, {}
    for name, make in makers.items():
        out = folder / name.replace(" ", "-")
        started = time.monotonic()
        if not out.exists():
            make(out)
        models[name], seconds[name] = out, time.monotonic() - started
    show(table(source, models, held, tokens=asked.tokens))
    show({name: f"{value:.0f} s" for name, value in seconds.items()})


def gemmaq(*arguments: object) -> str:
    command = [sys.executable, "-m", "gemmaq", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def loaded(source: Path, calibrated: list[Path], samples: int):
    """The model in f32, its tokenizer and configuration, and sequences of the calibration text, spread evenly."""
    import mlx.core as mx
    from mlx_lm.utils import load

    mx.set_default_device(mx.cpu)
    model, tokenizer, config = load(str(source), return_config=True)
    model.set_dtype(mx.float32)
    ids = [number for path in calibrated for number in tokenizer.encode(path.read_text("utf-8"))]
    count = len(ids) // LENGTH
    rows = [ids[at * LENGTH : (at + 1) * LENGTH] for at in range(0, count, max(1, count // samples))][:samples]
    return model, tokenizer, config, rows


def dynamic(source: Path, calibrated: list[Path], out: Path, asked: argparse.Namespace) -> None:
    """What mlx_lm.dynamic_quant's main does, on this text."""
    import mlx.core as mx
    from mlx_lm.quant.dynamic_quant import estimate_sensitivities, estimate_threshold
    from mlx_lm.utils import quantize_model, save

    model, tokenizer, config, rows = loaded(source, calibrated, asked.samples)
    found = dict(estimate_sensitivities(model, mx.array(rows), 4, GROUP, 5, GROUP, batch_size=1))
    threshold = estimate_threshold(model, found, float(asked.bits), 4, GROUP, 5, GROUP)

    def bits(path: str, module: object) -> bool | dict[str, int]:
        if not hasattr(module, "to_quantized"):
            return False
        return {"bits": 5, "group_size": GROUP} if found[path] > threshold else True

    model, config = quantize_model(model, config, group_size=GROUP, bits=4, quant_predicate=bits)
    save(str(out), str(source), model, tokenizer, config)


def dwq(source: Path, calibrated: list[Path], out: Path, asked: argparse.Namespace) -> None:
    """What mlx_lm.dwq's main does, on this text: 4 bits, an eighth of the sequences for validation."""
    import copy

    import mlx.core as mx
    from mlx import optimizers
    from mlx_lm.quant.dwq import dwq_quantize
    from mlx_lm.utils import quantize_model, save

    model, tokenizer, config, rows = loaded(source, calibrated, asked.samples)
    tuned = copy.deepcopy(model)
    tuned, config = quantize_model(tuned, config, group_size=GROUP, bits=4)
    held = [(row, 0) for row in rows[::8]]
    train = [(row, 0) for at, row in enumerate(rows) if at % 8]
    dwq_quantize(
        tuned, lambda batch, _, split: model(batch), optimizers.Adam(asked.learning_rate, bias_correction=True),
        train, held, 1, LENGTH, 0, dtype=mx.float32,
    )  # fmt: skip
    save(str(out), str(source), tuned, tokenizer, config)


def table(source: Path, models: dict[str, Path], held: dict[str, Path], *, tokens: int) -> Table:
    """A row a folder: bytes, and mean KL on every kind of text."""
    made = Table(title="MLX folders of the 270M: mean KL divergence from the source")
    for column in ("made by", "bytes", "bits per weight", *held):
        made.add_column(column, justify="left" if column == "made by" else "right")
    said = {
        kind: json.loads(
            gemmaq("evaluate", *models.values(), "--reference", source, "--text", path, "--json", f"--tokens={tokens}")
        )["models"]
        for kind, path in held.items()
    }
    first = next(iter(said.values()))
    for at, name in enumerate(models):
        kl = [entries[at]["kl"] for entries in said.values()]
        cells = [f"{each['mean']:.4f} ± {each['stderr']:.4f}" for each in kl]
        checkpoint = open_source(str(models[name]))
        bits = 8 * sum(tensor.nbytes for tensor in checkpoint.tensors.values()) / checkpoint.parameters
        made.add_row(name, f"{first[at]['bytes']:,}", f"{bits:.2f}", *cells)
    return made


if __name__ == "__main__":
    main()
