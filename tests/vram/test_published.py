"""Figures others have published: Google's tables by Google's convention, and sizes of real files to the byte."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from gemmaq.models.families import require_size as require
from gemmaq.models.gemma3.published import MEMORY
from gemmaq.models.gemma4.published import MEMORY as GEMMA_4
from gemmaq.vram import published
from inprocess import run

GOOGLE = {
    "gemma-3-1b": ((2.0, 0.5, 0.7, 1.0), (2.9, 1.4, 1.6, 1.9)),
    "gemma-3-4b": ((8.0, 2.6, 2.9, 4.4), (12.7, 7.3, 7.6, 9.1)),
    "gemma-3-12b": ((24.0, 6.6, 7.1, 12.4), (38.9, 21.5, 22.0, 27.3)),
    "gemma-3-27b": ((54.0, 14.1, 15.3, 27.4), (72.7, 32.8, 34.0, 46.1)),
}
"""Gemma 3 Technical Report, table 3: weights, and weights with the cache at 32,768 tokens."""
COLUMNS = ("bf16", "int4", "int4_blocks_32", "sfp8")

LOAD = {
    "gemma-3-270m": (None, 0.4, 0.297, 0.24, None),
    "gemma-3-1b": (4, 1.5, 1.1, 0.892, 0.861),
    "gemma-3-4b": (16, 6.4, 4.4, 3.4, 3.2),
    "gemma-3-12b": (48, 20, 12.2, 8.7, 8.2),
    "gemma-3-27b": (108, 46.4, 29.1, 21, 19.9),
}
"""ai.google.dev, memory to load Gemma 3: FP32, BF16, SFP8, Q4_0, INT4."""

HEADLINES = {"27b": "54.0 → 14.1", "12b": "24.0 → 6.6", "4b": "8.0 → 2.6", "1b": "2.0 → 0.5"}
"""The QAT release: BF16 and int4."""

TODAY = {
    "gemma-4-E2B": (11.4, 5.7, 2.9, 1.1, 0.84),
    "gemma-4-E4B": (17.9, 8.9, 4.5, 2.5, 2.2),
    "gemma-4-12B": (26.7, 13.4, 6.7, None, None),
    "gemma-4-26B-A4B": (57.7, 28.8, 14.4, None, None),
    "gemma-4-31B": (69.9, 34.9, 17.5, None, None),
}
"""ai.google.dev, memory to load Gemma 4, read in November 2026: BF16, SFP8, Q4_0, mobile, mobile text-only."""

OFFICIAL = {
    "E2B": (3.35, 3_333_700_000),
    "E4B": (5.154939136, 5_139_140_000),
    "gemma-4-12B": (6.98, 6_960_050_000),
    "26b": (14.439361440, 14_423_540_000),
    "31b": (17.651001568, 17_635_170_000),
}
"""Google's Q4_0 QAT files of Gemma 4: GB as the pages show them, and bytes of their tensors to four places."""

GGML_ORG = {
    "270m": 241_410_624,
    "1b": 720_425_600,
    "4b": 2_526_080_992,
    "12b": 7_131_017_792,
    "27b": 15_908_791_488,
}
"""Bytes of ggml-org's Q4_0 QAT files, their embedding Q8_0."""
GOOGLE_GB = {"1b": "1.00", "4b": "3.16", "12b": "8.07", "27b": "17.2"}
"""Google's own Q4_0 QAT files, their embedding F16, in GB as the pages show them."""
GOOGLE_1B = 1_003_541_152
METADATA = range(6_526_000, 6_565_000)
"""Bytes of the tokenizer and the list of tensors in such a file."""
MMPROJ = {"4b": 851_226_048, "12b": 854_175_168, "27b": 857_714_112}
"""Bytes of an F16 mmproj file's tensors, published as 851, 854 and 858 MB."""


def estimates(*arguments: object) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = json.loads(run("estimate-vram", *arguments, "--json").stdout)["estimates"]
    return result


@pytest.mark.parametrize("name", GOOGLE)
@pytest.mark.parametrize("column", ["bf16", "int4", "sfp8"])
def test_a_computed_cell_of_googles_table(name: str, column: str) -> None:
    """Twelve cells in all, and of the formula itself, not of a rounded constant."""
    cell = GOOGLE[name][0][COLUMNS.index(column)]
    assert MEMORY.report is not None and column in MEMORY.report.computed
    assert round(published.weights_gb(require(name), MEMORY.report.widths[column]), 1) == cell


def test_published_as_json() -> None:
    answer = json.loads(run("estimate-vram", "--published", "--json").stdout)
    assert list(answer) == ["schema", "rows", "quoted"] and answer["schema"] == "gemmaq.published-vram/1"
    keys = ("model", "weights_gb", "weights_kv_32k_gb", "computed", "exact_gb")
    assert {tuple(row) for row in answer["rows"]} == {keys}
    for row, (name, cells) in zip(answer["rows"], GOOGLE.items(), strict=True):
        assert (row["model"], row["computed"]) == (name, ["bf16", "int4", "sfp8"])
        assert tuple(tuple(row[part].items()) for part in ("weights_gb", "weights_kv_32k_gb")) == tuple(
            tuple(zip(COLUMNS, part, strict=True)) for part in cells
        )
    load = answer["quoted"]["documentation_load_gb"]
    columns = {row["model"]: tuple(row)[1:] for row in load}
    assert {row.pop("model"): tuple(row.values()) for row in load} == LOAD | {m: gb[:3] for m, gb in TODAY.items()}
    assert {columns[name] for name in LOAD} == {("fp32", "bf16", "sfp8", "q4_0", "int4")}
    assert {columns[name] for name in TODAY} == {("bf16", "sfp8", "q4_0")}
    assert answer["quoted"]["mobile_int4_gb"] == {"gemma-3-1b": 0.529}


def test_tables_as_json_have_their_dates() -> None:
    tables = json.loads(run("estimate-vram", "--published", "--json").stdout)["quoted"]["tables"]
    assert {table["publisher"] for table in tables} == {"Google"}
    today, june = (table for table in tables if "gemma-4-E2B" in {row["model"] for row in table["rows"]})
    assert (today["date"], june["date"]) == ("read November 2026", "at the QAT announcement, 5 June 2026")
    assert {row["model"]: tuple(row.values())[1:] for row in today["rows"]} == TODAY
    assert june["rows"][0] == {"model": "gemma-4-E2B", "bf16": 9.6, "q4_0": 3.2}
    assert june["rows"][-1]["q4_0"] == "17-18"


def test_exact_figures_next_to_published_ones() -> None:
    """The parameters that are really there, the vision side in BF16."""
    rows = json.loads(run("estimate-vram", "--published", "--json").stdout)["rows"]
    assert all(list(row["exact_gb"]) == list(COLUMNS) for row in rows)
    exact = {column: [row["exact_gb"][column] for row in rows] for column in COLUMNS}
    assert exact["bf16"] == [2.0, 8.6, 24.375, 54.865]
    assert exact["int4"] == [0.5, 2.78, 6.726, 14.351]
    assert [round(gb, 2) for gb in exact["sfp8"]] == [1.0, 4.72, 12.61, 27.86]
    assert [round(gb, 2) for gb in exact["int4_blocks_32"]] == [0.56, 3.02, 7.46, 16.04]


def test_published_as_a_table() -> None:
    shown = run("estimate-vram", "--published").stdout
    for name, (weights, cached) in GOOGLE.items():
        lines = [line.replace("(", " ").replace(")", " ").split() for line in shown.splitlines() if name in line]
        assert len(lines) == 3
        assert [float(cell) for cell in lines[0][1::2]] == list(weights)
        assert [float(cell) for cell in lines[1][1:5]] == list(cached)
        assert [float(cell) for cell in lines[2][1:6]] == list(LOAD[name])
    for name, today in TODAY.items():
        lines = [line.split() for line in shown.splitlines() if line.split()[:1] == [name]]
        assert [float(cell) for cell in lines[0][1:-1]] == [gb for gb in today if gb is not None]
        assert float(lines[0][-1]) == float(lines[1][-1]) == round(2 * require(name).config.parameters / 1e9, 2)
    assert "read November 2026" in shown and "5 June 2026" in shown
    mobile = next(line for line in shown.splitlines() if "gemma-3-1b" in line and "0.892" in line)
    assert mobile.split()[-1] == "0.529"
    assert "gemma-3-270m" in shown and "0.297" in shown


def test_the_table_of_all_sizes_shows_the_published_headline() -> None:
    lines = run("estimate-vram", "--all").stdout.splitlines()
    assert any("BF16 → 4 bit" in line for line in lines)
    headlines = {f"gemma-3-{label}": headline for label, headline in HEADLINES.items()}
    headlines |= {name: f"{gb[0]} → {gb[2]}" for name, gb in TODAY.items()}
    for name, headline in headlines.items():
        (row,) = [line for line in lines if line.split()[:2] == [name, "q4_0"]]
        assert row.split()[-3:] == headline.split()
    (smallest,) = [line for line in lines if line.split()[:2] == ["gemma-3-270m", "q4_0"]]
    assert "→" not in smallest


def test_a_size_of_which_nothing_is_stated_has_no_headline() -> None:
    """Nor one of which only words are, as there is no number for it."""
    size = require("gemma-4-12B")
    assert published.headline(size) == "26.7 → 6.7"
    table = replace(GEMMA_4.tables[1], rows={"gemma-4-12B": ("about 24", 7)})
    assert published.headline(size, replace(GEMMA_4, tables=(table,))) is None
    assert published.headline(size, replace(GEMMA_4, tables=(replace(table, rows={}),))) is None


@pytest.mark.parametrize("label", OFFICIAL)
def test_googles_own_files_of_gemma_4(label: str) -> None:
    """Tables in Q6_K; about 15.8 MB of tokenizer and list of tensors come on top."""
    (entry,) = estimates(label, "--quant", "q4_0", "--embedding", "q6_k")
    gigabytes, tensors = OFFICIAL[label]
    table = require(label).config.layer_embedding * require(label).config.num_hidden_layers * 262144 * 210 // 256
    weights = entry["bytes"]["weights"] + table
    assert weights == pytest.approx(tensors, abs=60_000)
    assert round(weights / 1e9 + 0.0158, 2) == round(gigabytes, 2)
    assert entry["host"] > table


@pytest.mark.parametrize("label", GGML_ORG)
def test_files_with_a_q8_0_embedding(label: str) -> None:
    (entry,) = estimates(label, "--quant", "q4_0", "--embedding", "q8_0")
    assert (entry["quant"], entry["embedding"]) == ("q4_0", "q8_0")
    assert GGML_ORG[label] - entry["bytes"]["weights"] in METADATA


def test_googles_own_files() -> None:
    entries = estimates(*GOOGLE_GB, "--quant", "q4_0", "--embedding", "f16")
    sizes = {label: entry["bytes"]["weights"] for label, entry in zip(GOOGLE_GB, entries, strict=True)}
    assert GOOGLE_1B - sizes["1b"] in METADATA
    for label, shown in GOOGLE_GB.items():
        places = len(shown.partition(".")[2])
        assert f"{(sizes[label] + METADATA.start) / 1e9:.{places}f}" == shown


def test_a_file_with_a_q6_k_embedding() -> None:
    """stduhpf's small 27B, 15.6 GB."""
    (entry,) = estimates("27b", "--quant", "q4_0", "--embedding", "q6_k")
    assert f"{(entry['bytes']['weights'] + METADATA.start) / 1e9:.1f}" == "15.6"


@pytest.mark.parametrize("label", MMPROJ)
def test_vision_sides(label: str) -> None:
    entries = estimates(label, "--vision")
    assert [entry["vision_weights"] for entry in entries] == [MMPROJ[label]] * 2
