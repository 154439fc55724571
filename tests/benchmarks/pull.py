"""Pulling from this machine with gemmaq, huggingface_hub and curl, in turn; and what headers of a 27B-sized model cost.

    python tests/benchmarks/pull.py WORK_FOLDER [--runs 3] [--gigabytes 2] [--only one,eight,...]

The server is tests/support/fake_hub.py in a process of its own. Files are one of that size and eight that share it: as
they are, with 20 ms before each answer, and with connections that are cut. Everybody reads plain HTTP; in `xet`, gemmaq
and huggingface_hub use hf_xet. curl follows the same redirects and writes the same bytes into the same folder, four
files at a time as gemmaq does; it checks no digest. Wall time is that of the whole process; "moving" leaves out what a
tool takes to do nothing, the same download when all is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
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
HUGE = "google/gemma-3-27b-it"
REPOS = {"one": ("acme/one", 1), "eight": ("acme/eight", 8)}
CUT = {"match": "safetensors", "kind": "cut", "host": "cdn", "times": 6}
CASES: dict[str, tuple[str, list[str]]] = {
    "one": ("one", []),
    "eight": ("eight", []),
    "one, 20 ms": ("one", ["--latency", "0.02"]),
    "eight, 20 ms": ("eight", ["--latency", "0.02"]),
    "one, cut": ("one", ["--fault"]),
    "eight, cut": ("eight", ["--fault"]),
    "one, xet": ("one", ["--xet"]),
}
"""Name -> repository, arguments of the server."""
HF = "import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1], max_workers=4)"


def make_file(path: Path, size: int) -> str:
    """A valid safetensors file, a hole behind its header; its SHA-256."""
    header = json.dumps({path.stem: {"dtype": "U8", "shape": [size - 128], "data_offsets": [0, size - 128]}}).encode()
    start = len(header.ljust(120)).to_bytes(8, "little") + header.ljust(120)
    path.write_bytes(start)
    os.truncate(path, size)
    digest, zeros = hashlib.sha256(start), bytes(1 << 24)
    for left in range(size - len(start), 0, -len(zeros)):
        digest.update(zeros[:left])
    return digest.hexdigest()


def names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]


def make_repositories(root: Path, size: int) -> Path:
    """The repositories; where their digests stand."""
    digests = root / "digests.json"
    if not digests.exists():
        shutil.rmtree(root, ignore_errors=True)
        known = {}
        for repo, count in REPOS.values():
            (root / repo).mkdir(parents=True)
            (root / repo / "config.json").write_text("{}")
            known[repo] = {name: make_file(root / repo / name, size // count) for name in names(count)}
            if count > 1:
                index = {f"weight{number}": name for number, name in enumerate(names(count))}
                (root / repo / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        write_checkpoint(root / HUGE, full_size("27b"), shard_bytes=4_950_000_000, sparse=True)
        known[HUGE] = {path.name: f"{at:064x}" for at, path in enumerate(sorted((root / HUGE).glob("*.safetensors")))}
        digests.write_text(json.dumps(known))
    return digests


@contextmanager
def serving(root: Path, digests: Path, log: Path, *more: str) -> Iterator[str]:
    """The fake Hub in a process of its own; its endpoint."""
    log.unlink(missing_ok=True)
    command = [sys.executable, TESTS / "fake_hub.py", "--root", root, "--digests", digests, "--log", log, *more]
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
    parser.add_argument("--only", default="", help="names of cases, with commas between them; headers are left out")
    arguments = parser.parse_args()
    work: Path = arguments.folder.absolute()
    size = int(arguments.gigabytes * 1e9)
    digests = make_repositories(work / "root", size)
    os.environ |= {"HF_HOME": str(work / "home"), "NO_PROXY": "127.0.0.1,localhost"}
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
    for case in filter(None, re.split(r",(?! )", arguments.only)) if arguments.only else CASES:
        throughput(work, digests, case, arguments.runs, size)
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    if not arguments.only:
        with serving(work / "root", digests, work / "log") as endpoint:
            os.environ["HF_ENDPOINT"] = endpoint
            headers(work)


def curl(work: Path, endpoint: str, repo: str, count: int) -> list[object]:
    """A command that downloads with curl, again and again until all is there."""
    files = [f"-o {work}/curled/{name} {endpoint}/{repo}/resolve/main/{name}" for name in names(count)]
    one = f"curl -sLf -C - -Z --parallel-immediate --parallel-max 4 {' '.join(files)}"
    sizes = f"du --apparent-size -cb {work}/curled/* | tail -1 | cut -f1"
    return ["sh", "-c", f"mkdir -p {work}/curled; until {one}; do [ $({sizes}) -ge $1 ] && break; done; exit 0", "sh"]


def throughput(work: Path, digests: Path, case: str, runs: int, size: int) -> None:
    """Compare the tools in one case."""
    which, server = CASES[case]
    repo, count = REPOS[which]
    os.environ["HF_HUB_DISABLE_XET"] = "0" if "--xet" in server else "1"
    pull = [sys.executable, "-m", "gemmaq", "pull", repo, "-q"]
    hub = [sys.executable, "-c", HF, repo]
    rows: dict[str, list[Timing]] = {}
    for number in range(runs + 1):  # the first round warms caches and is not counted
        for tool in ("curl", "gemmaq", "huggingface_hub"):
            shutil.rmtree(work / "curled", ignore_errors=True)
            shutil.rmtree(work / "home", ignore_errors=True)
            more = server
            if "--fault" in server:
                more = ["--fault", json.dumps(CUT | {"after_bytes": size // count // 3})]
            with serving(work / "root", digests, work / "log", *more) as endpoint:
                os.environ["HF_ENDPOINT"] = endpoint
                if tool == "curl":
                    taken = {"curl": timed([*curl(work, endpoint, repo, count), size // count * count])}
                else:
                    command: list[object] = [*(pull if tool == "gemmaq" else hub)]
                    taken = {tool: timed(command), f"{tool}, all there": timed(command)}
            for name, row in taken.items() if number else ():
                rows.setdefault(name, []).append(row)
    rate = statistics.median(size / row[0] for row in rows["curl"]) / 1e6
    print(f"\n{case}: curl {rate:.0f} MB/s, median; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    table(rows)
    for tool in ("gemmaq", "huggingface_hub"):
        pairs = list(zip(rows["curl"], rows[tool], rows[f"{tool}, all there"], strict=True))
        whole = [a[0] / b[0] for a, b, _ in pairs]
        moving = [a[0] / max(b[0] - c[0], 0.01) for a, b, c in pairs]
        for what, ratios in (("whole process", whole), ("while bytes move", moving)):
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{tool} against curl, {what}: {statistics.median(ratios):.2f} ({each})")
    sys.stdout.flush()


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
