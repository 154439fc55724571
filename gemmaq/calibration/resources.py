"""Where calibration computes, and that the processes that share it agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemmaq.checkpoint import Checkpoint
from gemmaq.inference.peers import ALONE, Peers

if TYPE_CHECKING:
    from gemmaq.inference.documents import Tokens


@dataclass(frozen=True, slots=True)
class Resources:
    """Where to compute.

    Attributes:
        device: device to compute on, None for the best one.
        threads: number of CPU threads.
        peers: processes that share the work; of several the main one alone gets results.
        work: folder in which the main process keeps what is done, to go on after an interruption; None for none.
    """

    device: str | None
    threads: int
    peers: Peers = ALONE
    work: Path | None = None


def agree(resources: Resources, checkpoint: Checkpoint, tokens: Tokens, settings: str) -> dict[str, str]:
    """Refuse processes that would not compute the same.

    Args:
        resources: where to compute; all processes must call this.
        checkpoint: the model.
        tokens: i64 [sequences, length].
        settings: everything else that results depend on.

    Returns:
        All that results depend on: what must be equal -> its value or digest. Nothing for a process alone that keeps
        nothing.

    Raises:
        UsageError: they differ.
    """
    if resources.peers.size == 1 and resources.work is None:
        return {}
    from gemmaq.inference import same
    from gemmaq.planning.sensitivities import fingerprint

    facts = {"source": fingerprint(checkpoint), "text": same.of_tokens(tokens), "set of options": settings}
    same.check(resources.peers, known := {**same.software(), **facts})
    return known
