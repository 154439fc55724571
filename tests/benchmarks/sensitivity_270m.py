"""Sensitivities of the real 270M: how long they take, how well they add up and predict, and what coarse ones lose.

    python tests/benchmarks/sensitivity_270m.py [--full FILE] [--coarse FILE] [--tokens 1024]

The source is the sample, dithered off the lattices of its own quantization. Predictions are compared with models whose
tensors are rounded to nearest, on the text that was measured on. Files of an earlier run are taken where they are
named. Times of larger models are those of this one times their operations.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich import print as show
from rich.table import Table

from gemmaq.calibration.complete import Basis
from gemmaq.calibration.resources import Resources
from gemmaq.calibration.sensitivity import measure, parts
from gemmaq.calibration.sensitivity_groups import Settings
from gemmaq.calibration.sensitivity_head import reference
from gemmaq.calibration.sensitivity_layers import nearest
from gemmaq.encodings import ENCODINGS
from gemmaq.inference import documents
from gemmaq.inference.decoder import decoder
from gemmaq.inference.device import open_device
from gemmaq.planning.request import Calibration
from gemmaq.planning.sensitivities import document, read
from gemmaq.progress import ignore
from gemmaq.qat.dither import dithered_folder
from gemmaq.sources.open import open_source

WIDE = 1 << 20
"""More than the vocabulary has."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--full", type=Path)
    options.add_argument("--coarse", type=Path)
    options.add_argument("--tokens", type=int, default=1024)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        dithered_folder(open_source("sample:gemma-3-270m", tokenizer=True), folder / "source", 0)
        source = open_source(str(folder / "source"), tokenizer=True)
        text = documents.shipped()
        basis = Basis(Calibration(text.names, text.digest), text, None)
        found = {}
        for name, given in (("full", asked.full), ("coarse", asked.coarse)):
            settings = Settings(asked.tokens, coarse=name == "coarse")
            started, path = time.monotonic(), given or folder / f"{name}.json"
            if given is None or not given.exists():
                made = measure(source, basis, resources=Resources("cpu", 2), progress=ignore, settings=settings)
                path.write_bytes(document(made))
                show(f"{name}: {time.monotonic() - started:.0f} s")
            found[name] = read(path)
        show(table(source, basis, found, Settings(asked.tokens)))
        show(f"rank of coarse against full, Q4_0: {rank(*found.values()):.2f}")


def table(source, basis, found, settings) -> Table:
    """Predicted and real divergences of the body in some types and mixtures."""
    body, random = list(source.matrices), np.random.default_rng(0)
    mixtures = {name: dict.fromkeys(body, name) for name in ("q4_0", "iq4_nl", "q4_1", "q5_0")}
    for seed in range(3):
        mixtures[f"mixture {seed}"] = dict(zip(body, random.choice(["q4_0", "q4_1", "q5_0"], len(body)), strict=True))
    made = Table(title="body in a type, rounded to nearest: mean KL in nats")
    for column in ("types", "full predicts", "coarse predicts", "real", "whole vocabulary"):
        made.add_column(column)
    text = parts(source, basis, settings)
    with open_device("cpu", 2) as device, decoder(source, device) as net:
        before = states(net, text)
        judges = [reference(net, before), reference(net, before, WIDE)]
        for name, types in mixtures.items():
            after = states(net, text, types)
            real = [judge.divergence(after) for judge in judges]
            predicted = [one.predicted(types, "nearest") for one in found.values()]
            made.add_row(name, *(f"{value:.4f}" for value in (*predicted, *real)))
        made.caption = f"the likeliest tokens have {100 * judges[0].mass:.2f} % of the probability"
    return made


def states(net, text, types=None):
    """Inputs of the head of a model with some matrices in types."""
    import torch

    def weights(tensor, first, count, reader):
        rows = net.weights(tensor, first, count, reader)
        return nearest(rows, ENCODINGS[types[tensor.name]]) if tensor.name in (types or {}) else rows

    other = replace(net, weights=weights)
    batches = other.embed(text.probed)
    for index in range(other.layers):
        other.through(other.layer(index), index, batches)
    return torch.cat([other.normed(batch.hidden[:, text.first :]).flatten(0, 1) for batch in batches])


def rank(full, coarse) -> float:
    """Spearman's correlation of the losses of single tensors with their shares in groups."""
    names = [group.names[0] for group in full.groups]
    each = [[one.predicted({name: "q4_0"}, "nearest") for name in names] for one in (full, coarse)]
    ranks = np.argsort(np.argsort(np.array(each), axis=1), axis=1)
    return float(np.corrcoef(ranks)[0, 1])


if __name__ == "__main__":
    main()
