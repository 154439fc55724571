"""What an artifact says of itself, derived again from its source: entry in gemmaq.json, card and pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gemmaq import __version__
from gemmaq.artifact import card, pictures, provenance, record
from gemmaq.artifact.description import Model, of_checkpoint, of_plan, of_records, size
from gemmaq.artifact.outcomes import OutcomeCounter
from gemmaq.artifact.provenance import Provenance
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.convert.memory_table import MEMORY
from gemmaq.convert.source_digests import Sources
from gemmaq.errors import GemmaqError
from gemmaq.files import sums
from gemmaq.files.names import parts
from gemmaq.files.whole import read_bytes
from gemmaq.planning.plan import Plan
from gemmaq.sources.companions import ALL
from gemmaq.sources.open import open_source

_MEASURED = {
    "quality": "how well it predicts texts was measured, and is not measured again",
    "candidates": "what other types cost was measured, and is not measured again",
}
"""Keys of an entry with figures that were measured, and a note on each."""
_FREE = ("gemmaq", "recipe", "files", *_MEASURED)
"""Keys of an entry that are checked elsewhere: bytes follow from the recipe, and files are those that were compared."""
SOURCES = ("source", "adapter", "drafter")
"""Keys of an entry under which sources are described."""
_NAMES = ("name", "repo", "revision", "files", "base")
"""Keys of a source that are not compared like the others: names are in headers and card, and folders are renamed."""
_BESIDE = (card.NAME, *pictures.NAMES)
_REPOSITORY = re.compile(r"(?:-hf |hf\.co/|huggingface\.co/)([\w.-]+/[\w.-]+)")
_MOST_REPOSITORIES = 8
_MOST_NAMES = 3
_FIGURE = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True, slots=True)
class Made:
    """A model of an artifact that was made again.

    Attributes:
        folder: folder of the artifact.
        record: what its gemmaq.json says of the model.
        plan: the plan, carried out as far as `unchecked` lets it be.
        source: the source.
        read: tensors of the source that were read for all containers of the request.
        outcomes: outcomes of the tensors.
        unchecked: names of tensors whose codes were not chosen again.
    """

    folder: Path
    record: Provenance
    plan: Plan
    source: Checkpoint
    read: Sequence[Tensor]
    outcomes: OutcomeCounter
    unchecked: Set[str]

    @property
    def is_whole(self) -> bool:
        """Whether all was made again, the drafter included."""
        return self.record.drafter is None or self.plan.drafter is not None

    @property
    def where(self) -> str:
        """The source, for messages."""
        return self.source.location

    def description(self) -> Model:
        """The model as its card describes it, without the names of its files."""
        return of_plan(self.plan, self.source, repo=self.record.repo, files=())


@dataclass(frozen=True, slots=True)
class Found:
    """Differences, a sentence each, and what was not compared."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def derived(made: Made, sources: Sources) -> Mapping[str, Any]:
    """The entry as `convert` would write it, as far as the model was made again, with these sources."""
    source, drafter, adapter = sources
    described = size(made.description())
    adapted = record.merged(adapter, made.source)
    again = record.Record(source, drafter, made.plan, made.outcomes, (), described, adapted)
    found: dict[str, Any] = json.loads(json.dumps(record.entry(again)))
    return found


def sources(made: Made, derived: Mapping[str, Any]) -> Found:
    """Compare what gemmaq.json says of a model's source, adapter and drafter with those that were given."""
    found = [_source(key, made, derived.get(key)) for key in SOURCES]
    return Found(
        tuple(f"{provenance.NAME}: {text}" for each in found for text in each.problems),
        tuple(text for each in found for text in each.notes),
    )


def _source(key: str, made: Made, known: Mapping[str, Any] | None) -> Found:
    """Compare a source on record with that which was given.

    The repository of a file is known only if it was downloaded from the Hub; digests tell the rest.
    """
    told, where = made.record.entry.get(key), made.where
    if known is None and (told is None or key == "drafter"):  # a note says that the drafter is not checked
        return Found()
    if known is None or not isinstance(told, dict) or _listed(told) is None:
        return Found((f"its {key} is not that of {where}",))
    wrong = next((part for part in {**told, **known} if part not in _NAMES and told.get(part) != known.get(part)), None)
    if wrong is not None:
        return Found((f"the {wrong} of its {key} is not that of {where}",))
    if told.get("repo") is None or known["repo"] is None:
        return _files(key, made, told, {**known, "repo": None})
    for part in ("repo", "revision"):
        if told.get(part) != known[part]:
            return Found((f"the {part} of its {key} is {told.get(part)}, that of {where} is {known[part]}",))
    return _files(key, made, told, known)


def _files(key: str, made: Made, told: Mapping[str, Any], known: Mapping[str, Any]) -> Found:
    """Compare the files of a source on record with those of the source that was given.

    Only their contents count for a GGUF file that lies outside its repository: such files are renamed.
    """
    told, known, notes = _alike_digested(key, told, known)
    listed, here = _listed(told) or set(), _listed(known) or set()
    if known["repo"] is None:
        listed, here = ({(path.rpartition("/")[2], rest) for path, rest in each} for each in (listed, here))
        if told.get("repo") is not None:
            notes.append(f"that its {key} is {told['repo']} was not checked: {made.where} does not say so")
    wrong = {path for path, _ in listed ^ here}
    if made.record.version != __version__:  # which may have read other files beside the weights
        wrong &= {path for path, _ in listed} & {path for path, _ in here}
    if not wrong:
        return Found(notes=tuple(notes))
    is_same = sorted(rest for _, rest in listed) == sorted(rest for _, rest in here)
    if is_same and known["repo"] is None and known["format"] == "gguf":
        names = ", ".join(sorted(path for path, _ in listed - here))
        return Found(notes=(*notes, f"that its {key} is called {names} was not checked: it has another name here"))
    names = ", ".join(sorted(wrong)[:_MOST_NAMES]) + (", ..." if len(wrong) > _MOST_NAMES else "")
    return Found((f"the files of its {key} are not those of {made.where}: {names}",), tuple(notes))


def _alike_digested(
    key: str, told: Mapping[str, Any], known: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any], list[str]]:
    """Both sources without the digests of files that one of them has none of, and a note on these."""

    def name(file: Mapping[str, Any]) -> str:
        return str(file.get("path")).rpartition("/")[2]

    without = {name(file) for source in (told, known) for file in source["files"] if file.get("sha256") is None}
    if not without:
        return told, known, []
    alike = [
        {**source, "files": [{**file, "sha256": None} if name(file) in without else file for file in source["files"]]}
        for source in (told, known)
    ]
    note = f"that the files of its {key} hold what they held was not checked: it was converted with --no-source-digest"
    return alike[0], alike[1], [note]


def _listed(source: Any) -> set[tuple[str, str]] | None:
    """Files of a source on record: path, and all else that is said of each; None if that is no list of files."""
    files = source.get("files") if isinstance(source, dict) else None
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        return None
    return {(str(file.pop("path", None)), json.dumps(file, sort_keys=True)) for file in map(dict, files)}


def entry(made: Made, derived: Mapping[str, Any]) -> Found:
    """Compare all else that gemmaq.json says of a model with what follows from recipe and source."""
    said, request = made.record.entry, made.record.request
    notes = [note for key, note in _MEASURED.items() if key in said]
    if request.budget is not None:
        notes.append("what its types were predicted to cost is not computed again")
    known = {*derived, *_FREE, *SOURCES, "schema", "container"}
    unknown = [key for key in said if key not in known]
    unknown += [f"recipe.{key}" for key in said["recipe"].keys() - record.recipe(request).keys()]
    problems = [f"{provenance.NAME}: gemmaq writes no {key}" for key in unknown]
    for key in [key for key in derived if key not in (*_FREE, *SOURCES, "warnings")]:
        if not _alike(key, said.get(key), derived[key], made):
            problems.append(f"{provenance.NAME}: key {key} is not what gemmaq writes for {made.where}")
    if made.is_whole:
        told = _warnings(made, said.get("warnings"), derived["warnings"])
        problems += told.problems
        notes += told.notes
    return Found(tuple(problems), tuple(notes))


def _warnings(made: Made, said: Any, derived: Sequence[str]) -> Found:
    """Compare the sentences for the user.

    Some depend on more than recipe and source: on files that lay beside the source, and on what types were taken from.
    Of these, those that are not derived are told, and none has to be there.
    """
    if not isinstance(said, list) or not all(isinstance(text, str) for text in said):
        return Found((f"{provenance.NAME}: key warnings is no list of sentences",))
    plan, drafter = made.plan, made.source.drafter
    beside = {*made.source.notes, *(f"drafter: {note}" for note in (drafter.notes if drafter is not None else ()))}
    own = [text for raw, text in zip((*plan.notes, *plan.warnings), derived, strict=True) if raw not in beside]
    calibration = made.record.request.calibration
    refined = calibration is not None and calibration.refine is not None

    def known(text: str) -> str:
        return _FIGURE.sub("", text) if refined else text  # figures of tuned norms differ between processors

    here, there = {known(text) for text in derived}, {known(text) for text in said}
    problems = [f"{provenance.NAME}: key warnings lacks {text!r}" for text in own if known(text) not in there]
    notes = [
        f"not compared, as it does not follow from the source: {text!r}" for text in said if known(text) not in here
    ]
    return Found(tuple(problems), tuple(notes))


def _alike(key: str, said: Any, derived: Any, made: Made) -> bool:
    """Whether a part of an entry is as derived, as far as it was derived."""
    if not made.is_whole and key in ("size", "method", "tensors"):
        return True  # a note says that the drafter was not checked
    if key == "method" and made.unchecked:
        return True
    if key == "tensors":
        left, right = ([t for t in each if t["name"] not in made.unchecked] for each in (said, derived))
        return left == right
    return bool(said == derived)


def described(made: Made, records: Sequence[Provenance], compared: Set[str], *, own_card: bool) -> Found:
    """Compare card and pictures of a folder with those that follow from its records and the source.

    Args:
        made: its first model.
        records: all of its models.
        compared: names of files that were made again, apart from those of other models.
        own_card: the user wrote or changed the card, so that it is not compared.
    """
    if own_card:
        return _left("you say that it is yours")
    if not made.is_whole:
        return _left("it describes the drafter, too")
    folder, listed = made.folder, _digests(made.folder)
    if not listed:
        return Found()  # a problem already
    if any(name.endswith(f"/{provenance.NAME}") for name in listed):
        return _left("it describes models in other folders, too")
    missing = [name for name in listed if not (folder / name).is_file()]
    if missing and missing != [card.NAME]:
        return _left(f"it lists {missing[0]}, which is not here")
    if not (folder / card.NAME).is_file():
        return Found((f"{card.NAME} is missing",))
    own = {*compared, provenance.NAME, *(file.path for one in records for file in one.files)}
    first = None
    for like in _likes(made, records):
        found = _compared(made, of_records(records, like, sorted(listed)), listed, own & listed.keys())
        if not found.problems:
            return found
        first = first or found
    return first or Found()


def _likes(made: Made, records: Sequence[Provenance]) -> Iterator[Model]:
    """The model as `convert` describes it, then as `evaluate --record` and `push` do, which have no source."""
    yield made.description()
    main = parts(file.path for file in records[0].files).model[:1] if len(records) > 1 else ()
    try:
        stored = open_source(str(made.folder.joinpath(*main)), ALL)
    except GemmaqError:
        return  # a problem already
    like = of_checkpoint(stored, made.folder, name=made.record.name, repo=made.record.repo)
    yield like if stored.format == "gguf" else replace(like, card=made.source.card)  # else read from the card itself


def _compared(made: Made, models: Sequence[Model], digests: Mapping[str, str], own: Set[str]) -> Found:
    """Compare card and pictures with those of these models.

    Args:
        made: the first of them.
        models: the models.
        digests: digest of each file that SHA256SUMS lists.
        own: names of files that `convert` lists in the card; `evaluate --record` and `push` list all.
    """
    present = {path.name: read_bytes(path) for path in map(made.folder.joinpath, _BESIDE) if path.is_file()}
    sizes = {name: (made.folder / name).stat().st_size for name in digests if name != card.NAME}
    drawn = pictures.draw(models, sizes, MEMORY)
    problems = [f"{name} is not what gemmaq draws" for name in pictures.NAMES if drawn.get(name) != present.get(name)]
    text = present[card.NAME]
    named = dict.fromkeys(_REPOSITORY.findall(text.decode("utf-8", "replace")))
    for repo in (None, *[*named][:_MOST_REPOSITORIES]):
        for names in (own, {*sizes}):
            listing = [(name, sizes[name], digests[name]) for name in sorted(names)]
            if card.text(repo, models, listing, memory=MEMORY).encode() == text:
                note = f"that {card.NAME} has commands for {repo} was not checked"
                return Found(tuple(problems), () if repo is None else (note,))
    return Found((*problems, f"{card.NAME} is not what gemmaq writes: --own-card leaves out one that you changed"))


def _left(why: str) -> Found:
    return Found(notes=(f"{card.NAME} was not compared: {why}",))


def _digests(folder: Path) -> Mapping[str, str]:
    """Content of SHA256SUMS; empty if it is missing or broken."""
    try:
        return sums.read(folder) or {}
    except GemmaqError:
        return {}


def others(folder: Path, records: Sequence[Provenance], compared: Set[str]) -> tuple[str, ...]:
    """A note on files of a folder that were not compared with anything."""
    known = {*_BESIDE, provenance.NAME, *compared, *(file.path for one in records for file in one.files)}
    more = [name for name in sorted(_digests(folder)) if name not in known]
    return (f"not compared, as gemmaq does not make it of the source: {', '.join(more)}",) if more else ()
