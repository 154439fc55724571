"""The part of a card that says how its models were made: source, types of the tensors, methods, calibration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gemmaq.artifact.description import Model
from gemmaq.files import quoting
from gemmaq.methods import METHODS, Needs
from gemmaq.planning.request import Calibration


def source(model: Model) -> str:
    """A sentence about the source; empty if it is not known."""
    if model.adapter is not None:
        own, rank = model.adapter, f" of rank {model.adapter['rank']}" if model.adapter["rank"] else ""
        adapter = _named(own["name"], own["repo"], own["revision"])
        base = _named(own["base"], model.repo, model.revision)
        return f"The {quoting.markdown(own['kind'])} adapter {adapter}{rank} was merged into {base} in float32."
    return f"The source is {_named(model.repo, model.repo, model.revision)}." if model.repo is not None else ""


def requantized(models: Sequence[Model]) -> str:
    """A sentence about codes that were chosen from weights that had been quantized before; empty if there are none."""
    counts = [
        f"{model.requantized:,} {'tensor' if model.requantized == 1 else 'tensors'}"
        + (f" of {model.label}" if len(models) > 1 else "")
        for model in models
        if model.requantized
    ]
    lost = "were rounded a second time: the source had them quantized in another type."
    return f"The weights of {' and '.join(counts)} {lost}" if counts else ""


def _named(name: str, repo: str | None, revision: str | None) -> str:
    """A repository with its commit, or a name where it is not known."""
    commit = f", commit {quoting.code(revision[:12])}" if revision else ""
    return f"[{repo}](https://huggingface.co/{repo}){commit}" if repo else quoting.markdown(name)


def table_of_tensors(models: Sequence[Model]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table: types of the tensors of each model, and the methods that chose their codes."""
    columns, lines = ["type", "tensors", "method"], []
    for model in models:
        kinds = ", ".join(f"{count} {name.upper()}" for name, count in Counter(model.kinds).most_common())
        lines.append([model.label, kinds, ", ".join(map(quoting.code, model.methods))])
    return columns, lines


def methods(models: Sequence[Model]) -> list[str]:
    """A sentence for each method, and for each text or importance matrix that models were calibrated on."""
    names = dict.fromkeys(name for model in models for name in model.methods)
    said = [f"* `{name}`: {METHODS[name].title}." for name in names if name in METHODS]
    calibrated: dict[str, list[str]] = {}
    for model in models:
        if model.calibration is not None:
            for sentence in _calibration(model.calibration, model.methods):
                calibrated.setdefault(sentence, []).append(model.label)
    everything = {model.label for model in models if model.methods}
    for sentence, labels in calibrated.items():
        which = "" if set(labels) == everything else f" ({', '.join(labels)})"
        said.append(f"* {sentence}{which}.")
    return said


def _calibration(calibration: Calibration, names: Sequence[str]) -> list[str]:
    """Clauses about what methods were calibrated on."""
    needs = {METHODS[name].needs for name in names if name in METHODS}
    said = []
    matrix = calibration.matrix
    if matrix is not None and Needs.IMPORTANCE in needs:
        texts = f" of {_texts(matrix.datasets)}" if matrix.datasets else ""
        chunks = f", {matrix.chunks:,} sequences{texts}" if matrix.chunks else texts.replace(" of ", ", from ", 1)
        said.append(f"Importance matrix: {quoting.code(matrix.file)}{chunks}{_used(calibration)}")
    elif Needs.IMPORTANCE in needs and not calibration.texts:
        said.append("Calibrated by an importance matrix")
    if calibration.texts and (Needs.HESSIAN in needs or matrix is None) and needs - {Needs.NOTHING}:
        count = f"{calibration.used:,}" if calibration.used else f"up to {calibration.tokens:,}"
        said.append(
            f"Calibrated on {_texts(calibration.texts)}: {count} tokens, in sequences of {calibration.context:,}"
        )
    refine = calibration.refine
    if refine is not None and refine.kept:
        gain = f"KL divergence from {refine.before:.4f} to {refine.after:.4f} nats on text held out"
        said.append(f"Norms tuned to the codes on {_texts(calibration.texts)}, {refine.kept:,} steps: {gain}")
    return said


def _texts(names: Sequence[str]) -> str:
    return " and ".join(map(quoting.markdown, names))


def _used(calibration: Calibration) -> str:
    return f", {calibration.used:,} tokens" if calibration.used else ""
