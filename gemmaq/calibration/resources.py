"""Where calibration computes, and that the processes that share it agree."""

from __future__ import annotations

from dataclasses import dataclass
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
    """

    device: str | None
    threads: int
    peers: Peers = ALONE


def agree(peers: Peers, checkpoint: Checkpoint, tokens: Tokens, settings: str) -> None:
    """Refuse processes that would not compute the same.

    Args:
        peers: the processes; all of them must call this.
        checkpoint: the model.
        tokens: i64 [sequences, length].
        settings: everything else that results depend on.

    Raises:
        UsageError: they differ.
    """
    if peers.size == 1:
        return
    from gemmaq.inference import same
    from gemmaq.planning.sensitivities import fingerprint

    facts = {"source": fingerprint(checkpoint), "text": same.of_tokens(tokens), "set of options": settings}
    same.check(peers, {**same.software(), **facts})
