"""Memory: llama.cpp's own figures, Google's published table, and what the command prints."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gemmaq.errors import UsageError
from gemmaq.gemma.sizes import SIZES, require
from gemmaq.vram import published
from gemmaq.vram.llama_cpp import Estimate, estimate

MIB = 1 << 20
K = 1024

KV_MIB = {
    ("270m", "f16"): ((2 * K, 6, 15), (8 * K, 24, 15), (32 * K, 96, 15)),
    ("270m", "q8_0"): ((2 * K, 3.19, 7.97), (8 * K, 12.75, 7.97), (32 * K, 51, 7.97)),
    ("270m", "q4_0"): ((2 * K, 1.69, 4.22), (8 * K, 6.75, 4.22), (32 * K, 27, 4.22)),
    ("1b", "f16"): ((4 * K, 16, 22), (8 * K, 32, 22), (32 * K, 128, 22)),
    ("1b", "q8_0"): ((32 * K, 68, 11.69),),
    ("1b", "q4_0"): ((32 * K, 36, 6.19),),
    ("4b", "f16"): ((8 * K, 160, 174), (32 * K, 640, 174), (128 * K, 2560, 174)),
    ("4b", "q8_0"): ((128 * K, 1360, 92.44),),
    ("4b", "q4_0"): ((128 * K, 720, 48.94),),
    ("12b", "f16"): ((8 * K, 512, 480), (32 * K, 2048, 480), (128 * K, 8192, 480)),
    ("12b", "q8_0"): ((128 * K, 4352, 255),),
    ("12b", "q4_0"): ((128 * K, 2304, 135),),
    ("27b", "f16"): ((8 * K, 640, 624), (32 * K, 2560, 624), (128 * K, 10240, 624)),
    ("27b", "q8_0"): ((128 * K, 5440, 331.5),),
    ("27b", "q4_0"): ((128 * K, 2880, 175.5),),
}
"""Model and type of the cache -> context, MiB of the global and of the local layers, from llama.cpp's log."""

COMPUTE_MIB = {
    "270m": ((2 * K, 20.77), (8 * K, 26.77), (32 * K, 50.77)),
    "1b": ((2 * K, 52.27), (8 * K, 58.27), (32 * K, 82.27)),
    "4b": ((8 * K, 88.52), (32 * K, 112.52), (128 * K, 208.52)),
    "12b": ((8 * K, 130), (32 * K, 154), (128 * K, 250)),
    "27b": ((8 * K, 175), (32 * K, 199), (128 * K, 295)),
}
"""Model -> context and MiB of the compute buffer of llama.cpp's server with flash attention."""

GOOGLE = {
    "gemma-3-1b": ((2.0, 0.5, 0.7, 1.0), (2.9, 1.4, 1.6, 1.9)),
    "gemma-3-4b": ((8.0, 2.6, 2.9, 4.4), (12.7, 7.3, 7.6, 9.1)),
    "gemma-3-12b": ((24.0, 6.6, 7.1, 12.4), (38.9, 21.5, 22.0, 27.3)),
    "gemma-3-27b": ((54.0, 14.1, 15.3, 27.4), (72.7, 32.8, 34.0, 46.1)),
}
"""Gemma 3 Technical Report, table 3: weights, and weights with the cache at 32,768 tokens."""
COLUMNS = ("bf16", "int4", "int4_blocks_32", "sfp8")

PARTS = ["weights", "vision", "kv_global", "kv_local", "compute", "overhead", "total"]


def at(model: str, context: int, kv_type: str = "f16") -> Estimate:
    return estimate(require(model).config, 0, context, kv_type)


@pytest.mark.parametrize(("model", "kv_type"), KV_MIB)
def test_cache_is_what_llama_cpp_allocates(model, kv_type):
    for context, everything, window in KV_MIB[model, kv_type]:
        got = at(model, context, kv_type)
        assert got.kv_global / MIB == pytest.approx(everything, abs=0.00501)
        assert got.kv_local / MIB == pytest.approx(window, abs=0.00501)


@pytest.mark.parametrize("model", COMPUTE_MIB)
def test_compute_buffer_is_what_llama_cpp_allocates(model):
    for context, expected in COMPUTE_MIB[model]:
        assert at(model, context).compute / MIB == pytest.approx(expected, abs=0.1)


def test_the_window_is_no_larger_than_the_context():
    small = at("4b", 1000)
    assert (small.kv_global, small.kv_local) == (5 * 4096 * 1024, 29 * 4096 * 1024)


@pytest.mark.parametrize(("context", "kv_type"), ((0, "f16"), (32769, "f16"), (1024, "q6_k"), (1024, "")))
def test_what_is_impossible_is_refused(context, kv_type):
    with pytest.raises(UsageError):
        at("270m", context, kv_type)


@pytest.mark.parametrize("name", GOOGLE)
@pytest.mark.parametrize("column", published.COMPUTED)
def test_a_computed_cell_of_googles_table(name, column):
    """Twelve cells in all, and of the formula itself, not of a rounded constant."""
    cell = GOOGLE[name][0][COLUMNS.index(column)]
    assert round(published.weights_gb(require(name), published.COMPUTED[column]), 1) == cell


def test_published_prints_googles_table(gemmaq):
    answer = json.loads(gemmaq("estimate-vram", "--published", "--json").stdout)
    assert list(answer) == ["schema", "rows"] and answer["schema"] == "gemmaq.published-vram/1"
    assert {tuple(row) for row in answer["rows"]} == {("model", "weights_gb", "weights_kv_32k_gb", "computed")}
    for row, (name, cells) in zip(answer["rows"], GOOGLE.items(), strict=True):
        assert (row["model"], row["computed"]) == (name, ["bf16", "int4", "sfp8"])
        assert tuple(tuple(row[part].items()) for part in ("weights_gb", "weights_kv_32k_gb")) == tuple(
            tuple(zip(COLUMNS, part, strict=True)) for part in cells
        )


def test_estimates_as_json(gemmaq):
    command = "estimate-vram 27b 4b --quant q4_0 --quant bf16 --context 8192 --context 131072 --kv-type q8_0 --json"
    answer = json.loads(gemmaq(*command.split()).stdout)
    assert list(answer) == ["schema", "estimates"] and answer["schema"] == "gemmaq.estimate-vram/1"
    entries = answer["estimates"]
    keys = ["model", "quant", "engine", "context", "kv_type", "bytes", "gpus"]
    for entry in entries:
        assert list(entry) == keys and list(entry["bytes"]) == PARTS and isinstance(entry["gpus"], list)
        assert all(type(part) is int for part in entry["bytes"].values())
        assert entry["bytes"]["total"] == sum(entry["bytes"][part] for part in PARTS[:-1])
    asked = {(e["model"], e["quant"], e["context"]): e for e in entries}
    assert len(asked) == len(entries) == 8
    large = asked["gemma-3-27b", "q4_0", 131072]
    assert (large["engine"], large["kv_type"]) == ("llama.cpp", "q8_0")
    expected = {"kv_global": 5440 * MIB, "kv_local": int(331.5 * MIB), "compute": 295 * MIB}
    assert {part: large["bytes"][part] for part in expected} == pytest.approx(expected, abs=0.1 * MIB)
    assert large["bytes"]["weights"] == 15_560_833_664
    assert asked["gemma-3-4b", "bf16", 8192]["bytes"]["weights"] == 2 * 3_880_263_168 + 2 * 368_128


def test_no_model_means_all_sizes_with_no_file_at_hand(gemmaq, tmp_path):
    answer = json.loads(gemmaq("estimate-vram", "--json", cwd=tmp_path).stdout)
    assert list(dict.fromkeys(e["model"] for e in answer["estimates"])) == [size.name for size in SIZES]
    quiet = gemmaq("estimate-vram", "-q", cwd=tmp_path).stdout.split()
    assert [int(line) for line in quiet] == [e["bytes"]["total"] for e in answer["estimates"]]


def test_weights_of_a_file_are_those_it_holds(gemmaq, sample_q4_0):
    (entry,) = json.loads(gemmaq("estimate-vram", sample_q4_0, "--json").stdout)["estimates"]
    assert entry["bytes"]["weights"] == 234_883_584
    assert entry["bytes"]["kv_global"] == 24 * MIB


@pytest.mark.parametrize("command", (["--help"], ["estimate-vram", "--help"], ["estimate-vram", "--published"]))
def test_heavy_libraries_stay_out(command):
    """Numba and torch take a second or more to import."""
    script = (
        "import sys\nfrom gemmaq.cli.app import main\nsys.argv = ['gemmaq', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('\\n' + ' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "gemmaq" in loaded and "typer" in loaded
    assert not loaded & {"numba", "llvmlite", "torch", "transformers", "huggingface_hub"}
    if command == ["--help"]:
        assert not loaded & {"numpy", "gguf"}
