"""The process that renders chat templates: a script, which a template may exhaust without harm to the run.

It reads requests from stdin, a JSON object a line, and answers each with one on stdout:

    template  Jinja source
    messages  list of objects with `role` and `content`
    answer    whether the model's turn begins behind them
    special   name of a variable -> text of a special token

    text      the conversation in the template, or
    problem   a clause about why there is none

A template that takes more time than it may is ended by the system (SIGPROF), so that no loop of compiled code goes on,
either. Filters, functions and options are those of transformers (utils/chat_template_utils.py, version 5.14), whose
import would take seconds.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

MEMORY = 7 << 25
"""Bytes of address space that the process may take beyond what Python has when it starts."""
SECONDS = 2.0
"""Processor time that templates may take without a pause."""
EACH = 0.05
"""Processor time by which each rendering prolongs that, up to `SECONDS` again."""
ROOM, FACTOR = 1 << 21, 4
"""Bytes that a template may add to a conversation, and how often it may repeat it."""
_SHOWN = 200


@functools.lru_cache(maxsize=4)
def _compiled(source: str) -> Any:
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """What stands between {% generation %} and {% endgeneration %}, as it is."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as a set

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

        def _said(self, caller: Any) -> Any:
            return caller()

    class Table:
        """`dict` without what a class has besides."""

        def __call__(self, *values: Any, **named: Any) -> dict[Any, Any]:
            return dict(*values, **named)

        def fromkeys(self, *values: Any) -> dict[Any, Any]:
            return dict.fromkeys(*values)

    class Variables(Namespace):
        """A namespace without names that begin with an underscore."""

        def __init__(*values: Any, **named: Any) -> None:
            self, first = values[0], values[1:]
            attributes = dict(*first, **named)
            for name in attributes:
                _check(name)
            Namespace.__init__(self, attributes)

        def __setitem__(self, name: str, value: Any) -> None:
            _check(name)
            Namespace.__setitem__(self, name, value)

    def _check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace has no {name!r:.60}")

    def refuse(message: Any) -> NoReturn:
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": Table(),
        "namespace": Variables,
    }
    return environment.from_string(source)


def render(request: dict[str, Any], most: int) -> str:
    """A conversation in a template.

    Args:
        request: As the module's docstring says.
        most: Characters of the result.

    Raises:
        Exception: The template refuses the conversation, or cannot be used; a template is a program.
    """
    pieces, length = list[str](), 0
    values = {"messages": request["messages"], "tools": None, "documents": None, **request["special"]}
    for piece in _compiled(request["template"]).generate(values, add_generation_prompt=request["answer"]):
        length += len(piece)
        if length > most:
            raise ValueError(f"it makes more than {most:,} characters of it")
        pieces.append(piece)
    text = "".join(pieces)
    text.encode()  # a literal may spell half a surrogate pair
    return text


def answer(line: bytes) -> dict[str, str]:
    """The answer to a line; what a template fails with is an answer, too."""
    try:
        return {"text": render(json.loads(line), ROOM + FACTOR * len(line))}
    except MemoryError:
        return {"problem": f"it takes more than {MEMORY >> 20} MiB of memory"}
    except RecursionError:
        return {"problem": "it calls itself again and again"}
    except UnicodeEncodeError:
        return {"problem": "it writes half a character"}
    except Exception as error:
        said = ""
        with contextlib.suppress(Exception):
            said = str(error)[:_SHOWN].encode("utf-8", "replace").decode()
        return {"problem": said or type(error).__name__}


def serve(lines: Any, write: Callable[[bytes], object]) -> None:
    """Answer lines until there are no more."""
    left = SECONDS
    for line in lines:
        left = min(left + EACH, SECONDS)
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, max(left, 1e-3))
        reply = answer(line)
        signal.setitimer(signal.ITIMER_PROF, 0)
        left -= time.process_time() - started
        write(json.dumps(reply).encode() + b"\n")


def _confine() -> None:
    """Limit the memory of the process, and let it write no files and leave no core behind."""
    taken = 0
    with contextlib.suppress(OSError):  # a file of Linux; archives of locales can take hundreds of megabytes
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, most in (("RLIMIT_AS", taken + MEMORY), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of address space
            resource.setrlimit(getattr(resource, kind), (most, most))


if __name__ == "__main__":
    _confine()
    with contextlib.suppress(ImportError):  # which the first answer tells
        import jinja2.sandbox  # noqa: F401 - its import is no time of a template
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing but answers
    with os.fdopen(output, "wb", buffering=0) as channel:

        def _write(data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[channel.write(view) :]

        serve(sys.stdin.buffer, _write)
