"""Interrupts at bad times: in imports, destructors, libraries that swallow them, and at the end of the interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gemmaq.cli import interrupts

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def ended(code: str, folder: Path, *how: str) -> subprocess.CompletedProcess[str]:
    """Run Python code, or what arguments of Python tell, in a process; `sys.argv` names a signal."""
    start = (
        "import atexit, os, signal, sys, threading, time\n"
        "sys.path.insert(0, os.getcwd())\n"
        "from gemmaq.cli import interrupts\n"
        "number = int(sys.argv[1]) if sys.argv[1].isdigit() else 0\n"
    )
    return subprocess.run(
        [sys.executable, *(how or ("-c", start + code)), str(folder.name)],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(params=SIGNALS, ids=lambda number: number.name)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(int(request.param))


def code_of(folder: Path) -> int:
    return interrupts.EXITS[signal.Signals(int(folder.name))]


def check(done: subprocess.CompletedProcess[str], code: int) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr
    assert done.stdout == ""


def test_a_command_ends_with_the_code_of_the_signal(folder: Path) -> None:
    check(ended("interrupts.run(lambda: (signal.raise_signal(number), time.sleep(9)))", folder), code_of(folder))


def test_a_module_may_be_interrupted_where_text_is_evaluated(folder: Path) -> None:
    """As the annotations of functions are. Python has a way of its own to end then."""
    (folder.parent / "toy_command.py").write_text(
        "import signal, sys, time\nfrom gemmaq.cli import interrupts\n"
        "interrupts.run(lambda: eval('(signal.raise_signal(int(sys.argv[1])), time.sleep(9))'))\n"
    )
    check(ended("", folder, "-m", "toy_command"), code_of(folder))


def test_an_import_is_finished_first(folder: Path) -> None:
    """Libraries catch everything around imports of theirs."""
    module = (
        "import signal, sys\ntry:\n    signal.raise_signal(int(sys.argv[1]))\n"
        "    open('finished', 'w').close()\nexcept BaseException:\n    pass\n"
    )
    (folder.parent / "toy_library.py").write_text(module)
    code = "def command():\n    import toy_library\n    time.sleep(9)\ninterrupts.run(command)"
    check(ended(code, folder), code_of(folder))
    assert (folder.parent / "finished").exists()


@pytest.mark.parametrize("compiler", ["numba", "llvmlite"])
def test_a_compiler_ends_first(folder: Path, compiler: str) -> None:
    """LLVM's objects are not to be left half made. What surrounds the call may be interrupted."""
    code = (
        "made = compile('def finish():\\n    signal.raise_signal(number)\\n    time.sleep(0.1)\\n'"
        "'    open(\"finished\", \"w\").close()', '/env/numba/llvmlite/core.py', 'exec')\n"
        f"inside = {{**globals(), '__name__': '{compiler}.core'}}\nexec(made, inside)\n"
        "def command():\n    inside['finish']()\n    time.sleep(9)\n"
        "interrupts.run(command)"
    )
    check(ended(code, folder), code_of(folder))
    assert (folder.parent / "finished").exists()


def test_a_folder_named_like_a_compiler_is_none(folder: Path) -> None:
    code = (
        "made = compile('def wait():\\n    signal.raise_signal(number)\\n    time.sleep(9)\\n'"
        "'    open(\"finished\", \"w\").close()', '/env/numba/llvmlite/core.py', 'exec')\n"
        "exec(made)\ninterrupts.run(wait)"
    )
    check(ended(code, folder), code_of(folder))
    assert not (folder.parent / "finished").exists()


def test_no_lock_stays_locked(folder: Path) -> None:
    """The pool of threads waits at its end for those that wait for the lock."""
    code = """
class Lock:
    def __init__(self):
        self.lock = threading.Lock()
        self.acquire, self.release = self.lock.acquire, self.lock.release
    def __enter__(self):
        self.lock.acquire()
        if threading.current_thread() is threading.main_thread() and threading.active_count() > 1:
            signal.raise_signal(number)
    def __exit__(self, *_):
        self.lock.release()

def command():
    with ThreadPoolExecutor(1) as pool:
        pool._idle_semaphore._cond = threading.Condition(Lock())
        while True:
            pool.submit(time.sleep, 0.001).result()

from concurrent.futures import ThreadPoolExecutor
interrupts.run(command)
"""
    check(ended(code, folder), code_of(folder))


@pytest.mark.parametrize("wait", ["Event().wait", "Semaphore(0).acquire", "Barrier(2).wait"])
def test_a_wait_for_other_threads_is_interrupted(folder: Path, wait: str) -> None:
    code = f"""
def command():
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
    threading.{wait}()
interrupts.run(command)
"""
    check(ended(code, folder), code_of(folder))


def test_a_thread_that_is_joined_ends_first(folder: Path) -> None:
    """Else Python would take it for ended, and be torn down around it."""
    code = """
def work():
    time.sleep(0.6)
    open("finished", "w").close()
def command():
    thread = threading.Thread(target=work)
    thread.start()
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
    thread.join()
    time.sleep(9)
interrupts.run(command)
"""
    check(ended(code, folder), code_of(folder))
    assert (folder.parent / "finished").exists()


def test_who_has_no_patience_ends_an_import(folder: Path) -> None:
    (folder.parent / "toy_library.py").write_text(
        "import signal, sys, time\nfor _ in range(3):\n    signal.raise_signal(int(sys.argv[1]))\ntime.sleep(9)\n"
    )
    done = ended("def command():\n    import toy_library\ninterrupts.run(command)", folder)
    check(done, code_of(folder))


def test_a_destructor_does_not_lose_it(folder: Path) -> None:
    code = (
        "class Thing:\n    def __del__(self):\n        signal.raise_signal(number)\n"
        "interrupts.run(lambda: (Thing() and None, time.sleep(9)))"
    )
    check(ended(code, folder), code_of(folder))


def test_an_object_that_it_left_half_made_is_silent(folder: Path) -> None:
    code = (
        "class Thing:\n"
        "    def __init__(self):\n        signal.raise_signal(number)\n        self.there = True\n"
        "    def __del__(self):\n        del self.there\n"
        "interrupts.run(lambda: (Thing(), time.sleep(9)))"
    )
    check(ended(code, folder), code_of(folder))


def test_an_object_that_fails_otherwise_is_not(tmp_path: Path) -> None:
    code = "class Thing:\n    def __del__(self):\n        del self.there\ninterrupts.run(lambda: Thing() and None)"
    assert "AttributeError" in ended(code, tmp_path).stderr


def test_what_is_done_stays_done(folder: Path) -> None:
    """A signal while threads end, or in what runs at exit, changes neither the code nor what was said."""
    code = (
        "def late():\n    time.sleep(0.2)\n    os.kill(os.getpid(), number)\n    time.sleep(0.2)\n"
        "atexit.register(lambda: signal.raise_signal(number))\n"
        "interrupts.run(lambda: (threading.Thread(target=late).start(), sys.exit(3)))"
    )
    check(ended(code, folder), 3)


def test_an_error_that_a_library_made_of_it_is_no_bug(folder: Path) -> None:
    code = (
        "from gemmaq.cli import app\n"
        "def broken(**options):\n"
        "    try:\n        signal.raise_signal(number)\n        time.sleep(9)\n"
        "    except BaseException:\n        raise RuntimeError('a library failed') from None\n"
        "app.app = broken\n"
        "interrupts.run(app.main)"
    )
    done = ended(code, folder)
    check(done, code_of(folder))
    assert "bug" not in done.stderr


def test_an_ignored_signal_stays_ignored(folder: Path) -> None:
    code = "signal.signal(number, signal.SIG_IGN)\ninterrupts.run(lambda: signal.raise_signal(number))"
    check(ended(code, folder), 0)
