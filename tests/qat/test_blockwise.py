"""A layer at a time: within the memory it promises, and better than no training."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gemmaq.models.gemma3.config import pattern
from inprocess import run
from small import SMALL, environment, record_of, words
from synthetic import write_checkpoint

pytestmark = pytest.mark.slow

pytest.importorskip("torch")

LAYERS = 7
DEEP = replace(
    SMALL, hidden_size=768, intermediate_size=3072, num_hidden_layers=LAYERS, layer_pattern=pattern(LAYERS, 6)
)
"""7 layers of 7 million weights: trained together they take 1.2 GB, one of them 0.17 GB."""
_MEASURE = """
import sys
from pathlib import Path
from unittest.mock import patch
from gemmaq.cli.app import main
with patch.object(sys, "argv", ["gemmaq", *sys.argv[1:]]):
    try:
        main()
    finally:
        status = Path("/proc/self/status").read_text()
        print("peak", 1024 * int(status.partition("VmHWM:")[2].split()[0]))
"""


def test_memory_stays_within_the_promise(source: Path, text: Path, tmp_path: Path) -> None:
    deep = write_checkpoint(tmp_path / "gemma-3-deep", DEEP, tokenizer=source)
    short = tmp_path / "short.txt"
    short.write_text(text.read_text()[:1200])
    arguments = words(deep, short, tmp_path / "out", "--block-wise", "--steps", 2)
    told = json.loads(run(*arguments, "--dry-run", "--json").stdout)
    whole = json.loads(run(*(word for word in arguments if word != "--block-wise"), "--dry-run", "--json").stdout)
    command = [sys.executable, "-c", _MEASURE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=600)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.split()[-1])
    assert peak < told["memory_bytes"]
    assert told["memory_bytes"] < 0.8 * whole["memory_bytes"]
    assert len(record_of(tmp_path / "out")["losses"]) == 2 * LAYERS


def test_it_improves_and_goes_on_after_a_layer(source: Path, text: Path, tmp_path: Path) -> None:
    arguments = words(source, text, tmp_path / "out", "--block-wise")
    run(*arguments)
    record = record_of(tmp_path / "out")
    before, after = record["evaluation"]["before"], record["evaluation"]["after"]
    assert after["kl"] < 0.9 * before["kl"]
    assert len(record["losses"]) == 40
    run("verify", tmp_path / "out")
