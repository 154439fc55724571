"""Flips one bit of an artifact at a time, at places decided by a number, and lets `gemmaq verify` look for it.

    python tests/fuzz/flips.py [--flips 850] [--first 0]

A flip is missed if verify succeeds. Every file of an artifact is as likely as the others, however small it is.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import lora_files
from damage import small_model
from inprocess import VERIFICATION, run, run_any

KINDS: dict[str, tuple[object, ...]] = {
    "gguf": (),
    "ladder": ("--quant", "q8_0,q4_0,q4_1"),
    "mlx": ("--to", "mlx"),
    "safetensors": ("--to", "safetensors"),
    "containers": ("--to", "gguf", "--to", "mlx", "--to", "safetensors"),
    "gguf-lora": ("--to", "gguf-lora"),
}


def made(place: Path) -> dict[str, Path]:
    """A sound artifact of every kind."""
    base = small_model(place / "base")
    lora_files.write(place / "adapter", lora_files.config(), lora_files.pair(64, 64), base="../base")
    for name, options in KINDS.items():
        source = place / "adapter" if name == "gguf-lora" else base
        run("convert", source, "-o", place / name, "-q", *options)
    return {name: place / name for name in KINDS}


def try_flip(number: int, artifacts: dict[str, Path]) -> str | None:
    """Flip a bit, verify, and flip it back; says what is bad."""
    chance = random.Random(number)
    folder = artifacts[list(artifacts)[number % len(artifacts)]]
    path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    content = path.read_bytes()
    at, bit = chance.randrange(len(content)), chance.randrange(8)
    path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
    try:
        done = run_any("verify", folder)
    finally:
        path.write_bytes(content)
    told = done.stdout + done.stderr
    if done.code in (3, VERIFICATION) and "Traceback" not in told:
        return None
    return f"#{number} {path.relative_to(folder.parent)}, byte {at}, bit {bit}: exit code {done.code}: {told[-200:]}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--flips", type=int, default=850)
    options.add_argument("--first", type=int, default=0)
    asked = options.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        artifacts = made(Path(place))
        for folder in artifacts.values():
            run("verify", folder)
        tried = (try_flip(number, artifacts) for number in range(asked.first, asked.first + asked.flips))
        bad = [problem for problem in tried if problem]
    print(*bad, sep="\n")
    print(f"{asked.flips} flips, {len(bad)} missed in {time.monotonic() - begun:.0f} s")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
