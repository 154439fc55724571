"""The model card of an artifact: source, files, how to run it, and the memory that it takes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from gemmaq.artifact import card_making, pictures
from gemmaq.artifact.card_models import Row, recommended, remarks, rows, size_text, table_of_cards, table_of_models
from gemmaq.artifact.description import Model
from gemmaq.artifact.footprint import Memory
from gemmaq.artifact.modelfile import FILE as MODELFILE
from gemmaq.files import quoting
from gemmaq.files.names import stem
from gemmaq.hub import is_repository
from gemmaq.models.identity import identify
from gemmaq.models.towers_config import senses
from gemmaq.planning.containers import Command, for_drafters

NAME = "README.md"

_SIGNED = re.compile(r"<!-- written by gemmaq, sha256 of the text above: ([0-9a-f]{64}) -->\n")

_DRAFTS = " --spec-type draft-mtp"
"""Option of llama-server that has a drafter propose tokens; from the Hub it finds the drafter's file by itself."""

File = tuple[str, int, str]
"""Path, bytes, SHA-256 in hex."""


def text(repo: str | None, models: Sequence[Model], files: Sequence[File], *, memory: Memory) -> str:
    """The card with its front matter. The last line is the digest of all others.

    Args:
        repo: Repository where it is published, None for commands that run the local files.
        models: Models of the artifact; of those in one container the first is the one that the Modelfile names.
        files: All files of the artifact.
        memory: What is known of the memory that a model takes.
    """
    import yaml

    identity = identify(models[0].name)
    containers = (for_drafters(m.container) if m.family.drafts else m.container for m in models)
    runtimes = "; ".join(dict.fromkeys(container.runtimes for container in containers))
    sizes = {path: size for path, size, _ in files}
    by_title: dict[str, list[Model]] = {}
    for model in models:
        by_title.setdefault(model.container.title, []).append(model)
    sections = [
        f"# {quoting.markdown(identity.title)}",
        f"{models[0].family.title}, quantized by gemmaq for {runtimes}.",
        *(part for own in by_title.values() for part in _section(repo, rows(own, sizes, memory), memory, sizes)),
        "## How it was made",
        card_making.source(models[0]),
        table(*card_making.table_of_tensors(models)),
        "\n".join(card_making.methods(models)),
        card_making.requantized(models),
        "## Files",
        table(("file", "size", "sha256"), [_row(*file) for file in files]),
        "## License",
        _license(models[0]),
    ]
    front = yaml.safe_dump(_front_matter(models, identity.official), sort_keys=False, allow_unicode=True)
    card = f"---\n{front}---\n\n" + "\n\n".join(filter(None, sections)) + "\n\n"
    return f"{card}<!-- written by gemmaq, sha256 of the text above: {_digest(card)} -->\n"


def _license(model: Model) -> str:
    """Sentence about the license: that of the source's card, where it is another than usual in the family."""
    usual, card = model.family.license, model.card
    named, license, link = (_text(card.get(key)) for key in ("license_name", "license", "license_link"))
    name = named or license or usual.name
    if usual.name in (name, license):
        return f"{usual.notice}."
    return f"The source is licensed under {quoting.markdown(name)}{f': {quoting.url(link)}' if link else ''}."


def _repositories(value: Any) -> str | list[str]:
    """A repository or those of a list; empty where there is none."""
    if isinstance(value, list):
        return [name for name in value if isinstance(name, str) and is_repository(name)]
    return value if isinstance(value, str) and is_repository(value) else []


def _text(value: Any) -> str | None:
    """A text, or the texts of a list, joined by commas; None where there is none."""
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    return ", ".join(texts) or None


def is_ours(card: str) -> bool:
    """Whether gemmaq wrote a card and nobody has changed it since."""
    lines = card.splitlines(keepends=True)
    signature = _SIGNED.fullmatch(lines[-1]) if lines else None
    return signature is not None and signature[1] == _digest("".join(lines[:-1]))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _digest(card: str) -> str:
    return hashlib.sha256(card.encode()).hexdigest()


def _front_matter(models: Sequence[Model], official: str | None) -> dict[str, Any]:
    """Metadata of the card; `official` is the publisher's repository of the source, if its name is one."""
    first = models[0]
    usual = first.family.license
    front: dict[str, Any] = {"license": first.card.get("license") or usual.name}
    if front["license"] == usual.name:
        front["license_link"] = usual.link
    front |= {key: first.card[key] for key in ("license_name", "license_link", "language") if key in first.card}
    source = [repo] if (repo := (first.adapter or {}).get("repo") or first.repo) else []
    bases = source or _repositories(first.card.get("base_model")) or ([official] if official else [])
    if bases:
        front["base_model"] = bases
        front["base_model_relation"] = "quantized"
    libraries = [model.container.library for model in models]
    front["library_name"] = libraries[0]
    front["pipeline_tag"] = _task(first)
    tags = [first.family.name, "gemma", *libraries, *(kind for m in models for kind in (m.body, m.label.lower()))]
    front["tags"] = list(dict.fromkeys(tags))
    front["quantized_by"] = "gemmaq"
    return front


def _task(model: Model) -> str:
    """The Hub's name of what a model does; as the publishers' cards have it, one that hears does anything."""
    if model.family.embeds:
        return "sentence-similarity"
    if model.towers_config is None:
        return "text-generation"
    return "any-to-any" if model.towers_config.hears is not None else "image-text-to-text"


def _section(repo: str | None, rows: Sequence[Row], memory: Memory, paths: Iterable[str]) -> list[str]:
    """Heading, tables and commands of the models in a container."""
    chosen, several = recommended(rows), len(rows) > 1
    model, first = chosen.model, rows[0].model
    by_card = table_of_cards(rows)
    which = "## Which file for which card" if several else ""
    fitting = "The largest file that fits a card" if several else "Whether it fits a card"
    run = f"Commands for {model.label}, the recommended file:" if several else ""
    return [
        f"## {model.container.title}",
        table(*table_of_models(rows)),
        remarks(rows),
        pictures.section(model.container, rows, paths),
        _beside(model),
        f"#{which}" if which and by_card else "",
        f"{fitting}, with so many tokens of context:" if by_card else "",
        table(*by_card) if by_card else "",
        run,
        "```sh\n" + "\n".join(commands(repo, model, first, several=several)) + "\n```",
        _modelfile(first) if several else "",
        memory.details(model),
    ]


def _beside(model: Model) -> str:
    """Sentences about the size of a model and what lies beside it."""
    said = [f"{model.parameters:,} parameters."]
    if model.towers_config is not None:
        said.append(f"The towers for {senses(model.towers_config)} take {model.towers:,} bytes more.")
    if model.drafter is not None:
        size = model.drafter.weights
        said.append(f"The drafter takes {size:,} bytes; it proposes tokens that the model has only to check.")
    remark = model.container.remark
    return " ".join(said) + (f"\n\n**{remark[0].upper()}{remark[1:]}.**" if remark is not None else "")


def _modelfile(first: Model) -> str:
    """A sentence about the file that Ollama makes a model by, if there is one."""
    if MODELFILE not in first.files:
        return ""
    return f"`{MODELFILE}` makes a model of {first.label}; for another one name its file after `FROM`."


def _row(path: str, size: int, sha256: str) -> tuple[str, str, str]:
    return quoting.code(path), size_text(size), sha256[:16]


def _suits(command: Command, model: Model) -> bool:
    """Whether a command is for such a model."""
    family = model.family
    kind = (command.embeds, command.drafts) == (family.embeds, family.drafts)
    return kind and (model.towers > 0 or not command.vision)


def commands(repo: str | None, model: Model, first: Model, *, several: bool) -> list[str]:
    """Command lines that run a model; those that read the Modelfile are for the first of several.

    Args:
        repo: Repository that holds the model, None where it lies in the current folder.
        model: The model.
        first: The first model of its folder.
        several: Whether the folder holds several.
    """
    suitable = [command for command in model.container.commands if _suits(command, model)]
    if repo is not None:
        return [command.hub.format(**_published(model, repo)) for command in suitable]
    return [
        command.here.format(**_local(first if command.file == MODELFILE else model, several=several))
        for command in suitable
        if command.file is None or command.file in model.files
    ]


def _local(model: Model, *, several: bool) -> dict[str, str]:
    """What command lines name of a model in the current folder."""
    files = model.parts
    return {
        "weights": quoting.shell(files.model[0]),
        "stem": quoting.name(stem(files.model[0]).lower()),
        "artifact": quoting.shell(files.model[0]) if several else ".",
        "projector": f" --mmproj {quoting.shell(files.projector)}" if files.projector else "",
        "drafter": f"{_DRAFTS} --model-draft {quoting.shell(files.drafter)}" if files.drafter else "",
    }


def _published(model: Model, repo: str) -> dict[str, str]:
    """What command lines name of a model in a repository."""
    files = model.parts
    return {
        "repo": repo,
        "type": model.label,
        "tag": quoting.shell(files.model[0]) if files.drafter and len(files.model) == 1 else model.label,
        "drafter": _DRAFTS if files.drafter else "",
    }
