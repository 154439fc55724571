"""Every gemmaq command of the README runs, in the README's order, with a Hub and an Ollama of our own."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import gemma4_drafter
import gemma4_towers
import lora_files
from damage import SMALL, small_model
from fake_hub import FakeHub
from fake_ollama import FakeOllama
from gemmaq.models.families import require_size as require
from small import write_model
from synthetic import write_checkpoint

README = Path(__file__).parents[1] / "README.md"
QAT = "google/gemma-3-4b-it-qat-q4_0-unquantized"
LARGE = "google/gemma-3-27b-it"
FITS = "google/gemma-3-1b-it"
SEES = "google/gemma-4-12B-it-qat-q4_0-unquantized"
FOLDER = "gemma-3-270m"
"""Made by an early command from the sample, and read by most of the others."""


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    joined = [block.replace("\\\n", " ") for block in blocks]
    lines = [part.strip() for block in joined for line in block.splitlines() for part in line.split("&&")]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("gemmaq ")]


def named_in_readme() -> list[str]:
    """Files and folders of the project that the README names."""
    text = README.read_text()
    links = re.findall(r"\]\(([^):]+)\)", text)
    return sorted({*re.findall(r"`((?:recipes|tests|\.ci)/[\w./-]*)`", text), *links})


def named_in_contributing() -> list[str]:
    """Files and rooms that CONTRIBUTING names, those with a placeholder aside."""
    text = (README.parent / ".github/CONTRIBUTING.md").read_text()
    return sorted(set(re.findall(r"`([\w./]*\w/[\w./]*|\w+\.py)`", text)))


@pytest.mark.parametrize("path", named_in_readme())
def test_every_file_named_in_the_readme_is_there(path):
    assert (README.parent / path).exists()


@pytest.mark.parametrize("path", named_in_contributing())
def test_every_file_named_in_contributing_is_there(path):
    assert any((README.parent / root / path).exists() for root in (".", "gemmaq", "gemmaq/encodings", "tests/planning"))


@pytest.mark.slow
def test_every_command_shown_works(gemmaq, tiny, tmp_path):
    assert len(commands()) >= 18
    large = write_checkpoint(tmp_path / "large", require("27b").config, sparse=True, shard_bytes=5 << 30)
    digests = {path.name: f"{number:064x}" for number, path in enumerate(sorted(large.glob("*.safetensors")))}
    work = tmp_path / "work"
    work.mkdir()
    for text in ("README.md", "CHANGELOG.md"):  # the examples run in the folder of a clone, and take these as texts
        shutil.copy(README.parent / text, work)
    (tmp_path / "ollama").mkdir()
    (tmp_path / ".lmstudio").mkdir()
    with FakeHub(tmp_path / "hub") as hub, FakeOllama(tmp_path / "ollama") as ollama:
        hub.add(QAT, tiny)
        hub.add(LARGE, large, digests=digests)
        hub.add(FITS, small_model(tmp_path / "fits", replace(SMALL, max_position_embeddings=32768)))
        hub.add(SEES, gemma4_towers.write(tmp_path / "sees", gemma4_towers.KINDS["unified"]))
        drafter = gemma4_drafter.write(tmp_path / "drafts", gemma4_drafter.DRAFTERS["unified"])
        hub.add(f"{SEES}-assistant", drafter)
        settings, pair = lora_files.config(), lora_files.pair(64, 64)
        hub.add("my-org/my-lora", lora_files.write(tmp_path / "lora", settings, pair, base=QAT))
        hub.tokens["hf_write"]["orgs"] = ["my-org"]
        env = {
            "GEMMAQ_CACHE": str(tmp_path / "cache"),
            "GEMMAQ_CALIBRATION_TOKENS": "1024",
            **hub.env(tmp_path / "home", token="hf_write"),
            "OLLAMA_HOST": ollama.host,
            "HOME": str(tmp_path),
        }
        for arguments in commands():
            gemmaq(*arguments, cwd=work, env=env)
            if arguments[-1] == FOLDER:  # the other commands get a small model, to calibrate and train it in seconds
                shutil.rmtree(work / FOLDER)
                write_model(work / FOLDER)
        assert [name for name in ollama.made if "gemma-qat" in name]
        assert hub.sent[f"{LARGE}/model-00001-of-00012.safetensors"] < 1 << 20
    assert (work / "out" / "gemma-3-270m-Q4_0.gguf").is_file()
    assert "<svg" in (work / "quality.html").read_text()
    assert (work / "memory.svg").read_text().count("<svg") == 1
