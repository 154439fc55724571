"""Tables of a card about the models of one container: a row a model, and the largest one that fits each card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gemmaq.artifact.description import Model
from gemmaq.artifact.footprint import Footprint, Memory
from gemmaq.artifact.provenance import Quality
from gemmaq.files import quoting
from gemmaq.models.towers_config import senses
from gemmaq.planning import uses

_GB = 1e9


@dataclass(frozen=True, slots=True)
class Row:
    """A model in the tables.

    Attributes:
        model: the model.
        paths: paths of its weight files in the artifact, without those of towers and drafter.
        size: bytes of these files.
        footprint: memory that it takes.
    """

    model: Model
    paths: tuple[str, ...]
    size: int
    footprint: Footprint


def rows(models: Sequence[Model], sizes: Mapping[str, int], memory: Memory) -> list[Row]:
    """A row for each model.

    Args:
        models: models of one container.
        sizes: path of each file of the artifact -> bytes.
        memory: what is known of memory.
    """
    found = []
    for model in models:
        names = model.parts.model
        folder = _folder(model, sizes)
        paths = tuple(folder + name for name in names)
        size = sum(sizes.get(path, 0) for path in paths) or model.weights
        found.append(Row(model, paths, size, memory.figures(model)))
    return found


def _folder(model: Model, paths: Mapping[str, int]) -> str:
    """Where a model lies in an artifact with subfolders for containers and types: "", or a path that ends with /."""
    container, kind = model.container.name, model.label.lower()
    places = ("", f"{container}/{kind}/", f"{container}/", f"{kind}/")
    return next((place for place in places if all(place + name in paths for name in model.parts.model)), "")


def recommended(rows: Sequence[Row]) -> Row:
    """The model to start with."""
    by_label = {row.model.label: row for row in sorted(rows, key=lambda row: -row.size)}
    on_grid = any("lattice" in row.model.methods for row in rows)
    return by_label[uses.recommended(by_label, on_grid=on_grid)]


def table_of_models(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table, the smallest model first. The recommended one of several is marked."""
    contexts = sorted({context for row in rows for context in row.footprint.totals})
    measured = any(row.model.quality for row in rows)
    first = recommended(rows) if len(rows) > 1 else None
    columns = ["file", "type", "size", "bits per weight"]
    columns += [f"memory at {_tokens(context)}" for context in contexts]
    columns += ["KL", "top-1"] if measured else []
    lines = []
    for row in _by_size(rows):
        model = row.model
        line = [_links(row.paths), model.label, size_text(row.size), f"{bits_per_weight(model):.2f}"]
        line += [_gigabytes(row.footprint.totals.get(context)) for context in contexts]
        line += [*_measured(model.quality)] if measured else []
        use = uses.use_of(model.label, model.body)
        lines.append([*line, f"**recommended**: {use}" if row is first else use])
    return [*columns, "what it is for"], lines


def table_of_cards(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]] | None:
    """Columns and rows of the table of cards: the type of the largest file that fits. None if no memory is known."""
    known = [row.footprint for row in rows if row.footprint.totals]
    if not known:
        return None
    contexts = sorted(known[0].totals)
    largest_first = _by_size(rows)[::-1]
    lines = []
    for card in known[0].fits:
        line = []
        for context in contexts:
            fitting = (row.model.label for row in largest_first if context in row.footprint.fits.get(card, ()))
            line.append(next(fitting, "none"))
        lines.append([card, *line])
    return ["memory of the card", *(f"at {_tokens(context)}" for context in contexts)], lines


def bits_per_weight(model: Model) -> float:
    """Mean bits of a weight of the text model."""
    return 8 * model.weights / model.parameters


def size_text(count: int) -> str:
    """Bytes of a file."""
    return f"{count / _GB:.2f} GB" if count > 1e8 else f"{count:,} B"


def remarks(rows: Sequence[Row]) -> str:
    """What the columns mean, in sentences."""
    said = []
    footprint = rows[0].footprint
    if footprint.engine:
        towers = rows[0].model.towers_config
        beside = f", with the towers for {senses(towers)}" if footprint.with_towers and towers is not None else ""
        said.append(f"Memory as `gemmaq estimate-vram` tells it for {footprint.engine}{beside}.")
    measurements = dict.fromkeys(_measurement(row.model.quality) for row in rows if row.model.quality is not None)
    if measurements:
        said.append(
            "KL is the mean divergence of the predictions from those of the source (0: none), top-1 the share of "
            f"tokens for which both hold the same one for the likeliest; measured {'; '.join(measurements)}."
        )
    return " ".join(said)


def _by_size(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.size, row.model.label))


def _links(paths: Sequence[str]) -> str:
    """A link to a file, or to the first of several shards."""
    link = f"[{quoting.code(paths[0])}]({quoting.path(paths[0])})"
    return f"{link} and {len(paths) - 1} more" if len(paths) > 1 else link


def _tokens(count: int) -> str:
    return f"{count // 1024}K" if count % 1024 == 0 else f"{count:,}"


def _gigabytes(count: int | None) -> str:
    return "" if count is None else f"{count / _GB:.2f} GB"


def _measured(quality: Quality | None) -> tuple[str, str]:
    if quality is None:
        return "", ""
    return (f"{quality.kl:.4f}" if quality.kl >= 1e-3 else f"{quality.kl:.2g}"), f"{100 * quality.top1:.1f} %"


def _measurement(quality: Quality | None) -> str:
    if quality is None:
        return ""
    texts = " and ".join(map(quoting.markdown, quality.texts))
    return f"on {quality.tokens:,} tokens of {texts} against {quoting.markdown(quality.reference)}"
