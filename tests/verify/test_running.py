"""A runtime's tokens against gemmaq's logits: rounding passes, other weights, another order or another model do not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oracles
from gemmaq.errors import InputError, UsageError, VerificationError
from gemmaq.models.families import FAMILIES
from gemmaq.sources.open import open_source
from gemmaq.verify import engines, running
from gemmaq.verify.engines import process
from gemmaq.verify.running import Outcome

Judge = Callable[..., Outcome]
Ask = Callable[..., process.Answer]


def own_tokens(path: Path, ids: list[int], count: int) -> tuple[list[int], list[float]]:
    """What gemmaq decodes greedily, and the log-probabilities."""
    from gemmaq.inference.device import open_device

    model, made, scores = open_source(str(path)), list(ids), []
    with open_device("cpu", 1) as device:
        for _ in range(count):
            (logits,) = running.predictions(model, [*made, 0], len(made), device=device, progress=lambda _: None)
            made.append(int(logits.argmax()))
            scores.append(float(logits.max() - np.log(np.exp(logits.astype(np.float64)).sum())))
    return made[len(ids) :], scores


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a runtime that answers what gemmaq decodes, but for a change."""
    monkeypatch.setattr(engines, "find", lambda engine: engines.Installed(engine, Path("python")))

    def install(path: Path, change: Callable[[process.Answer], process.Answer] = lambda answer: answer) -> None:
        def ask(runtime: engines.Installed, job: dict[str, Any], timeout: float) -> process.Answer:
            tokens, scores = own_tokens(path, job["ids"], job["tokens"])
            return change(process.Answer("1", tuple(job["ids"]), tuple(tokens), tuple(scores)))

        monkeypatch.setattr(process, "ask", ask)

    return install


def test_what_gemmaq_computes_itself_agrees_exactly(
    runs: dict[str, Path], judged: Judge, answering: Callable[..., None]
) -> None:
    answering(runs["mlx"])
    outcome = judged(runs["mlx"], "mlx-lm", runs["source"], tokens=3)
    assert outcome.agreed and outcome.shortfall == 0 and outcome.drift == pytest.approx(0, abs=1e-4)
    assert outcome.margin and outcome.prompt == f"<bos>{running.BEGINNING}"
    assert outcome.source_same is not None and 0 <= outcome.source_same <= 3
    assert judged(runs["source"], "transformers", runs["source"], tokens=2).source_same is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": (7, 8)}, ("token ", "logits below", "are allowed")),
        ({"logprobs": (-0.1, -0.1)}, ("log-probability of token", "may differ by")),
        ({"tokens": (320, 5)}, ("decoded tokens that the vocabulary does not have",)),
        ({"prompt": (2, 5)}, ("makes other tokens of the prompt",)),
    ],
)
def test_what_differs_is_said(
    changes: dict[str, Any],
    words: tuple[str, ...],
    runs: dict[str, Path],
    judged: Judge,
    answering: Callable[..., None],
) -> None:
    answering(runs["gguf"], lambda answer: replace(answer, **changes))
    outcome = judged(runs["gguf"], "llama-server", tokens=2)
    assert not outcome.agreed
    (problem,) = outcome.problems
    assert all(word in problem for word in words), problem


def test_other_tokens_of_the_users_own_prompt_are_no_fault_of_the_file(
    runs: dict[str, Path], judged: Judge, answering: Callable[..., None]
) -> None:
    answering(runs["gguf"], lambda answer: replace(answer, prompt=(2,)))
    outcome = judged(runs["gguf"], "xllamacpp", tokens=1, prompt="odd")
    assert outcome.agreed and "it was given the latter" in outcome.notes[0]


def test_probabilities_that_a_runtime_does_not_say_are_not_compared(
    runs: dict[str, Path], judged: Judge, answering: Callable[..., None]
) -> None:
    answering(runs["gguf"], lambda answer: replace(answer, logprobs=(None, answer.logprobs[1])))
    outcome = judged(runs["gguf"], "xllamacpp", tokens=2)
    assert outcome.agreed and outcome.drift == pytest.approx(0, abs=1e-4)
    answering(runs["gguf"], lambda answer: replace(answer, logprobs=(None, None)))
    assert judged(runs["gguf"], "xllamacpp", tokens=2).drift is None


def test_a_runtime_that_fails_is_a_problem(
    runs: dict[str, Path], judged: Judge, answering: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> process.Answer:
        raise VerificationError("xllamacpp crashed (SIGSEGV)")

    answering(runs["gguf"])
    monkeypatch.setattr(process, "ask", ask)
    outcome = judged(runs["gguf"], "xllamacpp")
    assert outcome.problems == ("xllamacpp crashed (SIGSEGV)",)
    assert (outcome.version, outcome.tokens, outcome.shortfall) == (None, (), None)


def test_a_prompt_that_is_too_long_is_refused(
    runs: dict[str, Path], judged: Judge, answering: Callable[..., None]
) -> None:
    answering(runs["gguf"])
    with pytest.raises(UsageError, match="the context of the model ends at 2048"):
        judged(runs["gguf"], "xllamacpp", prompt="a b " * 2000)


def test_models_that_decode_nothing_alone_are_refused(runs: dict[str, Path]) -> None:
    model = open_source(str(runs["gguf"]))
    running.check_model(model)
    for family in FAMILIES:
        if family.embeds or family.drafts:
            why = "makes vectors of texts" if family.embeds else "beside its target alone"
            with pytest.raises(InputError, match=why):
                running.check_model(replace(model, family=family))


def scaled_norm(path: Path) -> None:
    """Multiply the norm behind the last layer, about 1, by a slope from a half to two."""
    change(path, "final_norm", lambda weights: (1 + weights) * np.geomspace(0.5, 2, len(weights)) - 1)


def change(path: Path, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    """Overwrite an f32 or BF16 tensor of an artifact."""
    tensor = getattr(open_source(str(path)), name)
    (part,) = tensor.parts
    file, bf16 = part.span.paths[0], tensor.encoding.name == "bf16"
    with file.open("r+b") as opened:
        opened.seek(part.offset)
        raw = opened.read(tensor.elements * (2 if bf16 else 4))
        values = (
            (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
            if bf16
            else np.frombuffer(raw, np.float32)
        )
        shift = np.float32(tensor.shift)
        edited = (edit(values + shift) - shift).astype(np.float32)
        opened.seek(part.offset)
        opened.write(((edited.view(np.uint32) >> 16).astype(np.uint16) if bf16 else edited).tobytes())


def zeroed_blocks(path: Path) -> None:
    """Zero the first rows of a matrix of the first layer."""
    model = open_source(str(path))
    tensor = next(t for t in model.matrices.values() if t.place.part.endswith("down_proj"))
    part = tensor.parts[0]
    with part.span.paths[0].open("r+b") as opened:
        opened.seek(part.offset)
        opened.write(bytes(part.row_bytes * tensor.rows // 2))


RUNTIMES = {"gguf": "xllamacpp", "mlx": "mlx-lm"}


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("spoil", [scaled_norm, zeroed_blocks])
@pytest.mark.parametrize("container", RUNTIMES)
def test_a_runtime_that_computes_from_other_weights_is_found(
    container: str,
    spoil: Callable[[Path], None],
    runs: dict[str, Path],
    judged: Judge,
    require: Callable[[bool, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """gemmaq reads the artifact, the runtime a spoilt copy of it: as if it read the file in another way."""
    oracles.need(require, "xllamacpp", "mlx_lm", "torch", "transformers")
    copy = Path(shutil.copytree(runs[container], tmp_path / "copy"))
    spoil(copy)
    real = process.ask

    def ask(runtime: engines.Installed, job: dict[str, Any], timeout: float) -> process.Answer:
        model = Path(job["model"])
        return real(runtime, {**job, "model": str(copy / model.name if model.is_file() else copy)}, timeout)

    monkeypatch.setattr(process, "ask", ask)
    outcome = judged(runs[container], RUNTIMES[container])
    assert "does not compute what the file holds" in outcome.problems[0]
