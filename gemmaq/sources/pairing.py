"""The rule that says which of the files beside a GGUF model belongs to it: by their names, then by what they hold.

A file of a kind (mmproj file, drafter) is taken if it fits the model and names no other model that lies there. Several
types of the same file are one candidate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain, groupby

from gemmaq.files.names import model_in

_TYPES = re.compile(r"(?<![a-z0-9])(bf16|f16|fp16|f32|i?q\d(_[a-z0-9]+)*|tq\d(_\d)?|mxfp4(_[a-z]+)?|nvfp4)(?![a-z0-9])")
_IMATRIX = re.compile(r"^imatrix|imatrix$", re.IGNORECASE)
"""Names of importance matrices, which are GGUF files and no models."""
_NOISE = frozenset(("model", "ggml", "gguf", "i1", "imat", "imatrix", "ud", "unquantized"))
"""Words of file names that tell of a file's making, not of its model."""
_PREFERRED = ("f16", "bf16", "f32")
"""Types of a file of which one is taken, the best first; others come behind by name."""


class Match(IntEnum):
    """How well the name of a file fits that of a model; of several files the best is the model's."""

    NONE = 0
    """It names another model, or may name several of those that lie there."""
    OPEN = 1
    """It says nothing that the model's does not, and no other model lies there that it may mean."""
    HEADER = 2
    """The names in the headers say what those of the files do not."""
    ALIKE = 3
    """The same but for words that tell of the making, separators, or the publisher."""
    SAME = 4


@dataclass(frozen=True, slots=True)
class Content:
    """What the header of a file says.

    Attributes:
        titles: Names of its model, the first the most precise; empty if it has none.
        misfit: Why the file cannot belong to the model, a clause of a sentence; None if it can.
        damaged: Whether the header cannot be read.
    """

    titles: tuple[str, ...] = ()
    misfit: str | None = None
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """The model that files are looked for.

    Attributes:
        file: Its file, the first of several shards.
        around: Files of all models that lie there, this one too.
        titles: Its names in its header.
        bases: Names of the models that it was made from, in its header.
    """

    file: str
    around: tuple[str, ...]
    titles: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name by its file."""
        return model_in(self.file)[0]

    @property
    def others(self) -> dict[str, str]:
        """Names of the other models that lie there -> a file of each; other types of this model are no others."""
        names = {model_in(file)[0]: file for file in reversed(self.around)}
        own = _words(self.name)
        return {name: file for name, file in names.items() if _words(name) != own and not _IMATRIX.search(name)}


@dataclass(frozen=True, slots=True)
class Choice:
    """What was found beside a model.

    Attributes:
        taken: The file that belongs to it, None if there is none.
        rivals: Files that all may be the one; none of them is taken.
        notes: A sentence for each file: taken, or passed over and why.
        damaged: Files that cannot be read and by their names may be the one.
    """

    taken: str | None
    rivals: tuple[str, ...]
    notes: tuple[str, ...]
    damaged: tuple[str, ...] = ()


def choose(
    what: str,
    model: Model,
    candidates: Iterable[str],
    look: Callable[[str], Content],
    *,
    option: str,
    same_type: bool = False,
) -> Choice:
    """Choose the file that belongs to a model.

    Args:
        what: What the file is to the model, in notes.
        model: The model.
        candidates: Files of the kind that lie beside it.
        look: Reads a candidate's header; called only for those that the choice hangs on.
        option: Option that takes a file whatever its name says, for notes.
        same_type: Whether a file of the model's own type is preferred to others.
    """
    notes: list[str] = []
    damaged: list[str] = []
    fitting: list[tuple[Match, list[str]]] = []
    preferred = ((model_in(model.file)[1] or "").lower(), *_PREFERRED) if same_type else _PREFERRED
    order = sorted(candidates, key=lambda file: _order(file, preferred))
    for _, same in groupby(order, key=lambda file: model_in(file)[0].lower()):
        files = list(same)
        match, reason = _match(model, files[0], look)
        if match is Match.NONE:
            notes += [_passed(file, f"{reason} ({option} takes it anyway)") for file in files]
            continue
        while files and (misfit := look(files[0]).misfit) is not None:
            damaged += files[:1] if look(files[0]).damaged else []
            notes.append(_passed(files.pop(0), misfit))
        unnamed = match is Match.OPEN and not any(_words(model_in(file)[0]) for file in files)
        for file in [*files] if unnamed else ():
            if (other := _stranger(look(file).titles, (*model.titles, *model.bases))) is not None:
                files.remove(file)
                notes.append(_passed(file, f"its header names {other}, another model ({option} takes it anyway)"))
        if files:
            fitting.append((match, files))
    best = max((match for match, _ in fitting), default=Match.NONE)
    worse = [file for match, files in fitting if match < best for file in files]
    notes += [_passed(file, "another fits better by name") for file in worse]
    rivals = [files for match, files in fitting if match is best]
    if not rivals:
        return Choice(None, (), tuple(notes), tuple(damaged))
    files = rivals[0]
    types = [(model_in(file)[1] or "").lower() for file in files]
    if len(rivals) > 1 or len({*types}) < len(types):
        return Choice(None, tuple(sorted(chain(*rivals))), tuple(notes))
    among = f", not {', '.join(files[1:])}" if len(files) > 1 else ""
    return Choice(files[0], (), (f"{files[0]} is taken as the model's {what}{among}", *notes))


def _passed(file: str, reason: str) -> str:
    return f"{file} is passed over: {reason}"


def _order(file: str, preferred: Sequence[str]) -> tuple[str, int, str]:
    """Sort key: the files of a name together, those of a preferred type first."""
    name, kind = model_in(file)
    kind = (kind or "").lower().replace("fp16", "f16")
    return name.lower(), (*preferred, kind).index(kind), file


def _match(model: Model, file: str, look: Callable[[str], Content]) -> tuple[Match, str]:
    """How a file's name fits the model's, and the reason if it does not."""
    name, others = model_in(file)[0], model.others
    own = _likeness(name, model.name)
    foreign = {other: match for other in others if (match := _likeness(name, other)) is not Match.NONE}
    best = max(foreign, key=lambda other: foreign[other], default=None)
    if best is not None and foreign[best] >= own:
        certain = foreign[best] > own
        return Match.NONE, f"by its name it {'is' if certain else 'may be'} for {others[best]}"
    if own is not Match.NONE:
        return own, ""
    titles = look(file).titles
    if not _words(name):
        if not others:
            return Match.OPEN, ""
        meant = [other for other in (model.name, *others) if _alike(titles, (other,))]
        if meant == [model.name]:
            return Match.HEADER, ""
        return Match.NONE, f"it does not say for which of the {1 + len(others)} models here it is"
    if not others and (_alike(model.titles, (name,)) or _alike(titles, (model.name,))):
        return Match.HEADER, ""
    return Match.NONE, "by its name it is for another model"


def _stranger(titles: Sequence[str], own: Sequence[str]) -> str | None:
    """The name in the header of a file if it is another than those in the header of a model, be it in part."""
    known = [words for words in map(_words, own) if words]
    named = [title for title in titles if _words(title)]
    if not known or not named:
        return None
    fits = (_within(_words(title), words) or _within(words, _words(title)) for title in named for words in known)
    return None if any(fits) or _alike(titles, own) else named[0]


def _within(words: Sequence[str], others: Sequence[str]) -> bool:
    """Whether words come among others in the same order."""
    rest = iter(others)
    return all(word in rest for word in words)


def _likeness(name: str, model: str) -> Match:
    """How the model's name in a file's name fits a model's own."""
    if name and name.lower() == model.lower():
        return Match.SAME
    if _alike((name,), (model,)):
        return Match.ALIKE
    words = _words(name)
    return Match.OPEN if words and _within(words, _words(model)) else Match.NONE


def _alike(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether one of the names has the words of one of the others."""
    return not {*_spellings(names)}.isdisjoint(_spellings(others))


def _spellings(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Words of each name, whole and without a publisher before it (`google_model-4b`, `google/model-4b`)."""
    for name in names:
        for text in (name, name.partition("_")[2], name.rpartition("/")[2]):
            if words := _words(text):
                yield words


def _words(name: str) -> tuple[str, ...]:
    """Words of a name but for those that tell of the making of its file."""
    return tuple(word for word in re.split(r"[-._/\s]+", _TYPES.sub("", name.lower())) if word and word not in _NOISE)
