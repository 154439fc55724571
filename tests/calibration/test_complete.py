"""Plans completed for their methods, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from calibrating import CONTEXT, MATRICES, planned, read_back
from damage import SMALL, tree
from gemmaq.calibration import complete as completing
from gemmaq.calibration.complete import Basis, complete, importance, needed, sequences
from gemmaq.calibration.resources import Resources
from gemmaq.calibration.store import Store
from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.layout import lay_out
from gemmaq.errors import InputError, OutputError, UsageError
from gemmaq.inference.documents import Text
from gemmaq.planning.plan import Plan
from gemmaq.planning.recipe import Rule
from gemmaq.planning.request import Calibration
from gemmaq.progress import Progress, ignore

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def settled(checkpoint: Checkpoint, plans: list[Plan], text: Text | None, folder: Path, matrix: Any = None) -> Any:
    basis = Basis(Calibration(("letters.txt",), "", context=CONTEXT), text, matrix)
    return complete(plans, checkpoint, basis, resources=Resources("cpu", 2), near=folder, progress=ignore)


def test_plans_are_completed_in_every_place(checkpoint, text, tmp_path):
    rules = (Rule("*.v_proj.*", None, "importance"), Rule("*.o_proj.*", None, "nearest"))
    plans = planned(checkpoint, rules=rules)
    assert needed(plans) == ("importance", "gptq") and needed(planned(checkpoint, "nearest")) == ()
    with settled(checkpoint, plans, text, tmp_path / "deep/er/out") as ready:
        assert next((tmp_path / "deep/er").iterdir()).name.startswith("out.")
        for plan in ready:
            (artifact,) = lay_out(checkpoint, [plan], tmp_path / "out")
            placed = [at.tensor for f in artifact.files for at in f.placements]
            assert len(placed) == len(plan.everything) and {*map(id, placed)} == {*map(id, plan.everything)}
            for p in plan.tensors:
                if p.choice.method == "gptq":
                    assert p.solved is not None and p.solved.encoding == p.encoding
                    assert read_back(p.solved).codes.shape == p.source.shape
                else:
                    assert p.solved is None
                assert (p.choice.importance is not None) == (p.choice.method == "importance")
    assert tree(tmp_path) == {}
    with settled(checkpoint, planned(checkpoint, "nearest"), None, tmp_path / "out") as ready:
        assert len(ready) == 1 and tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("given", "enough", "method", "sweeps"),
    [(None, 64, "gptq", 2), (None, 1 << 20, "gptq", 0), (5, 1 << 20, "gptq", 5), (None, 64, "importance", 0)],
)
def test_codes_are_chosen_again_where_there_is_text_enough(
    given, enough, method, sweeps, checkpoint, text, monkeypatch
):
    monkeypatch.setattr(completing, "ENOUGH", enough)
    basis = Basis(Calibration(("letters.txt",), "", context=CONTEXT, sweeps=given), text, None)
    known = completing.settled(basis, checkpoint, methods=[method]).calibration
    assert known.sweeps == sweeps and known.used >= 64


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, InputError("x"), ValueError("x")])
@pytest.mark.parametrize("where", ["while solving", "while writing"])
def test_nothing_is_left_after_a_failure(failure, where, checkpoint, text, tmp_path):
    count = 0

    def append(self: Store, *what: Any, real: Any = Store.append) -> Any:
        nonlocal count
        count += 1
        if count == 5 and where == "while solving":
            assert len(tree(tmp_path)) == 5
            raise failure
        return real(self, *what)

    def go() -> None:
        with settled(checkpoint, planned(checkpoint), text, tmp_path / "out"):
            assert where == "while writing" and len(tree(tmp_path)) == MATRICES + 1
            raise failure

    with patch.object(Store, "append", append), pytest.raises(failure if isinstance(failure, type) else type(failure)):
        go()
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("step", ["gemmaq.calibration.store.Store.append", "tempfile.mkdtemp"])
def test_no_room_for_codes_is_told(step, checkpoint, text, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    with (
        pytest.raises(OutputError, match="No space left"),
        settled(checkpoint, planned(checkpoint), text, tmp_path / "out"),
    ):
        pass
    monkeypatch.undo()
    assert tree(tmp_path) == {}


def test_what_cannot_be_calibrated_is_told(checkpoint, model, text, tmp_path):
    for method in ("gptq", "importance"):
        with (
            pytest.raises(UsageError, match=f"method {method} needs"),
            settled(checkpoint, planned(checkpoint, method), None, tmp_path / "out"),
        ):
            pass
    wide = Calibration((), "", context=SMALL.max_position_embeddings + 1)
    with pytest.raises(InputError, match="2049 tokens is longer than the model's 2048"):
        sequences(checkpoint, Basis(wide, text, None))
    assert list(tmp_path.iterdir()) == []


def test_several_plans_get_the_codes_that_each_wants(checkpoint, text, tmp_path):
    """One pass for all of them; what two want alike is stored once."""
    (q4_0,), (q5_0,), (again,) = planned(checkpoint), planned(checkpoint, quant="q5_0"), planned(checkpoint)
    (rounded,) = planned(checkpoint, "nearest")
    with settled(checkpoint, [q4_0, q5_0, again, rounded], text, tmp_path / "out") as ready:
        assert len(tree(tmp_path)) == 2 * (MATRICES + 1) - 1  # the folder is one of them
        for plan, wanted in zip(ready, (q4_0, q5_0, again, rounded), strict=True):
            for done, asked in zip(plan.tensors, wanted.tensors, strict=True):
                assert (done.solved is None) == (asked.choice.method != "gptq")
                assert done.solved is None or done.solved.encoding == asked.encoding
        for one, other in zip(ready[0].tensors, ready[2].tensors, strict=True):
            assert one.solved == other.solved


def test_room_is_asked_for_all_that_an_importance_matrix_keeps(checkpoint, tokens, tmp_path, monkeypatch):
    work, asked, found = tmp_path / "work", list[int](), list[int]()

    def count(_: Progress) -> None:
        found.append(sum(path.stat().st_size for path in work.rglob("*") if path.is_file()))

    monkeypatch.setattr(completing, "check_room", lambda folder, size: asked.append(size))
    kept = Resources("cpu", 1, work=work)
    passes = sum(1 for _ in importance(checkpoint, tokens, ("a.txt",), resources=kept, progress=count, every=2))
    assert passes == 3
    assert max(found) <= asked[0] < 4 * max(found)
