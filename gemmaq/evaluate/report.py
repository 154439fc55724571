"""The page of an evaluation: complete in itself, without scripts, in the reader's choice of light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import takewhile
from pathlib import Path

from gemmaq.charts import svg as drawing
from gemmaq.convert.compare import Compared, by_kind, relative
from gemmaq.evaluate import Chunks
from gemmaq.evaluate.result import Model, number
from gemmaq.models.roles import DOWN, GATE, KEY, OUTPUT, QUERY, UP, VALUE

_MATRICES = {QUERY: "q", KEY: "k", VALUE: "v", OUTPUT: "o", GATE: "gate", UP: "up", DOWN: "down"}
_OTHERS = ("embedding", "head", "norm")
_MOST_ROWS = 16


@dataclass(frozen=True, slots=True)
class Page:
    """What is told.

    Attributes:
        found: the reference and the models.
        apart: how far every tensor of a model is from the reference's, for every model.
        chunks: of text.
        texts: names of its files.
        version: of gemmaq.
        table: the rows as they are shown elsewhere, the names of the columns first.
    """

    found: Sequence[Model]
    apart: Sequence[Sequence[Compared]]
    chunks: Chunks
    texts: Sequence[str]
    version: str
    table: Sequence[Sequence[str]]

    @property
    def models(self) -> Sequence[Model]:
        """Without the reference."""
        return self.found[1:]


def page(told: Page) -> str:
    """The page as HTML; the same for the same evaluation."""
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    colors = "".join(
        f".n.c{n}{{fill:var(--c{n})}}.p.c{n}{{fill:var(--c{n})}}.l.c{n}{{stroke:var(--c{n})}}\n"
        for n in range(drawing.COLORS)
    )
    sections = (_table(told), _size(told), _along(told), _weights(told))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>What quantization costs: {escape(told.found[0].label)}</title>\n"
        f"<style>\n{style}{colors}</style>\n</head>\n<body>\n{_head(told)}{''.join(sections)}{_foot(told)}</body>\n</html>\n"
    )


def _head(told: Page) -> str:
    count = len(told.models)
    what = "A model" if count == 1 else f"{count} models"
    where = ", ".join(told.texts)
    return (
        f'<header>\n<h1>What quantization costs</h1>\n<p class="lead">{what} against '
        f"<strong>{escape(told.found[0].label)}</strong> on {told.chunks.scored:,} tokens of {escape(where)}.</p>\n"
        f"<p>{_verdict(told.models)}</p>\n</header>\n"
    )


def _verdict(models: Sequence[Model]) -> str:
    closest = min(models, key=lambda model: model.score.kl_mean)
    smallest = min(models, key=lambda model: model.bytes)
    same = f"predicts the same next token in {100 * closest.score.top1:.1f} % of cases"
    if len(models) == 1:
        return f"Its mean KL divergence is {number(closest.score.kl_mean)} nats; it {same}."
    said = f"Closest is <strong>{escape(closest.label)}</strong>, with a mean KL divergence of "
    said += f"{number(closest.score.kl_mean)} nats; it {same}."
    if smallest is not closest:
        said += f" Smallest is <strong>{escape(smallest.label)}</strong>, with {number(smallest.score.kl_mean)} nats."
    return said


def _short(models: Sequence[Model]) -> dict[str, str]:
    """Label -> what of it is not the same in all, for charts."""
    labels = [model.label for model in models]
    columns = takewhile(lambda letters: len(set(letters)) == 1, zip(*labels, strict=False))
    common = "".join(letters[0] for letters in columns) if len(set(labels)) > 1 else ""
    start = max(common.rfind(mark) for mark in "-/.@") + 1
    return {label: label[start:] or label for label in labels}


def _section(title: str, about: str, content: str) -> str:
    return f'<section>\n<h2>{title}</h2>\n<p class="soft">{about}</p>\n{content}</section>\n'


def _grid(rows: Sequence[Sequence[str]], quiet_first: bool = False) -> str:
    head, *body = rows
    lines = ["<thead><tr>" + "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head) + "</tr></thead><tbody>"]
    for at, row in enumerate(body):
        kind = ' class="reference"' if quiet_first and not at else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        lines.append(f'<tr{kind}><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    return f'<div class="wide"><table>{"".join(lines)}</tbody></table></div>\n'


def _numbers(rows: Sequence[Sequence[str]]) -> str:
    return f"<details><summary>The numbers</summary>{_grid(rows)}</details>\n"


def _table(told: Page) -> str:
    about = (
        "Perplexity and KL divergence are better the smaller they are: perplexity says how well the text is predicted, "
        "KL divergence (nats per token) how far predictions are from the reference's. Top-1 is how often both hold the "
        "same token for the likeliest. ± is the standard error."
    )
    return _section("Results", about, _grid(told.table, quiet_first=True))


def _size(told: Page) -> str:
    unit, name = (1e9, "GB") if max(model.bytes for model in told.models) >= 1e9 else (1e6, "MB")
    names = _short(told.models)
    points = [drawing.Point(names[model.label], model.bytes, model.score.kl_mean) for model in told.models]
    about = "; ".join(
        f"{model.label}: {model.bytes / unit:.4g} {name}, mean KL {number(model.score.kl_mean)}"
        for model in told.models
    )
    chart = drawing.scatter(
        "Quality against size", about, f"size of the weight files, {name}", "mean KL, nats", points, unit
    )
    reference = told.found[0]
    said = (
        f"Down and to the left is better. The reference takes {reference.bytes / unit:,.4g} {name}. The numbers are "
        "those of the table above."
    )
    return _section("Quality against size", said, f'<div class="wide">{chart}</div>\n')


def _along(told: Page) -> str:
    chunks, count = told.chunks, len(told.chunks.tokens)
    ends = [chunks.per_chunk * (at + 1) for at in range(count)]
    drawn, names = [], _short(told.models)
    for model in told.models:
        each = model.score.kl.reshape(count, chunks.per_chunk).mean(1)
        running = each.cumsum() / range(1, count + 1)
        drawn.append(drawing.Line(names[model.label], tuple(running.tolist()), tuple(each.tolist())))
    about = "; ".join(f"{line.label} ends at {number(line.y[-1])}" for line in drawn)
    chart = drawing.lines("KL along the text", about, "tokens scored", "KL, nats", ends, drawn)
    shown = sorted({round(at * (count - 1) / max(1, _MOST_ROWS - 1)) for at in range(_MOST_ROWS)})
    rows = [("tokens", *(line.label for line in drawn))]
    rows += [(f"{ends[at]:,}", *(number(line.y[at]) for line in drawn)) for at in shown if at < count]
    said = "The mean over the text so far, and faintly that of every chunk. A flat line: more text would change little."
    return _section("KL divergence along the text", said, f'<div class="wide">{chart}</div>\n{_numbers(rows)}')


def _weights(told: Page) -> str:
    maps = [_by_layer(apart) for apart in told.apart]
    finite = [value for cells in maps for row in cells.values() for value in row if value is not None]
    most = max((value for value in finite if math.isfinite(value)), default=0.0)
    content = [f'<div class="wide">{drawing.scale(most, _percent)}</div>\n'] if most else []
    for model, apart, cells in zip(told.models, told.apart, maps, strict=True):
        content.append(f"<h3>{escape(model.label)}</h3>\n")
        sums = {kind: _together(some) for kind, some in by_kind(apart).items()}
        others = ", ".join(f"{kind} {_percent(sums[kind])}" for kind in _OTHERS if kind in sums)
        if not any(tensor.square_error for tensor in apart):
            content.append('<p class="soft">All weights are the reference\'s.</p>\n')
            continue
        rows = [(short, cells[kind], _percent(sums[kind])) for kind, short in _MATRICES.items() if kind in cells]
        about = ", ".join(f"{name} {word}" for name, _, word in rows)
        title = f"Relative error of the weights of {model.label}"
        content.append(f'<div class="wide">{drawing.heat(title, about, rows, most, _percent)}</div>\n')
        content.append(f'<p class="soft">Beside the layers\' matrices: {others}.</p>\n')
        layers = max(len(values) for _, values, _ in rows)
        table = [("layer", *(name for name, _, _ in rows))]
        table += [
            (str(at), *("" if (value := values[at]) is None else _percent(value) for _, values, _ in rows))
            for at in range(layers)
        ]
        content.append(_numbers(table))
    said = (
        "RMS of the difference from the reference's weights, relative to the RMS of those, for every layer (columns) "
        "and kind of matrix (rows); at the end of a row that of all layers. One scale for all models, whose "
        "steps are even in the square root."
    )
    return _section("Error of the weights", said, "".join(content))


def _by_layer(apart: Sequence[Compared]) -> dict[str, list[float | None]]:
    """Kind -> relative error for each layer."""
    found: dict[str, dict[int, float]] = {}
    for tensor in apart:
        if tensor.kind in _MATRICES and tensor.layer is not None:
            found.setdefault(tensor.kind, {})[tensor.layer] = tensor.error
    count = 1 + max((layer for row in found.values() for layer in row), default=0)
    return {kind: [row.get(layer) for layer in range(count)] for kind, row in found.items()}


def _together(some: Sequence[Compared]) -> float:
    return relative(math.fsum(tensor.square_error for tensor in some), math.fsum(tensor.square for tensor in some))


def _percent(error: float) -> str:
    if not math.isfinite(error):
        return "not comparable"
    return f"{100 * error:.2f} %" if error >= 1e-3 or not error else f"{100 * error:.2g} %"


def _foot(told: Page) -> str:
    chunks = told.chunks
    return (
        f"<footer>\n<p>Measured by gemmaq {escape(told.version)}: {len(chunks.tokens)} of {chunks.available} chunks of "
        f"{chunks.context} tokens, spread evenly over the text, the second half of each scored, as llama-perplexity "
        "does. Every model is computed in float32 with the weights it really holds.</p>\n</footer>\n"
    )
