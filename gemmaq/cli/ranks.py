"""Commands under torchrun: all processes compute, the main one writes and speaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from gemmaq.cli import console, interrupts
from gemmaq.errors import UsageError
from gemmaq.inference.peers import ALONE, Peers, expected

if TYPE_CHECKING:
    from gemmaq.convert.run import Conversion

_joined = ExitStack()
"""What ends with the command."""


@contextmanager
def together() -> Iterator[None]:
    """Run a command, which may `join` others; what one of them fails with is what all fail with."""
    try:
        with _joined:
            yield
    except SystemExit:
        if expected() > 1 and interrupts.code() is not None:  # torchrun ends those that are left by a signal
            console.say(f"{interrupts.reason}, nothing half-written was kept")
        raise


def join(device: str | None) -> Peers:
    """Join the other processes, if torchrun started this one; all but the main one are silent from then on.

    Args:
        device: what the user chose to compute on.

    Raises:
        UsageError: the others cannot be found, or would not compute on the CPU.
    """
    if expected() == 1:
        return ALONE
    from gemmaq.inference.device import require_torch

    require_torch("torchrun")
    peers = _joined.enter_context(joined_on(device))
    interrupts.at_end.append(_end_if_stuck)
    interrupts.reason = "interrupted, or another process of this run has ended"
    return peers


@contextmanager
def joined_on(device: str | None) -> Iterator[Peers]:
    """See `join`."""
    from gemmaq.inference.peers import joined

    with joined() as peers:
        silence(peers.main)
        if device not in (None, "cpu"):
            raise UsageError(
                f"several processes compute on CPUs, not on {device}", "leave out --device, or start one process"
            )
        yield peers


def _end_if_stuck(code: int) -> None:
    """End at once where a thread still waits for another process: Python's own end would abort over it."""
    from gemmaq.inference.peers import is_stuck

    if is_stuck():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def silence(main: bool) -> None:
    """Let nothing that a process other than the main one says be seen, unless $GEMMAQ_DEBUG is set."""
    if main or os.environ.get("GEMMAQ_DEBUG"):
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)


def check(peers: Peers, conversion: Conversion, searching: bool) -> None:
    """Refuse a conversion that several processes cannot share.

    Args:
        peers: the processes.
        conversion: what is to be converted.
        searching: whether types are chosen for a size.

    Raises:
        UsageError: it is refused.
    """
    if peers.size == 1:
        return
    basis = conversion.basis
    if searching or (basis is not None and basis.calibration.refine is not None):
        what = "a search for types" if searching else "--refine"
        raise UsageError(f"{what} runs in a single process", "start it without torchrun")
    if basis is None or basis.text is None:
        raise UsageError(
            f"{peers.size} processes have nothing to share: only calibration on text takes several",
            "start one, or choose --method gptq or importance",
        )
