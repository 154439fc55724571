"""A choice carried out: two candidates are measured, the better one gets its name, and nothing else stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import made_up
from damage import contained, small_model
from gemmaq.artifact import provenance
from gemmaq.budget import check
from gemmaq.budget import run as budgets
from gemmaq.budget.check import Check, Measured
from gemmaq.budget.choose import Source
from gemmaq.budget.goal import Bits, FileBytes, file_bytes
from gemmaq.convert.run import Options
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import OutputError
from gemmaq.evaluate.score import Score
from gemmaq.inference.documents import Document, Text
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.sources.open import open_source
from inprocess import run
from oracles import need

TEXTS = {
    kind: Text((Document("t", words * 800),), ("t",), "0" * 64)
    for kind, words in (("prose", "a river "), ("code", "x=1;\n"))
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("source") / "gemma-3-tiny")


def decided(folder: Path, container: str = "gguf", goal: Bits | FileBytes | None = None) -> budgets.Decision:
    checkpoint = open_source(str(folder))
    losses = made_up.sensitivities(checkpoint, container, real=True)
    return budgets.decide(Source(checkpoint, Request(of("q4_0"), (container,)), goal or Bits(7), losses, {}))


def work(out: Path, tested: Check | None = None, *, force: bool = False) -> budgets.Work:
    return budgets.Work(
        lambda plan: out / plan.label, None, (), Options(threads=2, force=force), tested, reference="org/tiny"
    )


def scores(kls: Sequence[float]) -> Callable[..., list[Measured]]:
    """A measurement that finds these divergences."""

    def measure(*arguments: object, **options: object) -> list[Measured]:
        tokens = np.ones(10)
        return [Measured({"prose": Score(tokens, kl * tokens, tokens > 0)}) for kl in kls]

    return measure


def test_the_chosen_types_are_predicted_to_lose_less_and_both_are_planned_within_the_budget(folder: Path) -> None:
    decision = decided(folder)
    assert decision.uniform is not None
    for choice in decision.candidates:
        assert choice.room >= 0 and choice.plan.bits_per_weight <= 7
        told = choice.plan.request.budget
        assert told is not None and told.target == "7 bits per weight"
        assert (told.predicted, told.uniform) == (float(f"{choice.predicted:.4g}"), decision.uniform.plan.label)
    assert (decision.chosen.predicted or 0) < (decision.uniform.predicted or 0)


def test_a_uniform_type_that_is_predicted_to_be_as_good_is_taken_by_its_own_name(folder: Path) -> None:
    decision = decided(folder, goal=FileBytes(1 << 40))
    assert decision.uniform is None and decision.chosen.plan.label == "BF16"


@pytest.mark.parametrize(("kls", "kept"), [((0.1, 0.2), 0), ((0.1, 0.1), 0), ((0.3, 0.2), 1)])
def test_the_candidate_that_is_measured_to_lose_less_is_kept(
    kls: tuple[float, ...], kept: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "measure", scores(kls))
    decision = decided(folder)
    done = budgets.carry_out(decision, work(tmp_path, Check(TEXTS)))
    label = decision.candidates[kept].plan.label
    assert done.kept is decision.candidates[kept]
    assert sorted(path.name for path in tmp_path.iterdir()) == [label]
    assert f"gemma-3-tiny-{label}.gguf" in contained(tmp_path / label)
    (record,) = provenance.read(tmp_path / label)
    assert record.label == label and record.quality is not None
    assert (record.quality.kl, record.quality.reference) == (kls[kept], "org/tiny")
    assert [entry["kl"] for entry in record.entry["candidates"]] == list(kls)
    assert record.request.budget == done.kept.plan.request.budget
    assert run("verify", tmp_path / label, "--against", folder).code == 0


@pytest.mark.parametrize("container", ["gguf", "mlx", "safetensors"])
def test_predicted_bytes_are_those_of_the_files_that_are_written_and_read_back(
    container: str, folder: Path, tmp_path: Path
) -> None:
    decision = decided(folder, container, Bits(7 if container != "safetensors" else 12))
    done = budgets.carry_out(decision, work(tmp_path))
    sizes = {path.name: path.stat().st_size for path in done.artifact.folder.iterdir()}
    assert all(sizes[file.name] == file.size for file in done.artifact.files)
    assert sum(file.size for file in done.artifact.files) == file_bytes(decision.source.checkpoint, done.kept.plan)
    weights = next(f.name for f in done.artifact.files if f.placements)
    made = open_source(str(done.artifact.folder / weights if container == "gguf" else done.artifact.folder))
    chosen = done.kept.plan.recipe.like
    assert chosen and all(made.tensors[name].encoding.same_codes(kind) for name, kind in chosen.items())
    assert done.kept.plan.file_type == ENCODINGS[done.kept.plan.body.name].file_type


def test_nothing_stays_of_a_run_that_fails(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> list[Measured]:
        raise OutputError("no more")

    monkeypatch.setattr(budgets, "measure", fail)
    with pytest.raises(OutputError, match="no more"):
        budgets.carry_out(decided(folder), work(tmp_path, Check(TEXTS)))
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_by_force(folder: Path, tmp_path: Path) -> None:
    decision = decided(folder)
    first = budgets.carry_out(decision, work(tmp_path))
    before = contained(first.artifact.folder)
    with pytest.raises(OutputError, match="exists"):
        budgets.carry_out(decision, work(tmp_path))
    budgets.carry_out(decision, work(tmp_path, force=True))
    assert contained(first.artifact.folder) == before


def test_measured_divergences_are_those_of_the_files(
    folder: Path, tmp_path: Path, require: Callable[[bool, str], None]
) -> None:
    need(require, "torch", "transformers")
    decision = decided(folder)
    tested = Check(TEXTS, tokens=300, context=64, cached=False)
    done = budgets.carry_out(decision, work(tmp_path, tested))
    kept = done.measured[decision.candidates.index(done.kept)]
    assert done.measured[0].kl != done.measured[1].kl
    assert kept.kl == min(measured.kl for measured in done.measured) > 0
    weights = done.artifact.folder / f"gemma-3-tiny-{done.kept.plan.label}.gguf"
    again = check.measure(
        decision.source.checkpoint,
        [open_source(str(weights)), open_source(str(folder))],
        replace(tested, texts={"code": TEXTS["code"]}),
        resources=check.Resources("cpu", 1),
        progress=lambda progress: None,
    )
    assert np.allclose(again[0].scores["code"].kl, kept.scores["code"].kl)
    assert again[1].kl == 0 and again[1].top1 == 1
