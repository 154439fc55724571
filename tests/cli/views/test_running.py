"""What `gemmaq estimate-vram` says of running a model: rankings and placements."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inprocess import run


def answer(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("estimate-vram", *arguments, "--json").stdout)
    return found


def test_what_to_run_fits_a_small_screen_and_ends_with_the_command() -> None:
    asked = ("--gpu", "8GB", "--context", "4096", "--quant", "q4_0", "--quant", "q8_0")
    done = run("estimate-vram", *asked)
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    assert len(lines) + 1 <= 24 and max(len(line.rstrip()) for line in lines) <= 80
    entries: Any = answer(*asked)["ranking"]
    assert [entry["rank"] for entry in entries] == list(range(1, len(entries) + 1))
    assert all(entry["command"] and entry["use"] and entry["gpus"][0]["fits"] for entry in entries)
    assert entries[0]["command"] in done.stdout
    assert run("estimate-vram", *asked, "-q").stdout.strip() == entries[0]["command"]


def test_a_card_that_holds_nothing() -> None:
    done = run("estimate-vram", "--gpu", "1GB", "--quant", "q8_0", "--context", "4096")
    assert "nothing fits" in done.stdout


@pytest.mark.parametrize("gpus", [["12GB + 8GB"], ["12GB", "10GB"]])
def test_every_device_is_a_row(gpus: list[str]) -> None:
    options = [option for gpu in gpus for option in ("--gpu", gpu)]
    entries: Any = answer("27b", "--quant", "q4_0", "--offload", *options)["estimates"]
    assert [[device["name"] for device in entry["placement"]["devices"]] for entry in entries] == [
        [part.replace("GB", " GB") for part in gpu.split(" + ")] for gpu in gpus
    ]
    text = run("estimate-vram", "27b", "--quant", "q4_0", "--offload", *options).stdout
    assert "main memory" in text and text.count("llama-server") == len(gpus)
    assert max(len(line.rstrip()) for line in text.splitlines() if "llama-server" not in line) <= 80


def test_cards_that_are_too_small_together() -> None:
    assert "does not fit" in run("estimate-vram", "27b", "--quant", "q4_0", "--gpu", "4GB + 4GB").stdout


@pytest.mark.parametrize("command", ["--offload", "27b --offload", "--gpu 4090+3060", "--offload --gpu 8GB"])
def test_what_needs_a_model_and_a_card(command: str) -> None:
    assert "need a model" in run("estimate-vram", *command.split(), code=2).stderr
