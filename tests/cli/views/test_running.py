"""What `gemmaq estimate-vram` says of running a model: rankings and placements."""

from __future__ import annotations

import json
from pathlib import Path
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
    by_type = {entry["quant"]: entry["quality"] for entry in entries}
    assert by_type["q8_0"] is None
    assert by_type["q4_0"]["kl"] == {"nearest": 0.318, "importance": 0.193, "gptq": 0.054}
    assert by_type["q4_0"]["model"] == "gemma-3-270m" and "reference" in by_type["q4_0"]["text"]
    assert ["0.318", "0.193", "0.054"] in [line.split()[-3:] for line in lines]
    assert "gemma-3-270m" in done.stderr and "ARM" not in done.stdout + json.dumps(entries)
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


@pytest.mark.parametrize("command", ["--offload", "27b --offload", "--offload --gpu 8GB"])
def test_what_needs_a_model_and_a_card(command: str) -> None:
    assert "needs a model" in run("estimate-vram", *command.split(), code=2).stderr


def test_no_plot_of_cards_that_share_a_model(tmp_path: Path) -> None:
    command = ["--gpu", "4090 + 3060", "--plot", str(tmp_path / "a.svg")]
    assert "--plot" in run("estimate-vram", *command, code=2).stderr and not list(tmp_path.iterdir())


ASKED = ("--gpu", "12GB + 8GB", "--gpu", "10GB", "--gpu", "2x8GB", "--quant", "q4_0,q8_0", "--context", "8192")


def test_what_to_run_on_unequal_cards_together() -> None:
    rows: Any = answer(*ASKED)["ranking"]
    pair = [row for row in rows if row["gpus"][0]["name"] == "12 GB + 8 GB"]
    assert [row["rank"] for row in pair] == list(range(1, len(pair) + 1))
    assert {row["gpus"][0]["name"] for row in rows} == {"12 GB + 8 GB", "10 GB", "2x 8 GB"}
    for row in pair:
        devices = row["placement"]["devices"]
        assert [device["name"] for device in devices] == ["12 GB", "8 GB"]
        assert row["gpus"][0]["room"] == min(device["room"] for device in devices) >= 0
        assert row["command"] == row["placement"]["command"] and " -ts " in row["command"]
        assert row["gpus"][0]["max_context"] >= 8192
    assert {"gemma-4-26B-A4B"} < {row["model"] for row in pair}
    assert all(row["placement"] is None for row in rows if row not in pair)


def test_unequal_cards_in_an_engine_that_does_not_divide_models_so() -> None:
    command = ("--gpu", "12GB + 8GB", "--engine", "ollama", "--quant", "q4_0")
    assert "unequal cards" in run("estimate-vram", *command, code=2).stderr


@pytest.mark.parametrize("command", ["--gpu 24GB --quant q4_0", "1b --quant q4_0 --gpu 24GB --offload"])
def test_types_of_the_cache_that_cost_quality_are_told(command: str) -> None:
    said = run("estimate-vram", *command.split(), "--kv-type", "q4_0").stderr
    assert said.count("a q4_0 cache costs quality") == 1
    assert "costs quality" not in run("estimate-vram", *command.split(), "--kv-type", "q8_0").stderr


def test_main_memory_that_is_too_small_is_told() -> None:
    options = ("27b", "--quant", "q4_0", "--offload", "--gpu", "8GB")
    host = answer(*options)["estimates"][0]["placement"]["host"]
    for ram, fits in ((host, True), (host - 1, False)):
        placement = answer(*options, "--ram", f"{ram}")["estimates"][0]["placement"]
        assert (placement["ram"], placement["fits"]) == (ram, fits)
    assert "more than --ram" in run("estimate-vram", *options, "--ram", "2G").stdout
    assert run("estimate-vram", *options, "--ram", "2G", "-q").stdout == "\n"
    assert "--ram is for --offload" in run("estimate-vram", "27b", "--gpu", "8GB", "--ram", "2G", code=2).stderr
