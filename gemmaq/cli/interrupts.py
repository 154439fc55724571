"""Ctrl-C, SIGTERM and SIGHUP end a command with the exit code that a shell expects, and without a traceback.

Whatever runs may be interrupted anywhere. Four places would not stand it: an import, whose libraries turn an interrupt
into errors of their own or lose it; numba's compiler, whose half-made objects would crash the process; Python's own
handling of threads, which would leave a lock locked for ever, or end the process around a thread that still runs; and
the end of the interpreter, which prints a traceback. An interrupt waits for the end of the first three. At the end of
the interpreter it changes nothing any more: the command is through.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED = 130
_EXITS = {"SIGINT": INTERRUPTED, "SIGTERM": 143, "SIGHUP": 129}
"""Name of a signal -> exit code; Windows has no SIGHUP."""
EXITS = {getattr(signal, name): code for name, code in _EXITS.items() if hasattr(signal, name)}
_IMPORTER = "<frozen importlib._bootstrap"
_COMPILERS = ("numba", "llvmlite")
_WAIT = "wait"
"""Functions of `threading` of this name wait, and stand an interrupt; all others may just have got a lock."""
_WHOLE = ("join", "start")
"""Those that wait, but do not stand it: their thread would count as ended, or not be known. It ends soon here."""
_AGAIN_SECONDS = 0.02
"""Until an interrupt that came at a bad time is tried again."""
_PATIENCE = 3
"""Interrupts after which nothing is waited for, and nothing is cleaned up."""


class _Interrupt(KeyboardInterrupt):
    """Ctrl-C. After a plain KeyboardInterrupt that left an `eval` of text, `python -m` ends by the signal."""


reason = "interrupted"
"""What to say of a signal."""
at_end: list[Callable[[int], None]] = []
"""Called with the exit code when all else is done."""
_received: list[int] = []
"""Signals that came, in order."""


def install() -> None:
    """Handle the signals from now on, apart from those that are ignored, as under nohup."""
    for number in EXITS:
        if signal.getsignal(number) not in (signal.SIG_IGN, _handle):
            signal.signal(number, _handle)


def code() -> int | None:
    """Exit code of the first signal that came, None if none did."""
    return EXITS[signal.Signals(_received[0])] if _received else None


def run(command: Callable[[], object]) -> NoReturn:
    """Run a command as all that this process does, and end it. What it raises after a signal is taken for its end.

    Args:
        command: returns, or raises SystemExit with an exit code.
    """
    result: Any = 0
    sys.unraisablehook = _unraisable
    try:
        try:
            install()
            command()
        except SystemExit as end:
            result = end.code
        _settle(result)
    except BaseException as error:
        if not (_received or isinstance(error, KeyboardInterrupt)):
            raise
        result = code() or INTERRUPTED
        _settle(result)
        _say(f"{reason}, nothing half-written was kept")
    for last in at_end:
        last(result if isinstance(result, int) else int(result is not None))
    sys.exit(result)


def _handle(number: int, frame: FrameType | None) -> None:
    """Interrupt what runs; later, if this is a bad time for it."""
    if number in EXITS:
        _received.append(number)
    if (_is_inside(frame) or _is_locking(frame)) and _again():
        return
    _forget()  # else it would interrupt what is cleaned up now
    first = _received[0]
    if first == signal.SIGINT:
        raise _Interrupt
    sys.exit(EXITS[signal.Signals(first)])


def _is_inside(frame: FrameType | None) -> bool:
    """Whether an import or a compiler runs. What it has compiled has no frame of its own."""
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in _COMPILERS or frame.f_code.co_filename.startswith(_IMPORTER):
            return True
        frame = frame.f_back
    return False


def _is_locking(frame: FrameType | None) -> bool:
    """Whether a function of `threading` runs that would not stand an interrupt."""
    names = []
    while frame is not None:
        if frame.f_code.co_filename == threading.__file__:
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    return bool(names) and (names[0] != _WAIT or any(name in _WHOLE for name in names))


def _again() -> bool:
    """Try the interrupt again soon; False if there is no timer for it, or the user has lost patience."""
    if not hasattr(signal, "setitimer"):
        return False
    if len(_received) >= _PATIENCE:
        os._exit(EXITS[signal.Signals(_received[0])])
    signal.signal(signal.SIGALRM, _handle)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    return True


def _forget() -> None:
    """Do not try an interrupt again."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


def _unraisable(happened: Any) -> None:
    """Do not lose an interrupt that came where nothing can be raised, as in the destructor of an object.

    Errors of destructors say nothing after an interrupt: it leaves objects half made.
    """
    if not _received:
        sys.__unraisablehook__(happened)
    elif issubclass(happened.exc_type, KeyboardInterrupt | SystemExit):
        _again()


def _settle(result: Any) -> None:
    """Let no signal change the exit code any more: first end at once by it, then ignore them."""
    number = result if isinstance(result, int) else int(result is not None)
    _forget()
    handled = [one for one in EXITS if signal.getsignal(one) != signal.SIG_IGN]
    for one in handled:
        signal.signal(one, lambda *_: os._exit(number))
    atexit.register(lambda: [signal.signal(one, signal.SIG_IGN) for one in handled])


def _say(text: str) -> None:
    """Print a line without anything that would have to be imported."""
    try:
        sys.stderr.write(f"{text}\n")
    except (OSError, AttributeError, ValueError):
        return
