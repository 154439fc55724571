"""Compiled numeric loops: machine code of the wheel where there is some, else numba's, which is cached on disk.

numba takes time to import and more to compile, so it is imported where first something is to be compiled.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from gemmaq.jit import native

_ROOM = 400 << 20
"""Bytes of address space that compiling may take: LLVM ends the process where an allocation fails."""


_watcher: Callable[[bool], object] = bool


def watch(watcher: Callable[[bool], object]) -> None:
    """Call a function with True whenever a loop begins to be compiled, and with False when it is."""
    global _watcher
    _watcher = watcher


def room() -> int | None:
    """Bytes of address space that a limit (ulimit -v) leaves to this process; None without a limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        with open("/proc/self/statm", "rb") as file:
            return limit - int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return None


@functools.cache
def _numba() -> Any:
    """numba, taught to look for room and to compile calls of what is deferred here."""
    import numba
    from numba.core import event
    from numba.core.registry import cpu_target
    from numba.extending import typeof_impl

    class Room(event.Listener):
        """Refuses to compile where a limit of the process leaves no room for it, and tells who watches."""

        def __init__(self) -> None:
            self._depth = 0  # one compiles others that it calls; numba lets one thread compile at a time

        def on_start(self, event: Any) -> None:
            left = room()
            if left is not None and left < _ROOM:
                raise MemoryError(f"a limit leaves {left >> 20} MiB, compiling takes {_ROOM >> 20}")
            self._depth += 1
            if self._depth == 1:
                _watcher(True)

        def on_end(self, event: Any) -> None:
            self._depth -= 1
            if self._depth == 0:
                _watcher(False)

    @typeof_impl.register(Deferred)
    def _(value: Deferred, context: Any) -> Any:
        made = value.made
        refresh()
        return cpu_target.typing_context.resolve_value_type(made)

    event.register("numba:compile", Room())  # type: ignore[no-untyped-call]
    return numba


def refresh() -> None:
    """Let numba see, in the midst of compiling, what has been added to it."""
    from numba.core.registry import cpu_target

    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()


class Deferred:
    """A thing of numba's that is made when it is first needed."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    @functools.cached_property
    def made(self) -> Any:
        """What numba made of it."""
        return self._make(_numba())


class Kernel(Deferred):
    """A compiled function."""

    def __init__(self, function: Any, options: dict[str, Any]) -> None:
        super().__init__(lambda numba: _jit(numba, function, options))
        functools.update_wrapper(self, function)
        self.name = f"{function.__module__}.{function.__qualname__}"

        self._callers: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Call the function in the library of the wheel, or let numba compile it.

        Raises:
            MemoryError: There is no room to compile it, or for its working memory.
        """
        kinds = tuple(map(native.kind, arguments))
        call = self._callers.get(kinds)
        if call is None:
            spelled = " ".join(str(native.spelled(one)) for one in arguments)
            call = self._callers[kinds] = self._native.get(spelled) or self.made
        return call(*arguments)

    @functools.cached_property
    def _native(self) -> dict[str, Callable[..., Any]]:
        return native.functions(self.name)


def _jit(numba: Any, function: Any, options: dict[str, Any]) -> Any:
    try:
        return numba.njit(function, cache=True, nogil=True, error_model="numpy", **options)
    except RuntimeError:  # neither beside the package nor in the user's cache can anything be written
        return numba.njit(function, nogil=True, error_model="numpy", **options)


def compiled(function: Any) -> Any:
    """Compile without the interpreter lock, keep the machine code on disk, divide like C."""
    return Kernel(function, {})


def compiled_with(**options: Any) -> Callable[[Any], Any]:
    """`compiled`, with further options of numba, as `fastmath`."""
    return lambda function: Kernel(function, options)


def intrinsic(function: Any) -> Any:
    """A function of compiled code that writes instructions of LLVM: the decorator of numba's of that name."""
    return Deferred(lambda numba: numba.extending.intrinsic(function))
