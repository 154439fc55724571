"""What someone meets who converts for the first time: refusals before any work, and what comes next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from gemmaq.cli import options
from inprocess import refused, run


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a source fails the test."""

    def fails(*_: object, **__: object) -> None:
        raise AssertionError("the source was opened")

    for name in ("open_source", "open_with_weights"):
        monkeypatch.setattr(f"gemmaq.sources.open.{name}", fails)


@pytest.mark.usefixtures("unopened")
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("command", ["convert", "pull"])
def test_an_output_that_exists_is_refused_before_the_source_is_opened(
    command: str, dry: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    refused(7, ("exists", "--force"), command, "org/name", "-o", tmp_path / "out", *dry, under=tmp_path)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_file_that_exists_is_refused_in_dry_runs_too(dry: tuple[str, ...], tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "there.json"
    file.write_text("{}")
    for command in ("imatrix", "sensitivity"):
        refused(7, ("exists",), command, tiny, "-o", file, *dry, under=tmp_path)
    refused(7, ("exists",), "evaluate", tiny, "--reference", tiny, "--report", file, *dry, under=tmp_path)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_budget_and_training_refuse_it_too(dry: tuple[str, ...], tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "text.txt").write_text("words " * 2000)
    budget = ("--target-bpw", "6", "--sensitivity", tmp_path / "absent.json")
    refused(7, ("exists",), "convert", tiny, "-o", tmp_path / "out", *budget, *dry, under=tmp_path)
    refused(7, ("exists",), "qat", tiny, "--text", tmp_path / "text.txt", "-o", tmp_path / "out", *dry, under=tmp_path)


@pytest.mark.parametrize("name", ["foo.gguf", "a/model.safetensors", "x.JSON"])
def test_a_folder_is_not_called_like_a_file(name: str, tiny: Path, tmp_path: Path) -> None:
    done = refused(2, ("a folder is made",), "convert", tiny, "-o", tmp_path / name, under=tmp_path)
    assert f"try {Path(name).stem!r}" in done.stderr
    assert options.new_folder("gemma-3.1-4b") == Path("gemma-3.1-4b")


def test_codes_that_are_copied_are_told(tiny: Path, tmp_path: Path) -> None:
    first = run("convert", tiny, "--quant", "q4_0", "--embedding", "q4_0", "-o", tmp_path / "a").stderr
    assert "unchanged" not in first
    (model,) = (tmp_path / "a").glob("*.gguf")
    same = run("convert", model, "--embedding", "q4_0", "-o", tmp_path / "b").stderr
    assert "is Q4_0 already: its codes are copied unchanged" in same
    other = run("convert", model, "--embedding", "q4_0", "--to", "mlx", "-o", tmp_path / "c").stderr
    assert "the codes of" in other and "are taken over unchanged" in other
    again = run("convert", model, "--quant", "q4_1", "-o", tmp_path / "d").stderr
    assert "unchanged" not in again


@pytest.mark.parametrize(
    ("container", "program"), [("gguf", "llama-server -m "), ("mlx", "mlx_lm.chat"), ("safetensors", "vllm serve .")]
)
def test_the_end_says_how_to_run_it(container: str, program: str, tiny: Path, tmp_path: Path) -> None:
    said = run("convert", tiny, "--to", container, "-o", tmp_path / "my model").stderr
    assert f"\n  cd '{tmp_path}/my model'\n  {program}" in said and said.endswith("README.md\n")
    quiet = run("convert", tiny, "--to", container, "-q", "-o", tmp_path / "b")
    assert "cd " not in quiet.stderr


def test_the_command_lines_are_those_of_the_card(tiny: Path, tmp_path: Path) -> None:
    said = run("convert", tiny, "-o", tmp_path / "out").stderr
    card = (tmp_path / "out/README.md").read_text()
    lines = [line.strip() for line in said.splitlines() if line.startswith("  ") and not line.startswith("  cd ")]
    assert len(lines) == 3 and all(f"\n{line}\n" in card for line in lines)


def test_a_wait_names_what_is_read(tiny: Path, tmp_path: Path) -> None:
    told: list[str] = []
    doing: Callable[[str], None] = told.append
    with patch("gemmaq.cli.terminal.Waiting.doing", lambda self, what: doing(what)):
        run("convert", tiny, "-o", tmp_path / "out")
    assert told == [f"reading {tiny}", "looking at the weights"]


def test_an_embedding_of_more_bits_that_is_much_of_the_model_is_named(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemmaq.cli.views.convert._LARGE", 0.01)
    said = run("convert", tiny, "--embedding", "q8_0", "--dry-run", "-o", tmp_path / "a").stderr
    assert "of it is the embedding in Q8_0 (--embedding)" in said
    alike = run("convert", tiny, "--embedding", "q4_0", "--dry-run", "-o", tmp_path / "a").stderr
    assert "of it is the embedding" not in alike
