"""Pictures of a card: the frontier of models whose quality is on record, a file beside the card for each container."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from gemmaq.artifact.card_models import Row, rows
from gemmaq.artifact.description import Model
from gemmaq.artifact.footprint import Memory
from gemmaq.charts import Labels, frontier
from gemmaq.planning.containers import CONTAINERS, Container


def name(container: Container) -> str:
    """Name of the file for the models of a container."""
    return f"frontier-{container.name}.svg"


NAMES = tuple(name(container) for container in CONTAINERS.values())
"""Names of all files that can be written."""


def draw(models: Iterable[Model], sizes: Mapping[str, int], memory: Memory) -> dict[str, bytes]:
    """Draw the frontier of each container with enough models that were measured alike.

    Args:
        models: models of the artifact.
        sizes: path of each file of the artifact -> bytes.
        memory: what is known of memory.

    Returns:
        Name of the file -> content, the same for the same models.
    """
    by_container: dict[str, list[Model]] = {}
    for model in models:
        by_container.setdefault(model.container.name, []).append(model)
    found = {}
    for own in by_container.values():
        alike = comparable(rows(own, sizes, memory))
        if alike:
            found[name(own[0].container)] = _picture(alike)
    return found


def comparable(known: Sequence[Row]) -> list[Row]:
    """Models measured against the same reference on the same texts, the most of them; none if they are too few."""
    ways: Counter[tuple[object, ...]] = Counter(way for row in known if (way := _measurement(row)) is not None)
    if not ways:
        return []
    way, count = ways.most_common(1)[0]
    return [row for row in known if _measurement(row) == way] if count >= frontier.LEAST else []


def section(container: Container, known: Sequence[Row], paths: Iterable[str]) -> str:
    """The picture in the card with a sentence, if the artifact has it."""
    alike = comparable(known)
    if not alike or name(container) not in paths:
        return ""
    models = _models(alike)
    lines = frontier.about(models, _limits(alike)).rstrip()
    text = (
        f"Mean KL divergence against the size of the files, both of the table: down and to the left is better. {lines}"
    )
    return f"![{_description(models)}]({name(container)})\n\n{text.rstrip()}"


def _measurement(row: Row) -> tuple[object, ...] | None:
    quality = row.model.quality
    return None if quality is None else (quality.reference, quality.texts, quality.tokens, quality.context)


def _models(alike: Sequence[Row]) -> list[frontier.Model]:
    """The models as the chart has them, the smallest first."""
    return [
        frontier.Model(row.model.label, row.size, row.model.quality.kl, row.model.label.lower().endswith("bpw"))
        for row in sorted(alike, key=lambda row: (row.size, row.model.label))
        if row.model.quality is not None
    ]


def _limits(alike: Sequence[Row]) -> list[frontier.Limit]:
    """What cards hold, by the footprint of the largest model."""
    largest = max(alike, key=lambda row: (row.size, row.model.label))
    beside = largest.size - largest.model.weights  # the header of the file
    return [frontier.Limit(card, room + beside) for card, room in largest.footprint.holds.items()]


def _description(models: Sequence[frontier.Model]) -> str:
    unit, unit_name = _unit(models)
    each = "; ".join(f"{model.label} {model.size / unit:.4g} {unit_name}, KL {model.kl:.3g}" for model in models)
    return f"Quality against size: {each}"


def _unit(models: Sequence[frontier.Model]) -> tuple[float, str]:
    return (1e9, "GB") if max(model.size for model in models) >= 1e9 else (1e6, "MB")


def _picture(alike: Sequence[Row]) -> bytes:
    models = _models(alike)
    unit, unit_name = _unit(models)
    title = f"{alike[0].model.name}: quality against size"
    labels = Labels(title, f"size of the files, {unit_name}", "mean KL divergence, nats", _description(models))
    return frontier.picture(labels, models, _limits(alike), unit)
