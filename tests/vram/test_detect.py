"""Cards of this machine, from tools that are missing, fail, hang or print nonsense."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq.vram import detect
from inprocess import Done, run

MIB = 1 << 20
GIB = 1 << 30
NVIDIA = "NVIDIA GeForce RTX 4090, 24564\nNVIDIA H100 80GB HBM3, 81559\n"
AMD = json.dumps(
    {
        "card0": {"Card Series": "AMD Radeon RX 7900 XTX", "VRAM Total Memory (B)": "25753026560"},
        "card1": {"Device Name": "AMD Instinct MI300X", "VRAM Total Memory (B)": 206141652992},
        "system": {"Driver version": "6.7"},
    }
)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others on PATH, from which no real tool is reached."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("cat", "sleep"):
        (folder / name).symlink_to(next(p for p in ("/bin/" + name, "/usr/bin/" + name) if os.path.exists(p)))
    monkeypatch.setenv("PATH", str(folder))
    return folder


def tool(folder: Path, name: str, output: str | bytes = b"", ends: str = "exit 0") -> None:
    """A program that prints a text and exits with a code."""
    said = folder / f"{name}.out"
    said.write_bytes(output if isinstance(output, bytes) else output.encode())
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat '{said}'\n{ends}\n")
    path.chmod(0o755)


def auto(*options: object) -> tuple[list[dict[str, Any]], Done]:
    """How a model fits the cards that are detected."""
    done = run("estimate-vram", "1b", "--quant", "q4_0", "--gpu", "auto", "--json", *options)
    (entry,) = json.loads(done.stdout)["estimates"]
    return entry["gpus"], done


def test_cards_of_both_makers(tools: Path) -> None:
    tool(tools, "nvidia-smi", NVIDIA)
    tool(tools, "rocm-smi", AMD)
    found, done = auto()
    assert [(gpu["name"], gpu["bytes"]) for gpu in found] == [
        ("RTX 4090", 24564 * MIB),
        ("H100 80GB HBM3", 81559 * MIB),
        ("Radeon RX 7900 XTX", 25753026560),
        ("Instinct MI300X", 206141652992),
    ]
    assert all(gpu["fits"] and gpu["usable"] == gpu["bytes"] for gpu in found)
    assert "no card" not in done.stderr


def test_found_cards_stand_beside_named_ones(tools: Path) -> None:
    tool(tools, "nvidia-smi", NVIDIA)
    found, _ = auto("--gpu", "8GB")
    assert [gpu["name"] for gpu in found] == ["RTX 4090", "H100 80GB HBM3", "8 GB"]
    shown = run("estimate-vram", "1b", "--gpu", "AUTO").stdout
    assert "RTX 4090" in shown and "24.0" in shown


NOISE = {
    "nothing": b"",
    "bytes": b"\xff\xfe\x00\x80, \xff\n\x00",
    "a complaint": b"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
    "no number": b"NVIDIA GB10, [N/A]\n",
    "a superscript": "RTX, ²\n".encode(),
    "zero": b"RTX, 0\n",
    "a negative": b"RTX, -24564\n",
    "a fraction": b"RTX, 24564.5\n",
    "a huge number": b"RTX, " + b"9" * 5000 + b"\n",
    "a list": b"[1, 2]",
    "no objects": b'{"card0": [], "card1": "24564", "card2": null}',
    "odd objects": b'{"card0": {"VRAM Total Memory (B)": {}}, "card1": {"VRAM Total Memory (B)": "x"}}',
    "huge objects": b'{"card0": {"VRAM Total Memory (B)": 1e400}, "card1": {"VRAM Total Memory (B)": '
    + b"9" * 999
    + b"}}",
    "depth": b"[" * 100_000,
    "half of it": AMD[:70].encode(),
}


@pytest.mark.parametrize("noise", NOISE)
def test_nonsense_is_no_card(tools: Path, noise: str) -> None:
    for name in ("nvidia-smi", "rocm-smi"):
        tool(tools, name, NOISE[noise])
    found, done = auto()
    assert found == [] and "no card found" in done.stderr and "--gpu" in done.stderr


def test_good_lines_count_among_bad_ones(tools: Path) -> None:
    tool(tools, "nvidia-smi", f"Failed to initialize\n{NVIDIA}NVIDIA GB10, [N/A]\n")
    assert [gpu["name"] for gpu in auto()[0]] == ["RTX 4090", "H100 80GB HBM3"]


def test_a_tool_that_fails_is_not_believed(tools: Path) -> None:
    tool(tools, "nvidia-smi", NVIDIA, ends="exit 9")
    tool(tools, "rocm-smi", AMD, ends="kill -9 $$")
    found, done = auto()
    assert found == [] and "no card found" in done.stderr


def test_a_tool_that_cannot_be_run(tools: Path) -> None:
    (tools / "nvidia-smi").write_bytes(b"\x7fELF no program")
    (tools / "nvidia-smi").chmod(0o755)
    (tools / "rocm-smi").mkdir()
    assert auto()[0] == []


@pytest.mark.parametrize("ends", ["exec sleep 30", "sleep 4; exit 0"])
def test_a_tool_that_hangs(tools: Path, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    monkeypatch.setattr(detect, "_SECONDS", 0.3)
    tool(tools, "nvidia-smi", NVIDIA, ends=ends)
    tool(tools, "rocm-smi", AMD)
    start = time.monotonic()
    found, _ = auto()
    assert time.monotonic() - start < 3.5
    assert [gpu["name"] for gpu in found] == ["Radeon RX 7900 XTX", "Instinct MI300X"]


def test_no_tool_at_all(tools: Path) -> None:
    found, done = auto()
    assert found == [] and "no card found" in done.stderr
    assert "On these cards" not in run("estimate-vram", "1b", "--gpu", "auto").stdout


@settings(deadline=None)
@given(
    st.one_of(
        st.text(),
        st.from_regex(r"([^\n]*, ?\d*\n)*", fullmatch=True),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(("card0", "VRAM Total Memory (B)", "Card Series")), inner)
            ),
        ).map(json.dumps),
    )
)
def test_any_answer_is_cards_or_none(answer: str) -> None:
    done = subprocess.CompletedProcess([], 0, answer, "")
    with patch.object(subprocess, "run", return_value=done), patch("shutil.which", return_value="/tool"):
        assert all(0 < card.usable <= card.bytes and card.name is not None for card in detect.cards())


@pytest.mark.parametrize(
    ("wired", "usable"), (("0", 36 * GIB * 2 // 3), ("30000", 30000 * MIB), ("unknown oid", 36 * GIB * 2 // 3))
)
def test_a_mac(tools: Path, wired: str, usable: int) -> None:
    """Chip and memory from sysctl, and the limit that an owner may have set."""
    (tools / "sysctl").write_text(
        f"#!/bin/sh\ncase $2 in machdep*) echo Apple M3 Max;; hw.memsize) echo {36 * GIB};; *) echo {wired};; esac\n"
    )
    (tools / "sysctl").chmod(0o755)
    script = (
        "import subprocess, sys; sys.platform = 'darwin'\n"
        "from gemmaq.vram import detect; print([(c.name, c.bytes, c.usable) for c in detect.cards()])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == repr([("Apple M3 Max", 36 * GIB, usable)]), done.stderr


def test_a_mac_without_sysctl(tools: Path) -> None:
    script = "import subprocess, sys; sys.platform = 'darwin'\nfrom gemmaq.vram import detect; print(detect.cards())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
