"""The card of a folder with several types: a row a file, and what fits which card."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from gemmaq.artifact import card, card_models, description, provenance
from gemmaq.artifact.description import Model
from gemmaq.artifact.footprint import UNKNOWN, Footprint, Memory
from gemmaq.artifact.provenance import Quality
from gemmaq.convert.memory_table import MEMORY
from gemmaq.sources.open import open_source
from inprocess import run

TYPES = ("q8_0", "q4_0", "q5_1")


@pytest.fixture(scope="module")
def rungs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder of GGUF files."""
    out = tmp_path_factory.mktemp("ladder") / "out"
    run("convert", tiny, "--quant", ",".join(TYPES), "-q", "-o", out)
    return out


@pytest.fixture(scope="module")
def models(rungs: Path) -> list[Model]:
    """Its models, as gemmaq.json describes them."""
    like = description.of_checkpoint(open_source(str(rungs / "gemma-3-tiny-Q5_1.gguf")), rungs)
    return description.of_records(provenance.read(rungs), like, [path.name for path in rungs.iterdir()])


def table(text: str, column: str) -> list[list[str]]:
    """Cells of the first table that has a column."""
    lines = re.search(rf"^\|[^\n]* {re.escape(column)} .*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    assert lines is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()]


def test_a_row_a_file_with_the_memory_that_the_command_tells(rungs: Path) -> None:
    columns, _, *rows = table((rungs / card.NAME).read_text(), "bits per weight")
    assert columns == ["file", "type", "size", "bits per weight", "memory at 2K", "what it is for"]
    assert [row[1] for row in rows] == ["Q4_0", "Q5_1", "Q8_0"], "the smallest first"
    for link, kind, size, bits, memory, use in rows:
        name = f"gemma-3-tiny-{kind}.gguf"
        assert link == f"[`{name}`]({name})" and size == f"{(rungs / name).stat().st_size:,} B"
        (estimate,) = json.loads(run("estimate-vram", rungs / name, "--context", 2048, "--json").stdout)["estimates"]
        assert memory == f"{estimate['bytes']['total'] / 1e9:.2f} GB"
        assert float(bits) > {"Q4_0": 4.5, "Q5_1": 6, "Q8_0": 8.5}[kind]
        assert use.startswith("**recommended**: ") == (kind == "Q4_0")


def test_the_card_follows_from_the_record_and_one_of_the_models(rungs: Path, models: list[Model]) -> None:
    files = [(p.name, p.stat().st_size, digest) for p, digest in _digests(rungs)]
    assert card.text(None, models, files, memory=MEMORY) == (rungs / card.NAME).read_text()
    sizes = [entry.entry["size"] for entry in provenance.read(rungs)]
    files_of = [model.files for model in models]
    described = [description.of_size(size, models[0], own) for size, own in zip(sizes, files_of, strict=True)]
    assert [replace(model, methods=("nearest",)) for model in described] == models


def _digests(folder: Path) -> list[tuple[Path, str]]:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return [(folder / line[66:], line[:64]) for line in lines if line[66:] != card.NAME]


def test_front_matter_names_every_type(rungs: Path) -> None:
    import yaml

    front = yaml.safe_load((rungs / card.NAME).read_text().split("---")[1])
    assert {"gguf", "q4_0", "q5_1", "q8_0"} <= set(front["tags"]) and len(front["tags"]) == len(set(front["tags"]))


def test_the_lines_are_for_the_recommended_file(rungs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (rungs / card.NAME).read_text()
    (block,) = re.findall(r"```sh\n(.+?)\n```", said, re.DOTALL)
    assert "Commands for Q4_0, the recommended file:" in said and "`Modelfile` makes a model of Q8_0;" in said
    assert block.splitlines() == [
        "llama-server -m gemma-3-tiny-Q4_0.gguf",
        "ollama create gemma-3-tiny-q8_0 -f Modelfile",
        "gemmaq install gemma-3-tiny-Q4_0.gguf --runtime lmstudio",
    ]
    assert "FROM ./gemma-3-tiny-Q8_0.gguf" in (rungs / "Modelfile").read_text()
    monkeypatch.chdir(rungs)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".lmstudio").mkdir()
    assert "holds 3 models" in run("install", ".", "--runtime", "lmstudio", code=3).stderr
    run(*block.splitlines()[-1].split()[1:])
    assert {path.name for path in tmp_path.rglob("*.gguf")} == {"gemma-3-tiny-Q4_0.gguf"}


def test_the_largest_file_that_fits_each_card(models: list[Model]) -> None:
    room = {"Q4_0": {"8 GB": {8192}, "16 GB": {8192, 32768}}, "Q5_1": {"16 GB": {8192}}, "Q8_0": {}}

    def figures(model: Model) -> Footprint:
        fits = {name: frozenset(room[model.label].get(name, ())) for name in ("4 GB", "8 GB", "16 GB")}
        return Footprint("engine", {8192: 5 * 10**9, 32768: 6 * 10**9}, fits)

    said = card.text("me/model", models, [], memory=Memory(figures, lambda _: ""))
    assert table(said, "memory of the card") == [
        ["memory of the card", "at 8K", "at 32K"],
        ["---", "---", "---"],
        ["4 GB", "none", "none"],
        ["8 GB", "Q4_0", "none"],
        ["16 GB", "Q5_1", "Q4_0"],
    ]
    assert "| 5.00 GB | 6.00 GB |" in said
    assert "ollama run hf.co/me/model:Q4_0\n" in said


def test_what_was_measured_has_columns(models: list[Model]) -> None:
    assert "top-1" not in card.text(None, models, [], memory=UNKNOWN)
    quality = Quality("google/gemma-3-tiny", ("wiki.txt", "code.txt"), 2040, 512, 0.0123, 0.876, 13.5)
    said = card.text(None, [replace(models[0], quality=quality), *models[1:]], [], memory=UNKNOWN)
    columns, _, *rows = table(said, "top-1")
    at = columns.index("KL")
    assert [row[at : at + 2] for row in rows] == [["", ""], ["", ""], ["0.0123", "87.6 %"]]
    assert "measured on 2,040 tokens of wiki.txt and code.txt against google/gemma-3-tiny." in said


def test_models_in_subfolders_and_in_shards(models: list[Model]) -> None:
    split = replace(models[0], files=("a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00002-of-00002.gguf"))
    sizes = {"gguf/a-Q8_0-00001-of-00002.gguf": 5, "gguf/a-Q8_0-00002-of-00002.gguf": 7, "mlx/model.safetensors": 9}
    (row,) = card_models.rows([split], sizes, UNKNOWN)
    assert row.size == 12
    assert card_models.table_of_models([row])[1][0][0] == (
        "[`gguf/a-Q8_0-00001-of-00002.gguf`](gguf/a-Q8_0-00001-of-00002.gguf) and 1 more"
    )
