"""Parts of a model's name: file stem, title, base name and fine-tune, from the name of a repository or folder."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gemmaq.files import quoting
from gemmaq.files.names import split_type, without_marks
from gemmaq.models.families import official_organization

DRAFTER = "-assistant"
"""End of the names of drafters, behind the name of the model that they are for."""

_GEMMA = re.compile(
    r"(?P<base>[a-z]*gemma(-?\d+n?)?)-(?P<size>e?\d+(\.\d+)?[bm](-a\d+b)?)(-(?P<rest>.+))?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Parts of a model's name.

    Attributes:
        stem: Beginning of artifact file names (`gemma-3-4b-it-qat`).
        title: Title (`Gemma 3 4b It Qat`).
        basename: Base name (`gemma-3`), None for a name of another form.
        finetune: Fine-tune (`it-qat`), or None.
        official: The publisher's repository (`google/gemma-3-4b-it`) if the name is that of one, else None.
        target: Stem of the model that a drafter of this name is for; for any other name the stem.
    """

    stem: str
    title: str
    basename: str | None
    finetune: str | None
    official: str | None
    target: str


def identify(name: str) -> Identity:
    """Take a model name apart, without the word `unquantized`, a trailing type such as `q4_0`, and marks of files.

    What the Hub does not allow in names of repositories becomes `-`, since files are named by the parts.
    """
    organization = official_organization(name)
    official = f"{organization}/{name}" if organization else None
    name = without_marks(quoting.name(name))
    target = name[: -len(DRAFTER)] if name.lower().endswith(DRAFTER) else name
    words = [word for word in target.split("-") if word.lower() != "unquantized"]
    target_stem = split_type("-".join(words), floats=False)[0] or target
    stem = target_stem + name[len(target) :]
    parts = _GEMMA.fullmatch(stem)
    return Identity(
        stem=stem,
        title=title(stem),
        basename=parts["base"].lower() if parts else None,
        finetune=parts["rest"] if parts else None,
        official=official,
        target=target_stem,
    )


def title(name: str) -> str:
    """Title of a name, as llama.cpp's converter makes it: `gemma-3-4b-it` -> `Gemma 3 4b It`."""
    words = name.replace("-", " ").split()
    return " ".join(word if word[0].isdigit() or not word.islower() else word.title() for word in words)
