"""Measured quality on record: in gemmaq.json, card and checksums, and nowhere else."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from damage import tree
from gemmaq.artifact import card, measured, provenance
from gemmaq.artifact.footprint import UNKNOWN
from gemmaq.artifact.provenance import Quality
from gemmaq.errors import InputError, OutputError
from gemmaq.files import sums
from inprocess import run
from oracles import need

WORDS = ("<table>", "</table>", "<tr>", "<td>", "<h1>", "<code>", "<em>", "\n", "\n\n")
CHANGED = {"gemmaq.json", "README.md", "SHA256SUMS"}
QUALITY = Quality("google/gemma-3-tiny", ("wiki.txt",), 2040, 512, 0.25, 0.875, 13.5)


@pytest.fixture(scope="module")
def rungs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ladder") / "out"
    run("convert", tiny, "--quant", "q8_0,q4_0", "-q", "-o", out)
    return out


@pytest.fixture
def artifact(rungs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rungs, tmp_path / "artifact"))


def test_evaluate_records_every_model_of_a_ladder(
    artifact: Path, tiny: Path, tmp_path: Path, require: Callable[[bool, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    need(require, "torch", "transformers")
    monkeypatch.setenv("GEMMAQ_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "words.txt"
    text.write_text("".join(random.Random(2).choices(WORDS, k=600)))
    before = tree(artifact)
    options = ("--reference", tiny, "--text", text, "--context", 32, "--tokens", 90, "--record")
    assert "would be written anew" in run("evaluate", artifact, *options, "--dry-run").stdout
    assert tree(artifact) == before
    said = json.loads(run("evaluate", artifact, *options, "--json").stdout)["models"]
    assert [Path(entry["model"]).name for entry in said] == ["gemma-3-tiny-Q4_0.gguf", "gemma-3-tiny-Q8_0.gguf"]
    assert {name for name, data in tree(artifact).items() if before.get(name) != data} == CHANGED
    for known, entry in zip(provenance.read(artifact)[::-1], said, strict=True):
        assert known.quality is not None
        assert (known.quality.reference, known.quality.texts, known.quality.tokens) == (tiny.name, ("words.txt",), 90)
        assert known.quality.kl == pytest.approx(entry["kl"]["mean"], rel=1e-5)
        assert known.quality.top1 == pytest.approx(entry["top1"], rel=1e-5)
        assert f"| {100 * entry['top1']:.1f} % |" in (artifact / card.NAME).read_text()
    assert "measured on 90 tokens of words.txt against gemma-3-tiny." in (artifact / card.NAME).read_text()
    assert str(tmp_path) not in (artifact / card.NAME).read_text() + (artifact / provenance.NAME).read_text()
    run("verify", artifact, "--against", tiny)


def test_one_model_is_measured_and_the_other_keeps_its_record(artifact: Path) -> None:
    first, second = (artifact / f"gemma-3-tiny-{kind}.gguf" for kind in ("Q8_0", "Q4_0"))
    for path in (second, first, second):
        place = measured.place(str(path))
        measured.write(place.folder, {place.model: QUALITY}, memory=UNKNOWN)
    assert [known.quality for known in provenance.read(artifact)] == [QUALITY, QUALITY]
    document = json.loads((artifact / provenance.NAME).read_text())
    assert list(document["models"][0]).index("quality") == list(document["models"][0]).index("files") - 1
    assert (artifact / card.NAME).read_text().count("| 0.2500 | 87.5 % |") == 2
    run("verify", artifact)


@pytest.mark.parametrize("kind", ["mlx", "bf16", "mmproj"])
def test_an_artifact_of_one_model(kind: str, made: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(made[kind], tmp_path / "artifact")
    (before,) = provenance.read(folder)
    place = measured.place(str(folder))
    measured.write(place.folder, {place.model: QUALITY}, memory=UNKNOWN)
    (after,) = provenance.read(folder)
    assert (after.quality, after.tensors, after.files) == (QUALITY, before.tensors, before.files)
    listed = sums.read(folder)
    assert listed is not None and listed.keys() == {path.name for path in folder.iterdir()} - {sums.NAME}
    run("verify", folder)


def test_what_is_not_as_gemmaq_wrote_it_is_refused(artifact: Path, tiny: Path) -> None:
    with pytest.raises(InputError, match="is no artifact of gemmaq"):
        measured.place(str(tiny))
    with pytest.raises(InputError, match="is no artifact of gemmaq"):
        measured.place("google/gemma-3-4b-it")
    with pytest.raises(InputError, match="is no model of"):
        measured.place(str(artifact))
    path = str(artifact / "gemma-3-tiny-Q4_0.gguf")
    own = (artifact / card.NAME).read_text()
    (artifact / card.NAME).write_text("# Mine\n")
    with pytest.raises(OutputError, match="was changed"):
        measured.place(path)
    (artifact / card.NAME).write_text(own)
    (artifact.parent / sums.NAME).write_bytes(sums.text({f"{artifact.name}/gemmaq.json": "0" * 64}))
    with pytest.raises(OutputError, match="is a part of"):
        measured.place(path)
    (artifact.parent / sums.NAME).unlink()
    record = artifact / provenance.NAME
    record.write_text(record.read_text().replace('"nearest"', '"lattice"', 1))
    with pytest.raises(InputError, match="is not as SHA256SUMS"):
        measured.place(path)
