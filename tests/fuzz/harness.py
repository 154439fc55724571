"""Feeds damaged inputs of every kind to the command line, and tells what it should not have done.

    python tests/fuzz/harness.py [--inputs 10000] [--first 0] [--kinds config,gguf] [--workers 2] [--keep FOLDER]

An input is good if the command succeeds, or fails with one error and an exit code of its own, within a time and some
memory, and leaves nothing behind. Everything is decided by the number of the input, so that one can be had again:
`--first N --inputs 1`. Workers are processes, so that a crash of compiled code is found, too.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parents[1] / "support"
sys.path[:0] = [str(SUPPORT), str(Path(__file__).parent)]

import mutations  # noqa: E402
from sources import KINDS, Kind, Model  # noqa: E402

SECONDS, MEMORY = 20, 1 << 30
"""What a command may take for one input of a few hundred kilobytes: processor time, on machines with more to do, too;
memory beyond what it takes for a sound one."""
BATCH = 100


@dataclass(frozen=True)
class Finding:
    """Something bad: number and kind of the input, the command, and what happened."""

    number: int
    kind: str
    command: str
    what: str

    def __str__(self) -> str:
        return f"#{self.number} {self.kind}: {self.command}: {self.what}"


class _Late(BaseException):
    """The time is over; no command catches it."""


@contextmanager
def _limited() -> Iterator[None]:
    def late(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor: the machine may be busy
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def try_input(number: int, models: Mapping[str, Model], room: Path, kinds: Mapping[str, Kind]) -> list[Finding]:
    """Damage a file of a model as the number says, and give it to a command.

    Args:
        number: number of the input.
        models: sound models by kind.
        room: folder for the copy.
        kinds: kinds to choose from.
    """
    chance = random.Random(number)
    name = sorted(kinds)[number % len(kinds)]
    kind, model = kinds[name], models[name]
    copy = room / "in"
    shutil.copytree(model.folder, copy)
    target = copy / chance.choice(kind.files(model.folder))
    target.write_bytes(mutations.of_file(target, chance))
    arguments = [
        str(word) for word in chance.choice(kind.commands)(copy / model.path.relative_to(model.folder), room / "out")
    ]
    command = f"{target.relative_to(copy)}, gemmaq {' '.join(arguments).replace(f'{room}/', '')}"
    what = _told(arguments, room)
    shutil.rmtree(room)
    room.mkdir()
    return [Finding(number, name, command, problem) for problem in what]


def _told(arguments: list[str], room: Path) -> list[str]:
    """What is bad about a run."""
    from inprocess import run_any

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names = {path.name for path in room.iterdir()}
    try:
        with _limited():
            done = run_any(*arguments)
    except _Late:
        return [f"is not done after {SECONDS} s"]
    except BaseException as bug:  # whatever escapes the command line is a finding
        return [f"{type(bug).__name__}: {bug}"]
    problems = []
    if done.code in (1, 120) or "Traceback" in done.stderr or "this is a bug" in done.stderr:
        problems.append(f"exit code {done.code}: {done.stderr.strip()[-300:]}")
    if done.code and "error:" not in done.stderr:
        problems.append(f"exit code {done.code} without an error")
    left = {path.name for path in room.iterdir()} - names
    if left - ({"out"} if done.code == 0 else set()):
        problems.append(f"exit code {done.code}, left {', '.join(sorted(left))}")
    taken = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if taken > MEMORY:
        problems.append(f"took {taken / 1e9:.1f} GB of memory")
    if any(ord(letter) < 32 and letter not in "\n\t" for letter in done.stdout + done.stderr):
        problems.append("printed control characters")
    return problems


def work(first: int, count: int, names: list[str] | None, place: Path) -> None:
    """Try some inputs in this process; a line for every finding, and the number of the one under way on disk."""
    kinds = {name: kind for name, kind in KINDS.items() if names is None or name in names}
    os.environ["GEMMAQ_CACHE"] = str(place / "cache")
    models = {name: kind.make(place / "models" / name) for name, kind in kinds.items()}
    room = Path(tempfile.mkdtemp(dir=place))
    for number in range(first, first + count):
        (place / f"at-{first}").write_text(str(number))
        for finding in try_input(number, models, room, kinds):
            print(finding, flush=True)


def _batch(first: int, count: int, kinds: str | None, place: Path) -> list[str]:
    """Findings of a batch; a worker that dies is followed by another one behind the input that killed it."""
    found: list[str] = []
    end = first + count
    while first < end:
        command = [
            sys.executable,
            __file__,
            "--worker",
            str(place),
            "--first",
            str(first),
            "--inputs",
            str(end - first),
        ]
        done = subprocess.run([*command, *(["--kinds", kinds] if kinds else [])], capture_output=True, text=True)
        found += done.stdout.splitlines()
        if done.returncode == 0:
            break
        at = int((place / f"at-{first}").read_text()) if (place / f"at-{first}").exists() else end - 1
        found.append(f"#{at} killed its process: {done.returncode}\n{done.stderr[-2000:]}")
        first = at + 1
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--inputs", type=int, default=10_000)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--kinds", help=f"some of {', '.join(KINDS)}")
    options.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.worker:
        work(asked.first, asked.inputs, asked.kinds.split(",") if asked.kinds else None, asked.worker)
        return
    started, findings = time.monotonic(), list[str]()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(asked.workers) as pool:
        chosen = [kind for kind in KINDS if not asked.kinds or kind in asked.kinds.split(",")]
        for name in chosen:
            KINDS[name].make(Path(place) / "models" / name)
        starts = range(asked.first, asked.first + asked.inputs, BATCH)
        sizes = [min(BATCH, asked.first + asked.inputs - start) for start in starts]
        jobs: list[Any] = [
            pool.submit(_batch, *each, asked.kinds, Path(place)) for each in zip(starts, sizes, strict=True)
        ]
        for number, job in enumerate(jobs, 1):
            new = job.result()
            findings += new
            for line in new:
                print(line, flush=True)
            if sys.stderr.isatty():
                print(f"{number * BATCH:,} of {asked.inputs:,}", end="\r", file=sys.stderr)
    by_kind = Counter(line.split(":")[0].split()[-1] for line in findings)
    print(f"{asked.inputs:,} inputs, {len(findings)} bad {dict(by_kind) or ''} in {time.monotonic() - started:.0f} s")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
