"""--weights: every command that reads a source takes it, and none guesses between two sets of weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from inprocess import refused, run
from weight_folders import INDEX, WHOLE, bare_folder, made, save, save_shards


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose shards and whole file hold different weights."""
    folder = bare_folder(tmp_path_factory.mktemp("torn") / "gemma-3-torn")
    save_shards(folder, made(0), 2)
    save(folder / WHOLE, made(1))
    return folder


COMMANDS = {
    "inspect": ("inspect", "SOURCE"),
    "estimate-vram": ("estimate-vram", "SOURCE"),
    "estimate-vram --task": ("estimate-vram", "SOURCE", "--task", "gptq"),
    "convert": ("convert", "SOURCE", "--dry-run"),
    "evaluate": ("evaluate", "SOURCE/model.safetensors", "--reference", "SOURCE", "--dry-run"),
    "imatrix": ("imatrix", "SOURCE", "-o", "OUT", "--dry-run"),
    "sensitivity": ("sensitivity", "SOURCE", "-o", "OUT", "--dry-run"),
    "qat": ("qat", "SOURCE", "--text", "TEXT", "-o", "OUT", "--context", "16", "--batch", "1", "--dry-run"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_to_guess_and_takes_the_choice(command: str, torn: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("piece0 piece1 piece2 piece3 " * 2000)
    places = {"OUT": str(tmp_path / "out"), "TEXT": str(text)}
    words = [places.get(word, word.replace("SOURCE", str(torn))) for word in COMMANDS[command]]
    refused(3, (INDEX, WHOLE, f"--weights {WHOLE}"), *words, under=torn)
    for choice in (WHOLE, INDEX, torn / WHOLE):
        run(*words, "--weights", choice)


def test_the_choice_decides_what_is_written(torn: Path, tmp_path: Path) -> None:
    for choice, other in ((WHOLE, INDEX), (INDEX, WHOLE)):
        out = tmp_path / choice.replace(".", "-")
        run("convert", torn, "--weights", choice, "-o", out, "-q")
        run("verify", out, "--against", torn, "--weights", choice, "-q")
        run("verify", out, "--against", torn, "--weights", other, "-q", code=8)
    run("convert", torn / WHOLE, "-o", tmp_path / "named", "-q")
    named, chosen = ((tmp_path / name).glob("*.gguf") for name in ("named", WHOLE.replace(".", "-")))
    assert [path.read_bytes() for path in named] == [path.read_bytes() for path in chosen]


def test_a_choice_that_means_nothing_is_refused(torn: Path, tmp_path: Path) -> None:
    refused(5, ("x.safetensors", WHOLE), "inspect", torn, "--weights", "x.safetensors", under=torn)
    refused(2, ("--weights",), "inspect", "sample:gemma-3-270m", "--weights", WHOLE, under=torn)
    refused(2, ("--weights",), "estimate-vram", "4b", "12b", "--weights", WHOLE, under=torn)
    refused(2, ("--against",), "verify", tmp_path, "--weights", WHOLE, under=torn)
