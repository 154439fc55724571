"""The frontier beside a card: drawn from three models on, listed, drawn anew, removed, and pushed with the rest."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fake_hub import FakeHub
from gemmaq.artifact import measured, pictures, provenance
from gemmaq.artifact.footprint import UNKNOWN
from gemmaq.artifact.provenance import Quality
from gemmaq.files import sums
from gemmaq.planning.containers import CONTAINERS
from home import Settle
from inprocess import run

NAME = "frontier-gguf.svg"
QUALITIES = [Quality("google/gemma-3-tiny", ("wiki.txt",), 2040, 512, kl, 0.9, 13.5) for kl in (0.001, 0.03, 0.25)]


@pytest.fixture(scope="module")
def ladder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ladder") / "out"
    run("convert", tiny, "--quant", "q8_0,q5_0,q4_0", "-q", "-o", out)
    return out


@pytest.fixture
def artifact(ladder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ladder, tmp_path / "artifact"))


def record(folder: Path, qualities: list[Quality]) -> None:
    measured.write(folder, dict(enumerate(qualities)), memory=UNKNOWN)


def test_three_measured_models_make_a_picture(artifact: Path) -> None:
    record(artifact, QUALITIES[:2])
    assert not (artifact / NAME).exists() and NAME not in (artifact / "README.md").read_text()
    record(artifact, QUALITIES)
    first, card = (artifact / NAME).read_bytes(), (artifact / "README.md").read_text()
    texts = [element.text for element in ElementTree.fromstring(first).iter("{http://www.w3.org/2000/svg}text")]
    assert {"Q8_0", "Q5_0", "Q4_0"} <= set(texts)
    assert card.count(f"]({NAME})") == 1 and f"| `{NAME}` |" in card
    assert NAME in (sums.read(artifact) or {})
    run("verify", artifact)
    record(artifact, QUALITIES)
    assert (artifact / NAME).read_bytes() == first
    record(artifact, [*QUALITIES[:2], replace(QUALITIES[2], kl=0.5)])
    assert (artifact / NAME).read_bytes() != first
    run("verify", artifact)


def test_models_measured_on_other_text_are_not_in_one_picture(artifact: Path) -> None:
    record(artifact, QUALITIES)
    record(artifact, [*QUALITIES[:2], replace(QUALITIES[2], texts=("other.txt",))])
    assert not (artifact / NAME).exists()
    assert NAME not in (artifact / "README.md").read_text() and NAME not in (sums.read(artifact) or {})
    run("verify", artifact)


def test_a_push_keeps_the_picture_and_draws_new_models_into_it(
    hub: FakeHub, settle: Settle, artifact: Path, tiny: Path, tmp_path: Path
) -> None:
    here, repo = settle(hub, "hf_write"), "acme/gemma-3-tiny-GGUF"
    record(artifact, QUALITIES)
    here.run("push", artifact, repo)
    before = hub.read(repo, NAME)
    more = tmp_path / "more"
    run("convert", tiny, "--quant", "q5_1", "-q", "-o", more)
    record(more, [replace(QUALITIES[0], kl=0.02)])
    here.run("push", more, repo)
    after = hub.read(repo, NAME)
    assert before != after and b"Q5_1" in after and b"Q8_0" in after
    assert f"]({NAME})" in hub.read(repo, "README.md").decode()
    here.run("pull", repo, "--include", "*", "-o", tmp_path / "pulled")
    run("verify", tmp_path / "pulled")
    assert len(provenance.read(tmp_path / "pulled")) == 4


def test_every_container_has_a_file_of_its_own() -> None:
    assert len(set(pictures.NAMES)) == len(CONTAINERS)
