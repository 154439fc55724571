"""Processes that compute together must compute the same: one version, one source, one text, one set of settings."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from gemmaq import __version__
from gemmaq.errors import UsageError
from gemmaq.inference.peers import Peers

if TYPE_CHECKING:
    from gemmaq.inference.documents import Tokens


def of_tokens(tokens: Tokens) -> str:
    """SHA-256 of tokens, i64 [sequences, length], and of their shape."""
    return sha256(repr(tokens.shape).encode() + np.ascontiguousarray(tokens, "<i8").tobytes()).hexdigest()


def software() -> dict[str, str]:
    """What results depend on besides source, text and settings: versions, and the instructions that torch uses."""
    import torch
    import transformers

    return {
        "version of gemmaq": __version__,
        "version of torch": torch.__version__,
        "version of transformers": transformers.__version__,
        "kind of processor": torch.backends.cpu.get_cpu_capability(),
    }


def check(peers: Peers, facts: Mapping[str, str]) -> None:
    """Refuse processes that would not compute the same.

    Args:
        peers: the processes; all of them must call this.
        facts: what must be equal -> its value or digest, in the order in which a difference is told.

    Raises:
        UsageError: one process has another value than the main one.
    """
    if peers.size == 1:
        return
    problem: UsageError | None = None
    for rank, found in enumerate(peers.gather(dict(facts))):
        for what, value in facts.items():
            if problem is None and found.get(what) != value:
                shown = f": {found.get(what)!s:.40}, not {value:.40}" if len(value) < 40 else ""
                problem = UsageError(
                    f"process {rank} has another {what} than process 0{shown}",
                    "all processes need the same command line, files and versions",
                )
    problem = peers.broadcast(problem)
    if problem is not None:
        raise problem
