"""A runtime that crashes, hangs, or talks nonsense becomes a sentence, and none of its processes stays behind."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from gemmaq.errors import VerificationError
from gemmaq.verify.engines import Engine, Installed
from gemmaq.verify.engines.process import Answer, ask

JOB = {"model": "x", "ids": [2], "text": "<bos>", "tokens": 2, "context": 64, "threads": 1}
ANSWER = {"version": "1.0", "prompt": [2], "tokens": [5, 6], "logprobs": [-0.5, -1.0]}


def runtime(folder: Path, script: str, python: Path = Path(sys.executable)) -> Installed:
    path = folder / "ask.py"
    path.write_text(script)
    return Installed(Engine("toy", ("gguf",), str(path)), python)


def test_an_answer_is_the_last_line_whatever_else_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = (
        "import json, sys\njob = json.load(sys.stdin)\nprint('loading')\nprint('noise', file=sys.stderr)\n"
        f"assert job == {JOB | {'program': None}!r}\nprint({json.dumps(ANSWER)!r})"
    )
    assert ask(runtime(tmp_path, script), JOB) == Answer("1.0", (2,), (5, 6), (-0.5, -1.0))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import os; os.write(2, b'bad magic\\n'); os.abort()", "toy crashed (SIGABRT): bad magic"),
        ("import os; os.kill(os.getpid(), 11)", "toy crashed (SIGSEGV)"),
        ("raise SystemExit('cannot load model')", "toy failed: cannot load model"),
        ("raise ValueError('no tensor')", "toy failed: ValueError: no tensor"),
        ("print('hello')", "answered what gemmaq does not understand"),
        ("", "answered what gemmaq does not understand"),
        ("print('{}')", "answered what gemmaq does not understand"),
        ("print('[1]')", "answered what gemmaq does not understand"),
        (f"print({json.dumps(ANSWER | {'tokens': [5]})!r})", "did not decode 2 tokens"),
        (f"print({json.dumps(ANSWER | {'logprobs': [-1.0, float('nan')]})!r})", "did not decode 2 tokens"),
    ],
)
def test_what_goes_wrong_is_said(script: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(VerificationError) as caught:
        ask(runtime(tmp_path, script), JOB)
    assert words in caught.value.message
    assert "Traceback" not in caught.value.message and len(caught.value.message) < 500


def test_a_runtime_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\ntime.sleep(600)"
    )
    with pytest.raises(VerificationError, match=r"toy had not decoded 2 tokens after 3 seconds"):
        ask(runtime(tmp_path, script), JOB, timeout=3)
    child = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not is_running(child):
            return
        time.sleep(0.1)
    pytest.fail("a child is left")


def is_running(process: int) -> bool:
    """Whether a process is there and no zombie that waits for init."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc/self").exists()


def test_another_python_does_not_get_this_ones_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/of/this/one")
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    script = f"import json, os\nprint(json.dumps({ANSWER!r} | {{'version': os.environ.get('PYTHONPATH')}}))"
    assert ask(runtime(tmp_path, script), JOB).version == "/of/this/one"
    assert ask(runtime(tmp_path, script, python), JOB).version == "None"
