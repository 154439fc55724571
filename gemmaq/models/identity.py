"""What a model is called: file stem, title, base name and fine-tune, from a repo or folder name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gemmaq.files.names import split_type
from gemmaq.models.families import official_organization

_GEMMA = re.compile(r"(?P<base>gemma-?\d+n?)-(?P<size>\d+(\.\d+)?[bm])(-(?P<rest>.+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Identity:
    """The parts of a model name.

    Attributes:
        stem: what artifact files begin with: `gemma-3-4b-it-qat`.
        title: `Gemma 3 4b It Qat`.
        basename: `gemma-3`, or None for a name of another form.
        finetune: `it-qat`, or None.
        official: The publisher's repository (`google/gemma-3-4b-it`) if the name is that of one, else None.
    """

    stem: str
    title: str
    basename: str | None
    finetune: str | None
    official: str | None


def identify(name: str) -> Identity:
    """Take a model name apart. The word `unquantized` and a trailing `q4_0` say nothing of the result: dropped."""
    words = [word for word in name.split("-") if word.lower() != "unquantized"]
    stem = split_type("-".join(words), floats=False)[0] or name
    found = _GEMMA.fullmatch(stem)
    organization = official_organization(name)
    return Identity(
        stem=stem,
        title=title(stem),
        basename=found["base"].lower() if found else None,
        finetune=found["rest"] if found else None,
        official=f"{organization}/{name}" if organization else None,
    )


def title(name: str) -> str:
    """`gemma-3-4b-it` -> `Gemma 3 4b It`, the way llama.cpp's converter titles names."""
    words = name.replace("-", " ").split()
    return " ".join(word if word[0].isdigit() or not word.islower() else word.title() for word in words)
