"""The command line as torchrun starts it, with a fault in the process that $FAULT names, as in `1:nan`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gemmaq.__main__ import main
from gemmaq.inference import documents, same
from gemmaq.inference.decoder import Decoder


def nan() -> None:
    """Its activations are not finite."""
    usual = Decoder.forward
    Decoder.forward = lambda *given: usual(*given) * float("nan")  # type: ignore[method-assign]


def killed() -> None:
    """It is killed when it loads the second layer."""
    usual = Decoder.layer

    def layer(self: Decoder, index: int) -> object:
        if index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(self, index)

    Decoder.layer = layer  # type: ignore[method-assign, assignment]


def bug() -> None:
    """It has a bug."""
    Decoder.layer = lambda *given: {}["layer"]  # type: ignore[method-assign]


def version() -> None:
    """It is another version."""
    same.__version__ = "0.0.9"


def text() -> None:
    """It reads another text."""
    usual = documents.read

    def read(paths: Sequence[Path], *more: Any) -> Any:
        return usual([path.with_name("other.txt") for path in paths], *more)

    documents.read = read


rank, _, fault = os.environ.get("FAULT", "").partition(":")
if rank == os.environ["RANK"]:
    {fault.__name__: fault for fault in (nan, killed, bug, version, text)}[fault]()
sys.argv[0] = "gemmaq"
main()
