"""Kills commands that write at moments decided by a number, and looks at what is left and at what the next run makes.

    python tests/fuzz/kills.py [--kills 400] [--first 0] [--commands convert,qat] [--signals SIGKILL] [--workers 2]

A kill is good if no half-written file has a final name, what was there before is whole, an interrupted command ends
with its own exit code and no traceback, and the next run of the same command gives what it gives undisturbed,
with nothing beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np

import lora_files
import small
from damage import small_model, tree
from fake_hub import FakeHub
from gemmaq.calibration.imatrix import Entry, Imatrix, document
from inprocess import run

SIGNALS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
"""Signals, and the exit codes that they lead to."""
TIME = ("seconds", "created", "date")
"""Keys of records that differ from run to run."""
REPO = "someone/gemma-3-tiny"
_FEW = ("--calibration-tokens", 256, "--calibration-kind", "tools")
_CHUNKS = (*_FEW, "--calibration-context", 64)
_SCORED = ("--text", "/dev/stdin", "--tokens", "63", "--context", "64")


@dataclass(frozen=True)
class Command:
    """A command that writes.

    Attributes:
        words: (folder with the models, folder to write into) -> arguments.
        before: makes what is there already in the folder to write into.
        resume: flags for the run after a kill.
        keeps: whether it keeps what is done beside its output, to go on.
        processes: number of processes that torchrun starts; one of them is killed.
    """

    words: Callable[[Path, Path], list[object]]
    before: Callable[[Path, Path], object] = lambda models, room: None
    resume: tuple[str, ...] = ()
    keeps: bool = False
    processes: int = 1


def _run(*words: object) -> None:
    """Run a command in a process of its own: several threads do this at a time, and this process has one stdout."""
    subprocess.run([sys.executable, "-m", "gemmaq", *map(str, words)], check=True, capture_output=True)


def _convert(*options: object) -> Command:
    return Command(lambda models, room: ["convert", models / "small", "-o", room / "out", *options])


def _calibrated(*options: object) -> Command:
    return _convert(*_CHUNKS, *options)


def _resuming(words: Callable[[Path, Path], list[object]], processes: int = 1) -> Command:
    """A command that goes on where it was killed, by the same command line."""
    return Command(lambda models, room: [*words(models, room), "--resume"], keeps=True, processes=processes)


def _over(command: Command, *older: object) -> Command:
    """A command that replaces an older artifact."""
    return Command(
        lambda models, room: [*command.words(models, room), "--force"],
        lambda models, room: _run("convert", models / "small", "-o", room / "out", "--quant", "q8_0", *older),
    )


COMMANDS = {
    "convert": _convert(),
    "containers": _convert("--to", "gguf", "--to", "mlx", "--to", "safetensors"),
    "ladder": _convert("--quant", "q8_0,q4_0,q5_1"),
    "force": _over(_convert("--to", "gguf", "--to", "mlx")),
    "force-ladder": _over(_convert("--quant", "q4_0,q5_1"), "--to", "mlx"),
    "gguf-lora": Command(
        lambda models, room: ["convert", models / "adapter", "--to", "gguf-lora", "-o", room / "out"],
    ),
    "importance": _calibrated("--method", "importance"),
    "gptq": _calibrated("--method", "gptq", "--quant", "q4_0,iq4_nl"),
    "refine": _calibrated("--method", "nearest", "--refine", "2steps"),
    "budget": _calibrated("--target-bpw", "6"),
    "imatrix": Command(
        lambda models, room: ["imatrix", models / "small", *_CHUNKS, "-o", room / "imatrix.gguf"],
    ),
    "imatrix-resume": _resuming(
        lambda models, room: ["imatrix", models / "small", *_CHUNKS, "--save-every", 3, "-o", room / "imatrix.gguf"],
    ),
    "importance-resume": _resuming(_calibrated("--method", "importance").words),
    "gptq-resume": _resuming(_calibrated("--method", "gptq", "--quant", "q4_0,iq4_nl").words),
    "gptq-of-two": _resuming(_calibrated("--method", "gptq", "--quant", "q4_0,iq4_nl").words, 2),
    "sensitivity": Command(
        lambda models, room: ["sensitivity", models / "small", "--tokens", 128, *_FEW, "-o", room / "sensitivity.json"],
        resume=("--resume",),
    ),
    "record": Command(
        lambda models, room: ["evaluate", room / "out", "--reference", models / "small", "--record", *_SCORED],
        lambda models, room: _run("convert", models / "small", "-o", room / "out", "--quant", "q4_0,q8_0"),
    ),
    "report": Command(
        lambda models, room: ["evaluate", models / "q8_0", "--reference", models / "small", *_SCORED, *_report(room)],
    ),
    "report-resume": _resuming(
        lambda models, room: ["evaluate", models / "q8_0", "--reference", models / "small", *_SCORED, *_report(room)],
    ),
    "qat": Command(
        lambda models, room: list(
            small.words(models / "small", models / "text.txt", room / "out", "--steps", 6, "--save-steps", 2)
        ),
        resume=("--resume",),
    ),
    "pull": Command(lambda models, room: ["pull", REPO, "-o", room / "out"]),
    "merge": Command(
        lambda models, room: [
            *("imatrix", "--merge", models / "one.gguf", "--merge", models / "two.gguf"),
            *("-o", room / "imatrix.gguf"),
        ],
    ),
    "install": Command(lambda models, room: _install(models / "q8_0", room)),
    "force-install": Command(
        lambda models, room: [*_install(models / "q8_0", room), "--force"],
        lambda models, room: _run(*_install(models / "older", room)),
    ),
    "push": Command(lambda models, room: ["push", models / "q8_0", _repo(room)]),
}


def _report(room: Path) -> tuple[object, ...]:
    return "--report", room / "report.html"


def _install(artifact: Path, room: Path) -> list[object]:
    return ["install", artifact, "--runtime", "lmstudio", "--dest", room / "models", "--name", "someone/small"]


def _repo(room: Path) -> str:
    """A repository that only one attempt uses."""
    return f"acme/{room.parent.name}"


@dataclass(frozen=True)
class Sound:
    """What a command leaves when nobody disturbs it, and how long it takes, in seconds."""

    files: Mapping[str, bytes | None]
    seconds: float


def made(models: Path) -> Path:
    """Sources of all commands."""
    small.write_model(models / "small")
    base = small_model(models / "base")
    lora_files.write(models / "adapter", lora_files.config(), lora_files.pair(64, 64), base="../base")
    assert base.is_dir()
    (models / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 200, "utf-8")
    run("convert", models / "small", "-o", models / "q8_0", "--quant", "q8_0", "-q")
    run("convert", models / "small", "-o", models / "older", "--quant", "q8_0", "--embedding", "q4_0", "-q")
    for number, name in enumerate(("one", "two")):
        entry = Entry(np.full(8, number + 1, np.float32), np.ones(1, np.float32))
        (models / f"{name}.gguf").write_bytes(document(Imatrix({"blk.0.attn_q.weight": entry}, (name,), 1, 8)))
    return models


def started(words: list[object], models: Path, hub: FakeHub, room: Path, processes: int = 1) -> subprocess.Popen[str]:
    """A command in a process of its own, or in several, with a cache that belongs to the room."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {
        **os.environ,
        **hub.env(room / "home", "hf_write"),
        "GEMMAQ_CACHE": str(room / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    with (models / "text.txt").open() as text:
        return subprocess.Popen(
            [sys.executable, *(torchrun if processes > 1 else []), "-m", "gemmaq", *map(str, words)],
            stdin=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )


def left(room: Path, hub: FakeHub) -> dict[str, bytes | None]:
    """Everything in the folder to write into and in the repository to push to, without times in records."""
    files = {name: _timeless(name, content) for name, content in tree(room / "to").items()}
    repo = _repo(room / "to")
    if repo in hub.repos and (commit := hub.repos[repo].find("main")) is not None:
        for name, blob in commit.files.items():
            if name != ".gitattributes":
                content = _timeless(name, blob.read())
                files[f"{REPO}/{name}"] = _of_any_repo(content, repo) if name == "README.md" else content
    return files


def _of_any_repo(card: bytes | None, repo: str) -> bytes:
    """A model card without the repository's name and the digest at its end."""
    text = (card or b"").partition(b"<!-- written by")[0]
    return text.replace(repo.encode(), b"").replace(repo.partition("/")[2].encode(), b"")


def _timeless(name: str, content: bytes | None) -> bytes | None:
    if content is not None and name.endswith((".html", ".metadata", "SHA256SUMS")):
        return b""
    if content is None or not name.endswith(".json"):
        return content
    try:
        return json.dumps(json.loads(content, object_hook=_without_time)).encode()
    except ValueError:  # half of it, in a temporary folder
        return content


def _without_time(record: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in record.items() if key not in TIME and record.get("path") != "README.md"}


def try_kill(
    number: int,
    names: list[str],
    sound: Mapping[str, Sound],
    models: Path,
    hub: FakeHub,
    signals: Sequence[signal.Signals] = tuple(SIGNALS),
) -> list[str]:
    """Kill a command, then run it again; says what is bad."""
    chance = random.Random(number)
    name = names[number % len(names)]
    command = COMMANDS[name]
    chosen = chance.choice(signals)
    moment = chance.uniform(0.1, 1) * sound[name].seconds
    with tempfile.TemporaryDirectory(dir=models.parent) as place:
        problems = list(_killed(command, chosen, moment, sound[name], models, hub, Path(place)))
    return [f"#{number} {name}: {chosen.name} after {moment:.2f} s: {problem}" for problem in problems]


def _killed(
    command: Command, chosen: signal.Signals, moment: float, sound: Sound, models: Path, hub: FakeHub, room: Path
) -> Iterator[str]:
    (room / "to").mkdir()
    command.before(models, room / "to")
    before, words = left(room, hub), command.words(models, room / "to")
    process = started(words, models, hub, room, command.processes)
    time.sleep(moment)
    with suppress(ProcessLookupError, FileNotFoundError):  # it has ended
        os.kill(process.pid if command.processes == 1 else _last_child(process), chosen)
    try:
        _, stderr = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        yield "it does not end"
        return
    now = left(room, hub)
    if process.returncode not in (0, SIGNALS[chosen] if command.processes == 1 else 1):
        yield f"exit code {process.returncode}: {stderr.strip()[-300:]}"
    if ("Traceback" in stderr and command.processes == 1) or "this is a bug" in stderr:
        yield stderr.strip()[-500:]
    if process.returncode == 0 and now != sound.files:
        yield f"ended well with other files: {_difference(now, sound.files)}"
    finals = {name: content for name, content in now.items() if name.split("/")[0] in _tops(sound.files)}
    if finals not in ({}, before, sound.files):
        yield f"half of it is there: {_difference(finals, sound.files)}"
    if chosen != signal.SIGKILL and not (command.resume or command.keeps) and set(now) - set(before) - set(sound.files):
        yield f"left {sorted(set(now) - set(before) - set(sound.files))[:3]}"
    if now != sound.files or not finals:
        resumed = command.resume if len(now) > len(before) else ()
        again = started([*words, *resumed], models, hub, room, command.processes)
        _, stderr = again.communicate(timeout=120)
        if again.returncode:
            yield f"the next run: exit code {again.returncode}: {stderr.strip()[-300:]}"
        elif left(room, hub) != sound.files:
            yield f"the next run: {_difference(left(room, hub), sound.files)}"


def _last_child(process: subprocess.Popen[str]) -> int:
    """The process that another one started last, as soon as there is one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        if found := children.read_text().split():
            return int(found[-1])
        time.sleep(0.05)
    return process.pid


def _tops(files: Mapping[str, bytes | None]) -> set[str]:
    return {name.split("/")[0] for name in files}


def _difference(one: Mapping[str, bytes | None], other: Mapping[str, bytes | None]) -> str:
    return ", ".join(sorted(name for name in {*one, *other} if one.get(name, 1) != other.get(name, 1))[:5])


def undisturbed(name: str, models: Path, hub: FakeHub) -> Sound:
    """Run a command to its end."""
    with tempfile.TemporaryDirectory(dir=models.parent) as place:
        room = Path(place)
        (room / "to").mkdir()
        COMMANDS[name].before(models, room / "to")
        begun = time.monotonic()
        process = started(COMMANDS[name].words(models, room / "to"), models, hub, room, COMMANDS[name].processes)
        _, stderr = process.communicate()
        assert process.returncode == 0, f"{name}: {stderr}"
        return Sound(left(room, hub), time.monotonic() - begun)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--kills", type=int, default=400)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--commands", default=",".join(COMMANDS))
    options.add_argument("--signals", default=",".join(one.name for one in SIGNALS))
    options.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = options.parse_args()
    names, begun = asked.commands.split(","), time.monotonic()
    signals = [signal.Signals[name] for name in asked.signals.split(",")]
    for ignored in (signal.SIGINT, signal.SIGHUP):  # as in the background of a shell, or under nohup
        signal.signal(ignored, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as place, FakeHub(Path(place) / "hub") as hub:
        models = made(Path(place) / "models")
        hub.add(REPO, models / "small")
        for name in names:
            undisturbed(name, models, hub)  # compiles, and fills the disk's cache
        sound = {name: undisturbed(name, models, hub) for name in names}
        print(json.dumps({name: round(each.seconds, 2) for name, each in sound.items()}), flush=True)
        with ThreadPoolExecutor(asked.workers) as pool:
            numbers = range(asked.first, asked.first + asked.kills)
            bad = Counter[str]()
            for problems in pool.map(lambda number: try_kill(number, names, sound, models, hub, signals), numbers):
                for problem in problems:
                    print(problem, flush=True)
                    bad[problem.split()[1]] += 1
    print(f"{asked.kills} kills, {sum(bad.values())} bad {dict(bad) or ''} in {time.monotonic() - begun:.0f} s")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
