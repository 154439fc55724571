"""`gemmaq estimate-vram` on the command line: JSON, options and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gemmaq import vram
from gemmaq.models.families import TODAY, short_names, sizes
from inprocess import run
from memory import MIB, estimates

PARTS = ["weights", "vision", "draft", "kv_global", "kv_local", "compute", "overhead", "total"]
NAMES = [size.name for size in TODAY.sizes]
EVERY = [size.name for size in sizes()]


def test_estimates_as_json() -> None:
    command = "27b 4b --quant q4_0 --quant bf16 --context 8192 --context 131072 --kv-type q8_0 --gpu 24GB --gpu 2x3090"
    entries = estimates(*command.split())
    keys = {
        "model": str,
        "quant": str,
        "embedding": str,
        "engine": str,
        "context": int,
        "kv_type": str,
        "kv_cost": dict | None,
        "parallel": int,
        "bytes": dict,
        "vision_weights": int,
        "vision_compute": int,
        "draft": str | None,
        "draft_weights": int,
        "draft_compute": int,
        "host": int,
        "gpus": list,
        "notes": list,
    }
    card = {
        "name": str,
        "bytes": int,
        "usable": int,
        "fits": bool,
        "room": int,
        "max_context": int,
        "max_quant": str | None,
    }
    for entry in entries:
        assert list(entry) == list(keys) and list(entry["bytes"]) == PARTS
        assert all(isinstance(entry[key], kind) for key, kind in keys.items())
        assert all(type(part) is int for part in entry["bytes"].values())
        assert entry["bytes"]["total"] == sum(entry["bytes"][part] for part in PARTS[:-1])
        assert entry["bytes"]["vision"] == entry["vision_weights"] + entry["vision_compute"]
        assert [gpu["name"] for gpu in entry["gpus"]] == ["24 GB", "2x RTX 3090"]
        for gpu in entry["gpus"]:
            assert list(gpu) == list(card) and all(isinstance(gpu[key], kind) for key, kind in card.items())
        assert all(isinstance(note, str) and note for note in entry["notes"])
    entry_of = {(e["model"], e["quant"], e["context"]): e for e in entries}
    assert len(entry_of) == len(entries) == 8
    large = entry_of["gemma-3-27b", "q4_0", 131072]
    assert (large["engine"], large["kv_type"], large["parallel"]) == ("llama.cpp", "q8_0", 1)
    expected = {"kv_global": 5440 * MIB, "kv_local": int(331.5 * MIB)}
    assert {part: large["bytes"][part] for part in expected} == expected
    assert (large["bytes"]["weights"], large["embedding"]) == (15_560_833_664, "q6_k")
    assert entry_of["gemma-3-4b", "bf16", 8192]["bytes"]["weights"] == 2 * 3_880_263_168 + 2 * 368_128


def test_no_model_means_the_sizes_of_today_with_no_file_at_hand(gemmaq, tmp_path: Path) -> None:
    answer = json.loads(gemmaq("estimate-vram", "--json", cwd=tmp_path).stdout)
    assert list(dict.fromkeys(e["model"] for e in answer["estimates"])) == NAMES
    assert {e["quant"] for e in answer["estimates"]} == {"bf16", "q4_0"}
    done = gemmaq("estimate-vram", "-q", cwd=tmp_path)
    assert [int(line) for line in done.stdout.split()] == [e["bytes"]["total"] for e in answer["estimates"]]
    assert done.stderr == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("engine", vram.NAMES)
def test_every_engine_answers_for_every_size(engine: str) -> None:
    entries = estimates("--engine", engine, "--all")
    assert list(dict.fromkeys(e["model"] for e in entries)) == EVERY
    assert {e["engine"] for e in entries} == {engine} and all(e["notes"] for e in entries)
    shown = run("estimate-vram", "--engine", engine, "--all").stdout
    title, *lines = shown.splitlines()
    assert vram.find(engine).title in title and "8,192 tokens" in title
    totals = {(line.split()[0], line.split()[1]): line for line in lines if len(line.split()) > 5}
    for entry in entries:
        line = totals[short_names(EVERY)[entry["model"]], entry["quant"]]
        assert f"{entry['bytes']['total'] / 1e9:.2f}" in line.split()


@pytest.mark.parametrize("engine", vram.NAMES)
def test_totals_of_models_that_are_named_are_in_gib(engine: str) -> None:
    (entry,) = estimates("E4B", "--quant", "q4_0", "--engine", engine)
    shown = run("estimate-vram", "E4B", "--quant", "q4_0", "--engine", engine).stdout
    assert f"{entry['bytes']['total'] / (1 << 30):.2f}" in shown.split()


def test_a_label_that_two_families_share_is_explained() -> None:
    done = run("estimate-vram", "12b", "--quant", "q4_0")
    assert "12b means gemma-3-12b" in done.stderr and "gemma-4-12B" in done.stderr
    done = run("estimate-vram", "E2B", "--quant", "q4_0")
    assert "E2B means gemma-4-E2B" in done.stderr and "gemma-3n-E2B" in done.stderr
    for name in ("gemma-3-12b", "gemma-4-12B", "27b", "31B"):
        assert "means" not in run("estimate-vram", name, "--quant", "q4_0").stderr


@pytest.mark.parametrize("name", ["27b", "27B", "gemma-3-27b", "gemma3:27b", "google/gemma-3-27b"])
def test_names_of_sizes(name: str) -> None:
    assert {e["model"] for e in estimates(name)} == {"gemma-3-27b"}


def test_types_of_k_and_v() -> None:
    (both,) = estimates("27b", "--quant", "q4_0", "--kv-type", "q8_0")
    (one,) = estimates("27b", "--quant", "q4_0", "--kv-type", "Q8_0,f16")
    (none,) = estimates("27b", "--quant", "q4_0")
    assert (both["kv_type"], one["kv_type"], none["kv_type"]) == ("q8_0", "q8_0,f16", "f16")
    for part in ("kv_global", "kv_local"):
        assert one["bytes"][part] == (both["bytes"][part] + none["bytes"][part]) / 2
    assert "q8_0,f16 cache" in run("estimate-vram", "27b", "--kv-type", "q8_0,f16").stdout


def test_types_of_the_cache_that_cost_quality_are_warned_of() -> None:
    def noted(*options: str) -> tuple[object, bool]:
        (entry,) = estimates("27b", "--quant", "q4_0", *options)
        return entry["kv_cost"], any("cache costs quality" in note for note in entry["notes"])

    for engine in ("llama.cpp", "ollama", "lmstudio", "libllama"):
        cost, warned = noted("--kv-type", "q4_0", "--engine", engine)
        assert isinstance(cost, dict) and cost["measured_on"] == "gemma-3-270m" and cost["mean_kl"] > 0.01
        assert warned
    small, warned = noted("--kv-type", "q8_0")
    assert isinstance(small, dict) and small["mean_kl"] < 0.01 and not warned
    assert noted() == (None, False)
    assert noted("--engine", "vllm", "--kv-type", "fp8") == (None, False)
    said = run("estimate-vram", "27b", "--kv-type", "q4_0").stderr.replace("\n", " ")
    assert "gemmaq evaluate MODEL --kv-type q4_0" in said


def test_slots() -> None:
    def kv(*options: object) -> tuple[int, int, int]:
        (entry,) = estimates("27b", "--quant", "q4_0", "--context", 131072, *options)
        return entry["parallel"], entry["bytes"]["kv_global"] // MIB, entry["bytes"]["kv_local"] // MIB

    assert kv() == (1, 10240, 624)
    assert kv("--parallel", 4) == kv("--parallel", 4, "--kv-unified") == (4, 10240, 1872)
    assert kv("--parallel", 4, "--no-kv-unified") == (4, 10240, 2496)
    assert kv("--swa-full") == (1, 10240, 53248)
    assert kv("--no-swa-full") == kv()
    assert kv("--engine", "ollama", "--parallel", 4) == (4, 4 * 10240, 4 * 624)


def test_the_note_on_slots_goes_where_they_were_chosen() -> None:
    assert "--parallel 4" in run("estimate-vram", "27b").stderr
    assert "--parallel 4" not in run("estimate-vram", "27b", "--parallel", 4).stderr


def test_lists_of_types_make_every_pair() -> None:
    entries = estimates("27b", *["--quant", "q4_0", "--quant", "q8_0", "--embedding", "f16", "--embedding", "q8_0"])
    rows = [(e["quant"], e["embedding"], e["bytes"]["weights"]) for e in entries]
    assert [names[:2] for names in rows] == [("q4_0", "f16"), ("q4_0", "q8_0"), ("q8_0", "f16"), ("q8_0", "q8_0")]
    assert rows[0][2] == 17_223_756_800 and rows[1][2] == 15_902_228_480
    assert rows[2][2] - rows[3][2] == rows[0][2] - rows[1][2]
    shown = run("estimate-vram", "27b", *["--quant", "q4_0", "--embedding", "f16", "--embedding", "q8_0"]).stdout
    assert "embd" in shown and "embd" not in run("estimate-vram", "27b").stdout


def test_who_loads_vision_by_default() -> None:
    def with_towers(*options: object) -> set[bool]:
        return {entry["bytes"]["vision"] > 0 for entry in estimates("4b", *options)}

    assert with_towers() == {False} and with_towers("--vision") == {True}
    for engine in ("ollama", "lmstudio", "vllm"):
        assert with_towers("--engine", engine) == {True}
        assert with_towers("--engine", engine, "--no-vision") == {False}
    done = run("estimate-vram", "4b")
    assert "--vision adds" in done.stderr and "vision" not in done.stdout
    done = run("estimate-vram", "4b", "--vision")
    assert "--vision adds" not in done.stderr and "vision" in done.stdout
    assert "--vision adds" not in run("estimate-vram", "1b").stderr


def test_vision_for_all_sizes_means_those_that_have_it() -> None:
    entries = estimates("--all", "--vision", "--quant", "q4_0")
    vision = {entry["model"]: entry["vision_weights"] for entry in entries if entry["vision_weights"]}
    older = {"gemma-3-4b": 851_226_048, "gemma-3-12b": 854_175_168, "gemma-3-27b": 857_714_112}
    small = {"gemma-4-E2B": 985_543_424, "gemma-4-E4B": 990_262_016, "gemma-4-12B": 122_029_056}
    assert vision == older | small | {"gemma-4-26B-A4B": 1_193_035_968, "gemma-4-31B": 1_198_934_208}
    assert len(entries) == len(EVERY)


def test_sizes_whose_context_ends_earlier_are_left_out() -> None:
    done = run("estimate-vram", "--context", 262144, "--json")
    assert {e["model"] for e in json.loads(done.stdout)["estimates"]} == set(NAMES[2:])
    assert done.stderr.count("left out") == 2 and "gemma-4-E4B" in done.stderr and "131072" in done.stderr
    assert "contexts: 262145" in run("estimate-vram", "--context", 262145, code=2).stderr


def test_a_model_that_turns_texts_into_vectors() -> None:
    """It has no cache, and its context is shorter than the default."""
    (entry,) = estimates("embeddinggemma-300m", "--quant", "q8_0")
    assert entry["context"] == 2048 and entry["bytes"]["kv_global"] == entry["bytes"]["kv_local"] == 0
    assert round(entry["bytes"]["compute"] / MIB, 2) == 12.26
    assert any("--ubatch 2048" in note for note in entry["notes"])


REFUSED = {
    "embeddinggemma-300m --engine mlx": ("mlx-lm", "bf16 606 MB", "--engine llama.cpp"),
    "27b --engine olama": ("olama", "did you mean ollama?"),
    "27b --engine gguf": ("gguf", "known: llama.cpp"),
    "28b": ("28b", "gemma-3-27b"),
    "27b --quant q9": ("q9", "q4_0"),
    "27b --embedding q9": ("q9", "q4_0"),
    "27b --gpu 4091": ("4091", "RTX 4090", "24GB"),
    "27b --gpu 3080": ("3080", "RTX 3080 10GB", "RTX 3080 12GB"),
    "27b --gpu nonsense": ("nonsense", "24GB", "--gpu list"),
    "27b --gpu 0x4090": ("0x4090",),
    "27b --kv-type q9": ("q9", "q8_0"),
    "27b --kv-type f16,q9": ("q9", "q8_0"),
    "27b --kv-type ,": ("''",),
    "27b --context 0": ("0 tokens", "131072"),
    "27b --context 131073": ("131073", "131072"),
    "1b --context 32769": ("gemma-3-1b", "32768"),
    "1b --vision": ("gemma-3-1b", "no towers", "leave out --vision"),
    "270m --vision --engine ollama": ("gemma-3-270m", "no towers"),
    "27b --kv-type q8_0 --no-flash-attn": ("flash", "q8_0,f16"),
    "27b --kv-type f16,q4_0 --no-flash-attn": ("q4_0", "flash"),
    "27b --engine mlx --kv-type q8_0": ("mlx-lm", "q8_0", "bf16"),
    "27b --engine vllm --kv-type q8_0": ("vLLM", "q8_0", "fp8"),
    "27b --engine ollama --swa-full": ("Ollama", "swa-full"),
    "27b --engine mlx --swa-full": ("mlx-lm", "swa-full"),
    "27b --engine vllm --no-kv-unified": ("vLLM", "unified"),
    "27b --engine vllm --no-flash-attn": ("vLLM", "flash"),
    "27b --engine ollama --kv-type q8_0,f16": ("Ollama", "one type"),
    "27b --parallel 0": ("--parallel",),
    "27b --ubatch 0": ("--ubatch",),
    "27b --parallel 257": ("256", "257"),
    "27b --published": ("--published",),
    "--published --quant q4_0": ("--published",),
    "--published --all": ("--published",),
    "27b --all": ("--all", "every published size"),
    "gemma-3n-E2B --vision": ("gemma-3n-E2B", "no towers"),
    "gemma-4-12B-it-assistant": ("drafter", "beside its target", "--draft gemma-4-12B-it-assistant"),
    "E2B --draft nonsense": ("nonsense", "gemma-4-E2B-it-assistant"),
    "E2B --draft E2B-it-assistant --engine mlx": ("memory of a drafter in mlx-lm", "--engine llama.cpp"),
    "--draft E2B-it-assistant": ("--draft", "name the model"),
    "--published --draft E2B-it-assistant": ("--published",),
    "--published --gpu 4090": ("--published",),
    "--published --plot a.svg": ("--published",),
}


@pytest.mark.parametrize("command", REFUSED)
def test_refusals_say_why(command: str) -> None:
    message = run("estimate-vram", *command.split(), code=2).stderr
    for word in REFUSED[command]:
        assert word in message, message


@pytest.mark.parametrize("command", ["27b --context many", "27b --nonsense", "27b --context"])
def test_a_command_line_that_is_wrong(gemmaq, command: str) -> None:
    assert command.split()[1] in gemmaq("estimate-vram", *command.split(), code=2).stderr


HEAVY = {"numba", "llvmlite", "torch", "transformers", "huggingface_hub", "matplotlib", "mlx"}
LIGHT = {
    "--help": ["--help"],
    "estimate-vram": [
        "estimate-vram --help",
        "estimate-vram --published",
        "estimate-vram",
        "estimate-vram 27b --quant q4_k_m --embedding f16 --gpu 4090 --gpu auto --json",
        *(f"estimate-vram 1b --engine {name} -q" for name in vram.NAMES),
    ],
}


@pytest.mark.parametrize("what", LIGHT)
def test_heavy_libraries_stay_out(what: str) -> None:
    """Numba and torch take a second or more to import."""
    script = (
        "import sys\nfrom gemmaq.cli.app import main\n"
        "for command in sys.argv[1:]:\n"
        "    sys.argv = ['gemmaq', *command.split()]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert not end.code, (command, end.code)\n"
        "print('\\n' + ' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", script, *LIGHT[what]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "gemmaq" in loaded and "typer" in loaded
    assert not loaded & HEAVY
    if what == "--help":
        assert not loaded & {"numpy", "gguf"}


def test_types_are_listed_as_those_of_convert_are() -> None:
    several = run("estimate-vram", "270m", "--quant", "q4_0,q8_0", "-q").stdout
    assert several == run("estimate-vram", "270m", "--quant", "q4_0", "--quant", "q8_0", "-q").stdout
    assert "--quant has Q4_0 twice" in run("estimate-vram", "270m", "--quant", "q4_0,Q4_0", code=2).stderr
    assert "has an empty value" in run("estimate-vram", "270m", "--quant", ",", code=2).stderr
