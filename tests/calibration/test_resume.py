"""Calibration that was interrupted goes on behind the last layer that is done, with the same bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
from calibrating import opened, planned, problems_of
from damage import SMALL, tree
from fake_peers import together
from gemmaq.calibration import gptq, layerwise, resume
from gemmaq.calibration.resume import Kept, Passes, bytes_kept, check_room, folder_of, is_written, mark, owned
from gemmaq.calibration.statistics import squares
from gemmaq.calibration.store import Store
from gemmaq.errors import InputError, OutputError
from gemmaq.inference.decoder import Decoder
from gemmaq.inference.peers import ALONE, Peers
from gemmaq.progress import Progress, ignore
from gemmaq.sources.open import open_source

pytestmark = pytest.mark.usefixtures("torch_and_transformers")
JOB = {"text": "a"}


class KilledError(BaseException):
    """Stands for the end of the process."""


def dying(at: int) -> Callable[[Progress], None]:
    """Ends a run when so many layers are done."""

    def report(progress: Progress) -> None:
        if progress.done == at:
            raise KilledError

    return report


def solve(checkpoint: Any, tokens: np.ndarray, folder: Path, *, progress: Any = ignore, peers: Peers = ALONE) -> Any:
    """Run `quantize` in a folder; gives the files."""
    problems = problems_of(planned(checkpoint)[0])
    with opened(checkpoint) as net:
        kept = Kept(folder, JOB, net.device, peers)
        store = Store(Kept.files_in(folder))
        settings = gptq.Settings()
        solved = layerwise.quantize(
            net, tokens, problems, settings=settings, store=store, progress=progress, peers=peers, kept=kept
        )
    return {problem.stem for problem in solved.tensors}, {name: list(n) for name, n in solved.counts.items()}


def files(folder: Path) -> dict[str, bytes | None]:
    return tree(Kept.files_in(folder))


@pytest.fixture(scope="module")
def whole(checkpoint, tokens, tmp_path_factory) -> tuple[Any, dict[str, bytes | None]]:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "out.work"
    return solve(checkpoint, tokens, folder), files(folder)


@pytest.mark.parametrize("layers", [1, 2])
def test_gptq_goes_on_with_the_same_codes(checkpoint, tokens, tmp_path, whole, layers, monkeypatch):
    with pytest.raises(KilledError):
        solve(checkpoint, tokens, tmp_path / "work", progress=dying(layers))
    (Kept.files_in(tmp_path / "work") / "half of a layer").write_bytes(b"half")
    loaded = []
    monkeypatch.setattr(Decoder, "layer", lambda net, at, usual=Decoder.layer: (loaded.append(at), usual(net, at))[1])
    assert (solve(checkpoint, tokens, tmp_path / "work"), files(tmp_path / "work")) == whole
    assert loaded == list(range(layers, SMALL.num_hidden_layers))


def test_several_processes_go_on_with_what_one_has_kept(checkpoint, tokens, tmp_path, whole, monkeypatch):
    monkeypatch.setattr("gemmaq.calibration.hessians.GATHERED", 80)
    monkeypatch.setattr("gemmaq.calibration.activations.GATHERED", 80)
    solve(checkpoint, tokens, tmp_path / "whole")
    with pytest.raises(KilledError):
        solve(checkpoint, tokens, tmp_path / "work", progress=dying(1))
    first, *others = together(3, lambda peers: solve(checkpoint, tokens, tmp_path / "work", peers=peers))
    assert first == whole[0] and others == [(set(), {})] * 2
    assert files(tmp_path / "work") == files(tmp_path / "whole")


def test_counts_of_experts_and_shared_keys_are_kept(tokens, tmp_path):
    checkpoint = open_source(str(gemma4.write(tmp_path / "gemma-4-tiny", gemma4.EXPERTS)))
    few = tokens % checkpoint.config.vocab_size
    wanted = solve(checkpoint, few, tmp_path / "whole")
    with pytest.raises(KilledError):
        solve(checkpoint, few, tmp_path / "work", progress=dying(4))
    assert solve(checkpoint, few, tmp_path / "work") == wanted and wanted[1]
    assert files(tmp_path / "work") == files(tmp_path / "whole")


@pytest.mark.parametrize("layers", [1, 2])
def test_sums_of_squares_go_on(checkpoint, tokens, tmp_path, layers):
    with opened(checkpoint) as net:
        kept = Kept(tmp_path / "work", JOB, net.device, ALONE)
        wanted = squares(net, tokens, ignore)
        with pytest.raises(KilledError):
            squares(net, tokens, dying(layers), ALONE, kept)
        found = squares(net, tokens, ignore, ALONE, Kept(tmp_path / "work", JOB, net.device, ALONE))
    assert found.keys() == wanted.keys()
    assert all((found[name][at] == wanted[name][at]).all() for name in wanted for at in (0, 1))


def test_passes_that_are_done_are_kept_as_their_sums(checkpoint, tmp_path):
    sums = {"a": (np.array([[0.1, 1e300]]), np.array([7]))}
    passes = Passes(tmp_path / "work", JOB, ALONE)
    assert passes.begin() == (0, {})
    with opened(checkpoint) as net:
        passes.layers(0, net.device).begin()
    passes.close(1, sums)
    passes.close(2, sums)
    assert os.listdir(tmp_path / "work") == ["sums-0002"]
    done, found = passes.begin()
    assert done == 2 and (found["a"][0] == sums["a"][0]).all() and found["a"][1] == [7]
    with pytest.raises(InputError, match="is of a run with another model, text, version or settings"):
        Passes(tmp_path / "work", {"text": "b"}, ALONE).begin()


def test_another_run_and_damage_are_refused(checkpoint, tokens, tmp_path):
    work = tmp_path / "work"
    solve(checkpoint, tokens, work)
    with opened(checkpoint) as net:
        with pytest.raises(InputError, match="is of a run with another model") as caught:
            Kept(work, {"text": "b"}, net.device, ALONE).begin()
        assert caught.value.hint == "remove it to begin again"
        name = sorted(tree(Kept.files_in(work)))[0]
        (Kept.files_in(work) / name).write_bytes(b"damaged")
        with pytest.raises(InputError, match=f"{name} is damaged"):
            Kept(work, JOB, net.device, ALONE).begin()


def test_what_does_not_fit_is_refused_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "free_space", lambda folder: (folder.parent, 1000))
    check_room(tmp_path / "work", 1000)
    with pytest.raises(OutputError, match="1,000 bytes free, 1,001 are needed to go on"):
        check_room(tmp_path / "work", 1001)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "there").write_bytes(bytes(500))
    check_room(tmp_path / "work", 1500)


def test_bytes_are_those_of_files_and_of_activations_before_two_layers(checkpoint, tokens, tmp_path):
    solve(checkpoint, tokens, tmp_path / "work")
    codes = sum(len(content or b"") for content in files(tmp_path / "work").values())
    there = sum(path.stat().st_size for path in (tmp_path / "work").rglob("*") if path.is_file())
    told = bytes_kept(checkpoint.config, tokens.size, codes)
    assert told == codes + 2 * 4 * tokens.size * SMALL.hidden_size
    assert told * 0.9 < there < told * 1.1 + 20_000, "numpy's headers and the records come on top"


def test_what_was_kept_is_removed(tmp_path):
    work = folder_of(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), owned(work):
        (work / "gptq").mkdir()
        (work / "gptq/job.json").write_text(json.dumps(JOB))
        raise KeyboardInterrupt
    with owned(work):
        assert (work / "gptq/job.json").exists()
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), owned(work):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_what_others_put_there_stays(tmp_path):
    work = folder_of(tmp_path / "out")
    with owned(work):
        (work / "notes.txt").write_text("mine")
    assert os.listdir(work) == ["notes.txt"]
    with pytest.raises(OutputError, match="holds notes"), owned(work):
        pass


def test_an_output_is_known_for_that_of_the_interrupted_run(tmp_path):
    out, stage = tmp_path / "out", tmp_path / "stage"
    for place in (folder_of(out), stage / "gguf", stage / "mlx"):
        place.mkdir(parents=True)
    for name in ("gguf", "mlx"):
        (stage / name / "SHA256SUMS").write_text(f"{name}\n")
        assert not is_written(out)
        mark(out, out / name, stage / name)
    assert not is_written(out), "it has no name yet"
    stage.rename(out)
    assert is_written(out)
    (out / "mlx" / "SHA256SUMS").write_text("another artifact\n")
    assert not is_written(out)
