"""The command line of this process, with a home of Hugging Face of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

import inprocess


@dataclass(frozen=True)
class Here:
    """The command line in this process, with a home of Hugging Face of its own."""

    home: Path
    token: str | None = None

    @property
    def cache(self) -> Path:
        return self.home / "hub"

    def run(self, *arguments: object, code: int = 0) -> inprocess.Done:
        offline = constants.HF_HUB_OFFLINE
        try:
            done = inprocess.run(*arguments, code=code)
        finally:
            constants.HF_HUB_OFFLINE = offline  # --offline is for the rest of a process
        assert not self.token or self.token not in done.stdout + done.stderr
        return done

    def root(self, repo: str) -> Path:
        """The folder of a repository in the cache."""
        return self.cache / ("models--" + repo.replace("/", "--"))

    def partials(self) -> list[str]:
        """What grows, and what was left growing, anywhere in the home."""
        return sorted(path.name for path in self.home.rglob("*") if "incomplete" in path.name or ".tmp" in path.name)


Settle = Callable[..., Here]
