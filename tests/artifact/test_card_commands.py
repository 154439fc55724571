"""Command lines of cards: the programs understand them, and run the artifacts that they stand in."""

from __future__ import annotations

import base64
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import command_lines
import gemma4_drafter
import gemma4_towers
import inprocess
import llama_arguments
import llama_server
import ollama_rules
import oracles
from fake_hub import FakeHub
from gemmaq.artifact import card, description
from gemmaq.artifact.footprint import UNKNOWN
from gemmaq.planning.containers import CONTAINERS
from gemmaq.sources.open import open_source

Require = Callable[[bool, str], None]

VALUES = {
    "weights": "a-Q4_0.gguf",
    "stem": "a-q4_0",
    "artifact": ".",
    "projector": " --mmproj mmproj-a-F16.gguf",
    "drafter": " --spec-type draft-mtp --model-draft mtp-a-Q8_0.gguf",
    "repo": "me/a",
    "type": "Q4_0",
    "tag": "a-Q4_0.gguf",
}
COMMANDS = sorted(
    {
        form.format(**VALUES)
        for container in CONTAINERS.values()
        for command in container.commands
        for form in (command.here, command.hub)
    }
)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=pytest.mark.slow if "vllm" in line else ()) for line in COMMANDS]
)
def test_the_programs_understand_the_lines(line: str, require: Require) -> None:
    command_lines.check(line, require)


@pytest.mark.oracle
def test_a_line_that_a_program_does_not_understand(require: Require) -> None:
    for line in ("llama-server -m a.gguf --draft-mtp", "mlx_vlm.chat --repo a", "transformers serve --model a b"):
        with pytest.raises((Exception, SystemExit)):
            command_lines.check(line, require)


@pytest.fixture(scope="module")
def gemma4s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma 4 that sees and hears in every container."""
    root = tmp_path_factory.mktemp("gemma4")
    source = gemma4_towers.write(root / "gemma-4-E2B-it", gemma4_towers.KINDS["effective"])
    everywhere = [word for name in CONTAINERS for word in ("--to", name)]
    inprocess.run("convert", source, "-o", root / "out", "-q", *everywhere)
    return root / "out"


def lines_of(folder: Path) -> dict[str, str]:
    """Lines of the card of a folder by program."""
    block = re.search(r"```sh\n(.+?)\n```", (folder / card.NAME).read_text(), re.DOTALL)
    assert block is not None
    return {line.split()[0]: line for line in block[1].splitlines()}


@pytest.mark.oracle
def test_llama_server_runs_the_line(gemma4s: Path, require: Require, monkeypatch: pytest.MonkeyPatch) -> None:
    oracles.need(require, "xllamacpp")
    monkeypatch.chdir(gemma4s / "gguf")
    words = shlex.split(lines_of(Path.cwd())["llama-server"])[1:]
    question = ("/completion", {"prompt": "The", "n_predict": 4, "temperature": 0})
    (answer,) = llama_server.ask(llama_server.line(words, question))
    assert answer["tokens_predicted"] == 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma 4 in GGUF with an mmproj file and a drafter."""
    root = tmp_path_factory.mktemp("whole")
    source = gemma4_towers.write(root / "gemma-4-E2B-it", gemma4_towers.KINDS["effective"])
    drafter = gemma4_drafter.write(root / "gemma-4-E2B-it-assistant", gemma4_drafter.DRAFTERS["effective"])
    inprocess.run("convert", source, "--quant", "q4_0", "--draft", drafter, "-o", root / "out", "-q")
    return root / "out"


def test_the_files_beside_a_model_are_verified_and_named(whole: Path) -> None:
    assert "headers, tokenizer, mmproj file and drafter are OK" in inprocess.run("verify", whole).stdout


@pytest.mark.oracle
def test_llama_server_sees_hears_and_drafts_by_the_line(
    whole: Path, require: Require, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracles.need(require, "xllamacpp")
    monkeypatch.chdir(whole)
    line = lines_of(whole)["llama-server"]
    assert re.search(r"The drafter takes 21\d,\d{3} bytes;", (whole / card.NAME).read_text())
    assert "--mmproj mmproj-gemma-4-E2B-it-F16.gguf" in line and "--model-draft mtp-gemma-4-E2B-it-Q4_0.gguf" in line
    sheet = io.BytesIO()
    Image.fromarray(gemma4_towers.picture()).save(sheet, "PNG")
    image = "data:image/png;base64," + base64.b64encode(sheet.getvalue()).decode()
    content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "what"}]
    asked = {"messages": [{"role": "user", "content": content}], "max_tokens": 12, "temperature": 0}
    written = {"prompt": "The", "n_predict": 12, "temperature": 0, "ignore_eos": True}
    seen, said = llama_server.ask(
        llama_server.line(shlex.split(line)[1:], ("/v1/chat/completions", asked), ("/completion", written))
    )
    assert seen["usage"]["prompt_tokens"] > 60 and said["timings"]["draft_n"] > 0


@pytest.mark.oracle
def test_llama_server_takes_the_files_from_the_hub(gemma4s: Path, require: Require, tmp_path: Path) -> None:
    """The line for a repository with two types of the model, an mmproj file and a drafter; by the names alone."""
    oracles.need(require, "xllamacpp")
    weights = gemma4s / "gguf" / "gemma-4-E2B-it-Q4_0.gguf"
    repo, stem = tmp_path / "repo", "gemma-4-E2B-it"
    names = [f"{stem}-Q8_0.gguf", f"{stem}-Q4_0.gguf", f"mmproj-{stem}-F16.gguf", f"mtp-{stem}-Q4_0.gguf"]
    repo.mkdir()
    for name in names:
        shutil.copy(weights, repo / name)
    folder = gemma4s / "gguf"
    model = description.of_checkpoint(open_source(str(folder)), folder)
    text = card.text("me/model", [replace(model, files=tuple(names[1:]))], [], memory=UNKNOWN)
    line = re.search(r"^llama-server (.+)$", text, re.MULTILINE)
    assert line is not None
    with FakeHub(tmp_path / "hub") as hub:
        hub.add("me/model", repo)
        env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "LLAMA_CACHE": str(tmp_path / "cache")}
        found = llama_arguments.read(line[1].split(), env)
    assert [Path(found[part]).name for part in ("model", "mmproj", "draft")] == names[1:]
    assert "draft_mtp" in found["types"]


def test_ollama_creates_what_the_line_names(gemma4s: Path) -> None:
    folder = gemma4s / "gguf"
    _, command, name, flag, file = lines_of(folder)["ollama"].split()
    assert (command, flag, name) == ("create", "-f", "gemma-4-e2b-it-q4_0") and ollama_rules.is_name(name)
    assert set(ollama_rules.parse((folder / file).read_text(), folder).files) == set(folder.glob("*.gguf"))


def test_gemmaq_runs_the_line(gemma4s: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gemma4s / "gguf")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".lmstudio").mkdir()
    inprocess.run(*lines_of(Path.cwd())["gemmaq"].split()[1:])
    assert {path.name for path in tmp_path.rglob("*.gguf")} == {path.name for path in Path.cwd().glob("*.gguf")}


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize(("program", "words"), [("mlx_lm.chat", "q\n"), ("mlx_vlm.chat", "/exit\n")])
def test_mlx_runs_the_line(program: str, words: str, gemma4s: Path, require: Require) -> None:
    """It loads the model, and ends at once."""
    module, folder = program.split(".")[0], gemma4s / "mlx"
    oracles.need(require, module)
    command = [sys.executable, "-m", program, *shlex.split(lines_of(folder)[program])[1:]]
    done = subprocess.run(command, input=words, capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]


def test_a_drafter_in_the_lines(gemma4s: Path) -> None:
    """By its file beside the model, by its kind alone from the Hub, where llama.cpp finds the file."""
    folder = gemma4s / "gguf"
    model = description.of_checkpoint(open_source(str(folder)), folder)
    weights, drafter = "gemma-4-E2B-it-Q4_0.gguf", "mtp-gemma-4-E2B-it-Q8_0.gguf"
    drafted = replace(model, files=(*model.files, drafter), drafter=replace(model, weights=123456))
    here = card.text(None, [drafted], [], memory=UNKNOWN)
    projector = " --mmproj mmproj-gemma-4-E2B-it-F16.gguf"
    assert (
        f"llama-server -m {weights}{projector} --spec-type draft-mtp --model-draft mtp-gemma-4-E2B-it-Q8_0.gguf\n"
        in here
    )
    assert "The drafter takes 123,456 bytes; it proposes" in here
    there = card.text("me/model", [drafted], [], memory=UNKNOWN)
    assert "llama-server -hf me/model:Q4_0 --spec-type draft-mtp\n" in there
    assert f"ollama run hf.co/me/model:{weights}\n" in there and "huggingface.co/me/model@Q4_0\n" in there
    assert "ollama run hf.co/me/model:Q4_0\n" in card.text("me/model", [model], [], memory=UNKNOWN)


@pytest.fixture(scope="module")
def drafter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a drafter alone."""
    root = tmp_path_factory.mktemp("drafter")
    source = gemma4_drafter.write(root / "gemma-4-E2B-it-assistant", gemma4_drafter.DRAFTERS["effective"])
    inprocess.run("convert", source, "--quant", "q8_0", "-o", root / "out", "-q")
    return root / "out"


def test_the_card_of_a_drafter(drafter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs beside another model, and no runtime takes it alone."""
    said = (drafter / card.NAME).read_text()
    assert lines_of(drafter) == {
        "llama-server": "llama-server -m MODEL.gguf --spec-type draft-mtp --model-draft mtp-gemma-4-E2B-it-Q8_0.gguf"
    }
    assert "quantized by gemmaq for llama.cpp and Ollama.\n" in said
    assert "it reads the cache of its target" in said and "pipeline_tag: text-generation" in said
    assert not (drafter / "Modelfile").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".lmstudio").mkdir()
    assert "is a drafter" in inprocess.run("install", drafter, "--runtime", "lmstudio", code=3).stderr


@pytest.mark.oracle
def test_llama_server_takes_a_drafter_from_a_repository_of_its_own(
    gemma4s: Path, drafter: Path, require: Require, tmp_path: Path
) -> None:
    oracles.need(require, "xllamacpp")
    model = description.of_checkpoint(open_source(str(drafter)), drafter)
    line = re.search(r"^llama-server (.+)$", card.text("me/drafter", [model], [], memory=UNKNOWN), re.MULTILINE)
    assert line is not None
    with FakeHub(tmp_path / "hub") as hub:
        hub.add("me/drafter", drafter)
        hub.add("me/model", gemma4s / "gguf")
        env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "LLAMA_CACHE": str(tmp_path / "cache")}
        found = llama_arguments.read(line[1].replace("MODEL", "me/model").split(), env)
    assert [Path(found[part]).name for part in ("model", "draft")] == [
        "gemma-4-E2B-it-Q4_0.gguf",
        "mtp-gemma-4-E2B-it-Q8_0.gguf",
    ]
