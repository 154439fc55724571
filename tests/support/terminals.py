"""What a Python program shows on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(code: str, columns: int = 100, **environment: str) -> str:
    """Everything that a program of Python writes to a terminal of so many columns, controls included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = {**os.environ, "TERM": "xterm", **environment}
    variables.pop("COLUMNS", None)
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=variables) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # Linux answers so once the other end is closed
                break
            if not block:
                break
            shown += block
        assert process.wait() == 0, shown.decode()
    os.close(ours)
    return shown.decode()


def plain(shown: str) -> str:
    """The same without what moves the cursor or colours."""
    return _CONTROLS.sub("", shown).replace("\r", "")
