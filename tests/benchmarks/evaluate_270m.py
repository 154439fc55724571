"""What an evaluation takes: the real 270M in Q4_0 against its BF16, the first time and with the reference kept.

    python tests/benchmarks/evaluate_270m.py [--tokens 8192] [--threads 2]

The text is Python's language reference, which comes with Python. Prints wall seconds and peak memory.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

from timing import table, timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["GEMMAQ_CACHE"] = str(work / "cache")
        text = work / "text.txt"
        text.write_text("\n\n".join(topics[key] for key in sorted(topics)))
        bf16, q4_0 = work / "gemma-3-270m", work / "q4_0"
        timed(["gemmaq", "convert", "sample:gemma-3-270m", "--to", "safetensors", "--quant", "bf16", "-o", bf16])
        timed(["gemmaq", "convert", bf16, "--quant", "q4_0", "-o", q4_0])
        command = ["gemmaq", "evaluate", q4_0 / "gemma-3-270m-Q4_0.gguf", "--reference", bf16, "--text", text]
        command += ["--tokens", asked.tokens, "--threads", asked.threads, "--device", "cpu"]
        table({"first": [timed(command)], "reference kept": [timed(command)]})


if __name__ == "__main__":
    main()
