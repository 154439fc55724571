"""Parts of a model's name: file stem, title, base name and fine-tune, from the name of a repository or folder."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gemmaq.files.names import split_type
from gemmaq.models.families import official_organization

_GEMMA = re.compile(r"(?P<base>gemma-?\d+n?)-(?P<size>\d+(\.\d+)?[bm])(-(?P<rest>.+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Identity:
    """Parts of a model's name.

    Attributes:
        stem: Beginning of artifact file names (`gemma-3-4b-it-qat`).
        title: Title (`Gemma 3 4b It Qat`).
        basename: Base name (`gemma-3`), None for a name of another form.
        finetune: Fine-tune (`it-qat`), or None.
        official: The publisher's repository (`google/gemma-3-4b-it`) if the name is that of one, else None.
    """

    stem: str
    title: str
    basename: str | None
    finetune: str | None
    official: str | None


def identify(name: str) -> Identity:
    """Take a model name apart; the word `unquantized` and a trailing type such as `q4_0` are dropped."""
    words = [word for word in name.split("-") if word.lower() != "unquantized"]
    stem = split_type("-".join(words), floats=False)[0] or name
    parts = _GEMMA.fullmatch(stem)
    organization = official_organization(name)
    return Identity(
        stem=stem,
        title=title(stem),
        basename=parts["base"].lower() if parts else None,
        finetune=parts["rest"] if parts else None,
        official=f"{organization}/{name}" if organization else None,
    )


def title(name: str) -> str:
    """Title of a name, as llama.cpp's converter makes it: `gemma-3-4b-it` -> `Gemma 3 4b It`."""
    words = name.replace("-", " ").split()
    return " ".join(word if word[0].isdigit() or not word.islower() else word.title() for word in words)
