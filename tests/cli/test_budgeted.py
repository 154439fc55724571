"""`gemmaq convert` with a budget: what it writes and says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import made_up
from damage import contained, small_model
from gemmaq.planning.sensitivities import document
from gemmaq.sources.open import open_source
from inprocess import refused, run
from oracles import need
from records import recorded


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("source") / "gemma-3-tiny")


@pytest.fixture(scope="module")
def losses(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Container -> file of made-up sensitivities."""
    folder, checkpoint = tmp_path_factory.mktemp("losses"), open_source(str(model))
    found = {}
    for container in ("gguf", "mlx"):
        found[container] = folder / f"{container}.json"
        found[container].write_bytes(document(made_up.sensitivities(checkpoint, container, real=True)))
    return found


def test_a_dry_run_tells_the_types_and_the_bytes_that_are_written_then(
    model: Path, losses: dict[str, Path], tmp_path: Path
) -> None:
    options = ("--target-bpw", "7", "--sensitivity", losses["gguf"], "--no-check", "-o", tmp_path / "out")
    planned = json.loads(run("convert", model, *options, "--dry-run", "--json").stdout)
    assert not (tmp_path / "out").exists()
    told = run("convert", model, *options)
    assert "gemma-3-tiny for 7 bits per weight" in told.stdout and "predicted KL" in told.stdout
    (entry,) = planned["artifacts"]
    assert 6.9 < entry["bits_per_weight"] <= 7
    (file,) = entry["files"]
    assert file["path"] == f"gemma-3-tiny-{entry['type']}.gguf"
    assert (tmp_path / "out" / file["path"]).stat().st_size == file["bytes"]
    chosen, uniform = planned["budget"]["candidates"]
    assert chosen["kept"] and chosen["predicted_kl"] < uniform["predicted_kl"]
    said = recorded(tmp_path / "out")
    assert said["recipe"]["budget"]["target"] == planned["budget"]["target"] == "7 bits per weight"
    assert run("inspect", tmp_path / "out").code == 0
    again = run("convert", model, *options[:-1], tmp_path / "again", "-q")
    assert again.stdout.strip() == str(tmp_path / "again")
    assert contained(tmp_path / "again") == contained(tmp_path / "out")


def test_the_usual_folder_is_named_after_the_types(
    model: Path, losses: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("convert", model, "--target-size", "100k", "--sensitivity", losses["gguf"], "--no-check", "-q")
    folder = Path(done.stdout.strip())
    assert folder.name.startswith("gemma-3-tiny-") and folder.name.endswith("bpw-gguf")
    assert sum(path.stat().st_size for path in folder.glob("*.gguf")) <= 100_000


def test_mlx_fits_a_mac_and_the_engine_decides_the_container(
    model: Path, losses: dict[str, Path], tmp_path: Path
) -> None:
    options = ("--fit", "m4 16gb", "--engine", "mlx", "--context", "1024", "--sensitivity", losses["mlx"])
    said = json.loads(run("convert", model, *options, "--no-check", "--json", "-o", tmp_path / "out").stdout)
    assert said["artifacts"][0]["container"] == "mlx"
    assert said["budget"]["target"] == "M4 16GB in mlx-lm at 1,024 tokens, bf16 cache"


def test_types_of_the_cache_that_cost_quality_are_told(model: Path, losses: dict[str, Path], tmp_path: Path) -> None:
    options = ("--fit", "RTX 4060", "--context", "1024", "--sensitivity", losses["gguf"], "--dry-run")
    told = [run("convert", model, *options, "--kv-type", kind).stderr for kind in ("q8_0", "q5_0,q8_0")]
    assert ["keys in q5_0 cost quality" in said for said in told] == [False, True]


def test_both_candidates_are_measured_and_the_figures_are_told(
    model: Path, losses: dict[str, Path], tmp_path: Path, require: Callable[[bool, str], None]
) -> None:
    need(require, "torch", "transformers")
    options = ("--target-bpw", "7", "--sensitivity", losses["gguf"], "-o", tmp_path / "out")
    said = json.loads(run("convert", model, *options, "--json").stdout)
    candidates = said["budget"]["candidates"]
    assert all(each["kl"]["mean"] > 0 and each["by_kind"] for each in candidates)
    (kept,) = (each for each in candidates if each["kept"])
    assert kept["kl"]["mean"] == min(each["kl"]["mean"] for each in candidates)
    assert recorded(tmp_path / "out")["quality"]["kl"] == float(f"{kept['kl']['mean']:.4g}")
    assert run("verify", tmp_path / "out", "--against", model).code == 0


def test_a_context_that_the_model_lacks_is_refused_before_anything_is_measured(model: Path, tmp_path: Path) -> None:
    flags = ("--fit", "RTX 4070", "--context", "999999", "-o", tmp_path / "out")
    said = refused(2, ("999999",), "convert", model, *flags, under=tmp_path)
    assert "sensitivities are measured" not in said.stderr


def test_an_existing_output_is_refused_before_anything_is_measured(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    said = refused(7, ("exists",), "convert", model, "--target-bpw", "6", "-o", tmp_path / "out", under=tmp_path)
    assert "sensitivities are measured" not in said.stderr


def test_too_few_bytes_are_refused_with_what_is_missing(model: Path, losses: dict[str, Path], tmp_path: Path) -> None:
    options = ("--target-bpw", "1", "--sensitivity", losses["gguf"], "-o", tmp_path / "out")
    refused(2, ("1 bits per weight cannot be met", "bytes more"), "convert", model, *options, under=tmp_path)
    flags = ("--target-bpw", "1", "-o", tmp_path / "out")
    said = refused(2, ("1 bits per weight cannot be met", "bytes more"), "convert", model, *flags, under=tmp_path)
    assert "sensitivities are measured" not in said.stderr
