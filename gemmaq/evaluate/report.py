"""The report of an evaluation as an HTML page: complete in itself, without scripts, light or dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import takewhile
from pathlib import Path

from gemmaq.charts import Labels, axes, frontier
from gemmaq.charts import svg as drawing
from gemmaq.convert.compare import Compared, by_kind, relative
from gemmaq.evaluate.chunks import Chunks
from gemmaq.evaluate.result import Result, format_kl, kind_rows
from gemmaq.models.roles import DOWN, GATE, KEY, OUTPUT, QUERY, UP, VALUE

_MATRICES = {QUERY: "q", KEY: "k", VALUE: "v", OUTPUT: "o", GATE: "gate", UP: "up", DOWN: "down"}
"""Kind of a layer's matrix -> its name in charts, in the order of rows."""
_MOST_ROWS = 16


@dataclass(frozen=True, slots=True)
class Page:
    """Content of the page.

    Attributes:
        results: Results of the reference and the models.
        errors: Errors of the weights against the reference's, a list for each model.
        chunks: Chunks of text.
        texts: Names of the text files.
        version: Version of gemmaq.
        table: Rows of the table of results, the names of the columns first.
        cards: Bytes of the largest files that cards hold.
    """

    results: Sequence[Result]
    errors: Sequence[Sequence[Compared]]
    chunks: Chunks
    texts: Sequence[str]
    version: str
    table: Sequence[Sequence[str]]
    cards: Sequence[frontier.Limit] = ()

    @property
    def models(self) -> Sequence[Result]:
        """Results without that of the reference."""
        return self.results[1:]


def render(page: Page) -> str:
    """Write the page as HTML; the same for the same evaluation."""
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    colors = "".join(
        f".n.c{n}{{fill:var(--c{n})}}.p.c{n}{{fill:var(--c{n})}}.l.c{n}{{stroke:var(--c{n})}}\n"
        for n in range(axes.COLORS)
    )
    sections = (_table(page), _size(page), _along(page), _weights(page))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>What quantization costs: {escape(page.results[0].label)}</title>\n"
        f"<style>\n{style}{colors}</style>\n</head>\n<body>\n{_head(page)}{''.join(sections)}{_foot(page)}</body>\n</html>\n"
    )


def _head(page: Page) -> str:
    count = len(page.models)
    what = "A model" if count == 1 else f"{count} models"
    where = ", ".join(page.texts)
    return (
        f'<header>\n<h1>What quantization costs</h1>\n<p class="lead">{what} against '
        f"<strong>{escape(page.results[0].label)}</strong> on {page.chunks.scored:,} tokens of {escape(where)}.</p>\n"
        f"<p>{_verdict(page.models)}</p>\n</header>\n"
    )


def _verdict(models: Sequence[Result]) -> str:
    closest = min(models, key=lambda model: model.score.kl_mean)
    smallest = min(models, key=lambda model: model.bytes)
    same = f"predicts the same next token in {100 * closest.score.top1:.1f} % of cases"
    if len(models) == 1:
        return f"Its mean KL divergence is {format_kl(closest.score.kl_mean)} nats; it {same}."
    text = f"Closest is <strong>{escape(closest.label)}</strong>, with a mean KL divergence of "
    text += f"{format_kl(closest.score.kl_mean)} nats; it {same}."
    if smallest is not closest:
        text += (
            f" Smallest is <strong>{escape(smallest.label)}</strong>, with {format_kl(smallest.score.kl_mean)} nats."
        )
    return text


def _short(models: Sequence[Result]) -> dict[str, str]:
    """Label -> its part that differs between models, for charts."""
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


def _table(page: Page) -> str:
    about = (
        "Perplexity and KL divergence are better the smaller they are: perplexity says how well the text is predicted, "
        "KL divergence (nats per token) how far predictions are from the reference's, and 99 % KL how far at most on "
        "99 % of the tokens. Top-1 is how often both hold the same token for the likeliest, RMS Δp by how much the "
        "probability of the text's tokens changes (root mean square). ± is the standard error."
    )
    kinds = _grid(kind_rows(page.results, page.chunks)) if page.chunks.kinds else ""
    title = "<h3>Mean KL by kind of text</h3>\n" if kinds else ""
    return _section("Results", about, _grid(page.table, quiet_first=True) + title + kinds)


def _size(page: Page) -> str:
    unit, name = (1e9, "GB") if max(model.bytes for model in page.models) >= 1e9 else (1e6, "MB")
    names = _short(page.models)
    points = [drawing.Point(names[model.label], model.bytes, model.score.kl_mean) for model in page.models]
    about = "; ".join(
        f"{model.label}: {model.bytes / unit:.4g} {name}, mean KL {format_kl(model.score.kl_mean)}"
        for model in page.models
    )
    labels = Labels("Quality against size", f"size of the weight files, {name}", "mean KL, nats", about)
    text = f"Down and to the left is better. The reference takes {page.results[0].bytes / unit:,.4g} {name}. "
    if len(points) < frontier.LEAST:
        chart = drawing.scatter(labels, points, unit)
    else:
        known = [frontier.Model(point.label, int(point.x), point.y, _is_chosen(point.label)) for point in points]
        chart = frontier.chart(labels, known, page.cards, unit)
        text += frontier.about(known, page.cards)
    text += "The numbers are those of the table above."
    return _section("Quality against size", text, f'<div class="wide">{chart}</div>\n')


def _is_chosen(label: str) -> bool:
    """Whether types were chosen tensor by tensor, by the name of the model."""
    return label.removesuffix(".gguf").lower().endswith("bpw")


def _along(page: Page) -> str:
    chunks, count = page.chunks, len(page.chunks.tokens)
    ends = [chunks.per_chunk * (at + 1) for at in range(count)]
    drawn, names = [], _short(page.models)
    for model in page.models:
        each = model.score.kl.reshape(count, chunks.per_chunk).mean(1)
        running = each.cumsum() / range(1, count + 1)
        drawn.append(drawing.Line(names[model.label], tuple(running.tolist()), tuple(each.tolist())))
    about = "; ".join(f"{line.label} ends at {format_kl(line.y[-1])}" for line in drawn)
    chart = drawing.lines(Labels("KL along the text", "tokens scored", "KL, nats", about), ends, drawn)
    shown = sorted({round(at * (count - 1) / max(1, _MOST_ROWS - 1)) for at in range(_MOST_ROWS)})
    rows = [("tokens", *(line.label for line in drawn))]
    rows += [(f"{ends[at]:,}", *(format_kl(line.y[at]) for line in drawn)) for at in shown if at < count]
    text = "The mean over the text so far, and faintly that of every chunk. A flat line: more text would change little."
    return _section("KL divergence along the text", text, f'<div class="wide">{chart}</div>\n{_numbers(rows)}')


def _weights(page: Page) -> str:
    maps = [_by_layer(errors) for errors in page.errors]
    finite = [value for cells in maps for row in cells.values() for value in row if value is not None]
    most = max((value for value in finite if math.isfinite(value)), default=0.0)
    content = [f'<div class="wide">{drawing.scale(most, _percent)}</div>\n'] if most else []
    shown: set[str] = set()
    for model, errors, cells in zip(page.models, page.errors, maps, strict=True):
        if model.source in shown:
            continue  # the same weights with another cache
        shown.add(model.source)
        content.append(f"<h3>{escape(model.weights_label)}</h3>\n")
        if any(tensor.square_error for tensor in errors):
            content.append(_heat_map(model.weights_label, errors, cells, most=most))
        else:
            content.append('<p class="soft">All weights are the reference\'s.</p>\n')
    about = (
        "RMS of the difference from the reference's weights, relative to the RMS of the reference's, for every layer "
        "(columns) and kind of matrix (rows), with all layers together at the end of a row. All models share one "
        "scale, whose steps are even in the square root."
    )
    return _section("Error of the weights", about, "".join(content))


def _heat_map(
    label: str, errors: Sequence[Compared], cells: Mapping[str, Sequence[float | None]], *, most: float
) -> str:
    """The map of a model's errors by layer, a line for all other tensors, and the numbers."""
    sums = {kind: _percent(_together(group)) for kind, group in by_kind(errors).items()}
    rows = [(short, cells[kind], sums[kind]) for kind, short in _MATRICES.items() if kind in cells]
    others = ", ".join(f"{kind} {text}" for kind, text in sums.items() if kind not in cells)
    title = f"Relative error of the weights of {label}"
    description = ", ".join(f"{name} {text}" for name, _, text in rows)
    chart = drawing.heat(Labels(title, description=description), rows, most=most, say=_percent)
    layers = max(len(values) for _, values, _ in rows)
    table = [("layer", *(name for name, _, _ in rows))]
    table += [
        (str(layer), *("" if (value := values[layer]) is None else _percent(value) for _, values, _ in rows))
        for layer in range(layers)
    ]
    outside = f'<p class="soft">Outside the layers\' matrices: {others}.</p>\n'
    return f'<div class="wide">{chart}</div>\n{outside}{_numbers(table)}'


def _by_layer(errors: Sequence[Compared]) -> dict[str, list[float | None]]:
    """Kind of matrix -> relative error for each layer."""
    rows: dict[str, dict[int, float]] = {}
    for tensor in errors:
        if tensor.kind in _MATRICES and tensor.layer is not None:
            rows.setdefault(tensor.kind, {})[tensor.layer] = tensor.error
    count = 1 + max((layer for row in rows.values() for layer in row), default=0)
    return {kind: [row.get(layer) for layer in range(count)] for kind, row in rows.items()}


def _together(tensors: Sequence[Compared]) -> float:
    """Relative error of several tensors together."""
    return relative(math.fsum(t.square_error for t in tensors), math.fsum(t.square for t in tensors))


def _percent(error: float) -> str:
    if not math.isfinite(error):
        return "not comparable"
    return f"{100 * error:.2f} %" if error >= 1e-3 or not error else f"{100 * error:.2g} %"


def _foot(page: Page) -> str:
    chunks = page.chunks
    cached = any(model.kv_type for model in page.models)
    cache = " Keys and values are rounded to the type of the named cache, as llama.cpp does." if cached else ""
    return (
        f"<footer>\n<p>Measured by gemmaq {escape(page.version)}: {len(chunks.tokens)} of {chunks.available} chunks of "
        f"{chunks.context} tokens, spread evenly over the text, the second half of each scored, as llama-perplexity "
        f"does. Every model is computed in float32 with the weights it really holds.{cache}</p>\n</footer>\n"
    )
