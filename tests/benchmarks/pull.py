"""Pulling 2 GB from this machine with gemmaq and with curl, in turn; and what headers of a 27B-sized repository cost.

    python tests/benchmarks/pull.py WORK_FOLDER [--runs 3] [--gigabytes 2]

The server is tests/support/fake_hub.py in a process of its own. curl follows the same redirect and writes the same
bytes into the same folder; it checks no digest. Wall time is that of the whole process; "moving" leaves out what gemmaq
takes to do nothing, the same pull when all is cached.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from timing import Timing, table, timed

from synthetic import full_size, write_checkpoint

TESTS = Path(__file__).parents[1] / "support"
REPO, HUGE = "acme/two-gigabytes", "google/gemma-3-27b-it"
FILE = "model.safetensors"


def make_file(path: Path, size: int) -> str:
    """A valid safetensors file of noise; its SHA-256."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size - 128], "data_offsets": [0, size - 128]}}).encode()
    digest = hashlib.sha256()
    noise = os.urandom(1 << 24)
    with path.open("wb") as file:
        left = size
        for block in (len(header.ljust(120)).to_bytes(8, "little") + header.ljust(120), *[noise] * (size >> 24), noise):
            piece = block[:left]
            file.write(piece)
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


def make_repositories(root: Path, size: int) -> Path:
    """The two repositories; where their digests stand."""
    digests = root / "digests.json"
    if not digests.exists():
        shutil.rmtree(root, ignore_errors=True)
        (root / REPO).mkdir(parents=True)
        (root / REPO / "config.json").write_text("{}")
        known = {REPO: {FILE: make_file(root / REPO / FILE, size)}}
        write_checkpoint(root / HUGE, full_size("27b"), shard_bytes=4_950_000_000, sparse=True)
        known[HUGE] = {path.name: f"{at:064x}" for at, path in enumerate(sorted((root / HUGE).glob("*.safetensors")))}
        digests.write_text(json.dumps(known))
    return digests


@contextmanager
def serving(root: Path, digests: Path, log: Path) -> Iterator[str]:
    """The fake Hub in a process of its own; its endpoint."""
    log.unlink(missing_ok=True)
    command = [sys.executable, TESTS / "fake_hub.py", "--root", root, "--digests", digests, "--log", log]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=2)
    arguments = parser.parse_args()
    work: Path = arguments.folder.absolute()
    size = int(arguments.gigabytes * 1e9)
    digests = make_repositories(work / "root", size)
    with serving(work / "root", digests, work / "log") as endpoint:
        os.environ |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(work / "home"), "NO_PROXY": "127.0.0.1,localhost"}
        os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        throughput(work, endpoint, arguments.runs, size)
        headers(work)


def throughput(work: Path, endpoint: str, runs: int, size: int) -> None:
    pull = [sys.executable, "-m", "gemmaq", "pull", REPO, "-q"]
    curl = ["curl", "-s", "-L", "-f", "-o", work / "curled", f"{endpoint}/{REPO}/resolve/main/{FILE}"]
    ours: list[Timing] = []
    theirs: list[Timing] = []
    nothing: list[Timing] = []
    for number in range(runs + 1):  # the first round warms caches and is not counted
        (work / "curled").unlink(missing_ok=True)
        shutil.rmtree(work / "home", ignore_errors=True)
        rows = timed(curl), timed(pull), timed(pull)
        if number:
            for kept, row in zip((theirs, ours, nothing), rows, strict=True):
                kept.append(row)
    table({"curl": theirs, "gemmaq pull": ours, "gemmaq pull, all cached": nothing})
    whole = [a[0] / b[0] for a, b in zip(theirs, ours, strict=True)]
    moving = [a[0] / (b[0] - c[0]) for a, b, c in zip(theirs, ours, nothing, strict=True)]
    rate = statistics.median(size / row[0] for row in theirs) / 1e6
    print(f"curl: {rate:.0f} MB/s, median; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for what, ratios in (("whole process", whole), ("while bytes move", moving)):
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"throughput against curl, {what}: {statistics.median(ratios):.2f} ({each}); target 0.80")
    best = [min(row[0] for row in rows) for rows in (theirs, ours, nothing)]
    print(f"best against best: {best[0] / best[1]:.2f}, while bytes move {best[0] / (best[1] - best[2]):.2f}")
    print(f"peak RSS of gemmaq: {max(row[1] for row in ours):.0f} MB (target at most 300)")


def headers(work: Path) -> None:
    print(f"\n{HUGE}: {sum(p.stat().st_size for p in (work / 'root' / HUGE).iterdir()) / 1e9:.1f} GB in 12 shards")
    for command in ("inspect", "estimate-vram"):
        before = sent(work)
        rows = [timed([sys.executable, "-m", "gemmaq", command, HUGE, "-q"]) for _ in range(3)]
        traffic = (sent(work) - before) / 3e6
        print(f"{command}: {traffic:.2f} MB (target 10), {statistics.median(row[0] for row in rows):.2f} s (target 3)")


def sent(work: Path) -> int:
    """Bytes of bodies that the server sent so far."""
    return sum(json.loads(line)["sent"] for line in (work / "log").read_text().splitlines())


if __name__ == "__main__":
    main()
