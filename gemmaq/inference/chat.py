"""Renders conversations in chat templates, in a process of its own: a template of a model is a program of a stranger.

One process serves all conversations of a run. It starts with the first one, which takes about 0.2 s; each one after
that takes about 0.2 ms more than it would in this process.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gemmaq.errors import InputError
from gemmaq.inference.render_chat import FACTOR, ROOM, SECONDS

PATIENCE = 60.0
"""Seconds of the clock that a conversation may take, on a machine with too much to do."""
_SCRIPT = Path(__file__).with_name("render_chat.py")
_ESCAPED = 13
"""Bytes that a character of an answer may take."""
_SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD")
"""Words in the names of variables that no template gets to see."""


class Exhausted(InputError):
    """A template took more time than it may, or brought its process down: it would do so with the next text, too."""


def render(
    template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, str], *, answer: bool = False
) -> str:
    """A conversation in a chat template.

    Args:
        template: Jinja source.
        messages: Messages with `role` and `content`.
        special: Name of a variable, such as `bos_token` -> text of a special token.
        answer: Whether the model's turn begins behind them.

    Raises:
        InputError: The template refuses the conversation, or is unusable.
        Exhausted: It takes too much time, or its process ended over it.
    """
    request = {"template": template, "messages": [dict(m) for m in messages], "answer": answer, "special": special}
    with _LOCK:
        reply = _RENDERER.ask(json.dumps(request).encode() + b"\n")
    if "text" not in reply:
        raise InputError(f"the chat template refuses a conversation: {reply.get('problem')}")
    return reply["text"]


@dataclass(slots=True)
class _Renderer:
    """The process, if there is one."""

    process: subprocess.Popen[bytes] | None = None
    owner: int = 0

    def ask(self, line: bytes) -> dict[str, str]:
        """Send a request and wait for the answer; errors as in `render`."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
            reply = self._line(process, _ESCAPED * (ROOM + FACTOR * len(line)))
        except OSError:  # it is gone
            reply = None
        except BaseException:
            self.end()  # an interrupted exchange must not answer the next one
            raise
        if reply is None:
            raise Exhausted(f"the chat template {self._fate()}", "take the chat template of the base model")
        found: dict[str, str] = json.loads(reply)
        return found

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is not None and (self.owner != os.getpid() or self.process.poll() is not None):
            self.process = None  # a forked process leaves the one of its parent alone
        if self.process is None:
            kept = {
                name: value for name, value in os.environ.items() if not any(word in name.upper() for word in _SECRETS)
            }
            self.process = subprocess.Popen(
                [sys.executable, "-B", "-P", str(_SCRIPT)],  # it imports nothing of its folder, and writes nothing
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=kept,
                start_new_session=True,  # Ctrl-C is for the run, which ends it
            )
            self.owner = os.getpid()
        return self.process

    def _line(self, process: subprocess.Popen[bytes], most: int) -> bytes | None:
        """The next line of the process; None if it ends, takes too long, or says far too much."""
        assert process.stdout is not None
        until, line = time.monotonic() + PATIENCE, bytearray()
        while not line.endswith(b"\n"):
            wait = until - time.monotonic()
            ready = select.select([process.stdout], [], [], wait)[0] if wait > 0 else []
            block = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not block or len(line) > most:
                return None
            line += block
        return bytes(line)

    def _fate(self) -> str:
        """How the process ended."""
        process = self.process
        assert process is not None
        with suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        code = process.poll()
        self.end()
        if code is None:
            return f"has no conversation ready after {PATIENCE:g} seconds"
        if code == -signal.SIGPROF:
            return f"takes more than {SECONDS:g} seconds for a conversation"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"brought the process that renders it to an end ({how})"

    def end(self) -> None:
        """End the process."""
        process, self.process = self.process, None
        if process is None or self.owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()


_LOCK, _RENDERER = threading.Lock(), _Renderer()
atexit.register(_RENDERER.end)
