"""A Hugging Face Hub of our own on this machine: repositories, tokens, a CDN on another host, and faults on demand.

    with FakeHub(tmp_path) as hub:
        sha = hub.add("google/gemma-3-4b-it", folder, gated=True)
        hub.faults.append(Fault(r"model-00001", "cut", host="cdn", after_bytes=1_000_000))
        subprocess.run(command, env=hub.env(tmp_path / "home", token="hf_read"))
        assert hub.sent["google/gemma-3-4b-it/config.json"] == 1234

What it answers is what huggingface.co answers to huggingface_hub 2.4.0 over plain HTTP, without Xet or with it
(`hub_xet`).
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from hub_faults import Fault, Faults
from hub_http import Record, Reply, Request, Server
from hub_routes import ROUTES as READING
from hub_routes import route
from hub_store import Commit, Files, Repo, blobs, make_commit
from hub_uploads import ROUTES as WRITING
from hub_xet import ROUTES as XET

__all__ = ["FakeHub", "Fault"]

TOKENS: dict[str, dict[str, Any]] = {
    "hf_write": {"name": "tester", "orgs": ["acme"], "role": "write", "gated": True},
    "hf_read": {"name": "reader", "role": "read", "gated": True},
    "hf_outsider": {"name": "outsider", "role": "write", "gated": []},
}
"""Who has which token; `gated` are the gated repositories open to them, True for all."""


class FakeHub:
    """The server; it answers between `with` and its end.

    Attributes:
        repos: by id.
        tokens: as `TOKENS`; every other token is refused with 401.
        faults: rules of `hub_faults.Fault`.
        moved: old id -> new id, answered with 307.
        unknown: requests that no route knew.
        lfs_from: size in bytes from which an uploaded file goes to LFS, whatever its name.
        part_size: where it is set, larger LFS files are uploaded in parts of that many bytes.
        gzip: whether small text is sent compressed and without its length to who accepts that, as the Hub does.
        xet: whether large files are in Xet, and processes are not told to do without it.
        latency: seconds before each answer.
        resolve_cache: whether small files are answered by a redirect on the same host first, as the Hub does.
    """

    def __init__(self, root: Path, port: int = 0, cdn_port: int = 0, seed: int = 0) -> None:
        self.root = root
        self.repos: dict[str, Repo] = {}
        self.tokens = copy.deepcopy(TOKENS)
        self.faults = Faults(seed)
        self.moved: dict[str, str] = {}
        self.unknown: list[str] = []
        self.lfs_from = 1_000_000
        self.part_size: int | None = None
        self.gzip = self.resolve_cache = self.xet = False
        self.latency = 0.0
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.numbers = itertools.count(1)
        self.log: Path | None = None
        self._records: list[Record] = []
        self._running: set[int] = set()
        self._settled = threading.Condition()
        root.mkdir(parents=True, exist_ok=True)
        self._servers = [Server(self, "hub", port), Server(self, "cdn", cdn_port)]
        self.endpoint = f"http://127.0.0.1:{self._servers[0].server_port}"
        self.cdn = f"http://localhost:{self._servers[1].server_port}"

    def __enter__(self) -> FakeHub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.close_connections()
            server.server_close()

    def env(self, home: Path, token: str | None = None) -> dict[str, str]:
        """The environment of a process that shall use this Hub, with `home` as its home of Hugging Face."""
        ours = ("HF_", "HUGGING_FACE", "HUGGINGFACE", "TRANSFORMERS_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        switches = ("TELEMETRY", "UPDATE_CHECK", *(() if self.xet else ("XET",)))
        return {
            **kept,
            **{f"HF_HUB_DISABLE_{switch}": "1" for switch in switches},
            **({"HF_TOKEN": token} if token else {}),
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def add(
        self,
        repo_id: str,
        files: Files,
        *,
        revision: str = "main",
        gated: bool | str = False,
        private: bool = False,
        lfs_from: int = 1_000_000,
        digests: Mapping[str, str] | None = None,
    ) -> str:
        """Make these files the head of a branch, the repository too where it is not there yet.

        `files` is a folder, or names with bytes, text or paths; nothing is copied, and `digests` (SHA-256 by name)
        spares reading what is huge. `gated="all"` hides the listing as well. Returns the commit's SHA, which is the
        same for the same files.
        """
        held = blobs(files, lfs_from, digests or {})
        with self.lock:
            repo = self.repos.setdefault(repo_id, Repo(repo_id))
            repo.gated = gated if isinstance(gated, str) else "files" if gated else repo.gated
            repo.private = private or repo.private
            return repo.put(make_commit(held, "Add files"), revision).sha

    def tag(self, repo_id: str, name: str, revision: str = "main") -> None:
        """Name a commit for good."""
        self.repos[repo_id].tags[name] = self.commit(repo_id, revision).sha

    def commit(self, repo_id: str, revision: str = "main") -> Commit:
        """What a revision holds."""
        found = self.repos[repo_id].find(revision)
        assert found is not None, f"{repo_id} has no {revision}"
        return found

    def read(self, repo_id: str, name: str, revision: str = "main") -> bytes:
        """The bytes of a file."""
        return self.commit(repo_id, revision).files[name].read()

    @property
    def requests(self) -> list[Record]:
        """All requests since the last `reset`, in the order of their arrival."""
        with self._settled:
            self._settled.wait_for(lambda: not self._running, timeout=0.5)
            return list(self._records)

    @property
    def sent(self) -> Counter[str]:
        """Bytes of bodies sent, by `repo/file`."""
        counts: Counter[str] = Counter()
        for record in self.requests:
            if record.file:
                counts[record.file] += record.sent
        return counts

    @property
    def bytes_sent(self) -> int:
        """Bytes of all bodies sent, listings and errors too."""
        return sum(record.sent for record in self.requests)

    @property
    def bytes_received(self) -> int:
        """Bytes of all bodies received."""
        return sum(record.received for record in self.requests)

    def reset(self) -> None:
        """Forget requests and faults; repositories stay."""
        self.faults.clear()
        self.unknown.clear()
        with self._settled:
            self._records.clear()

    def started(self, record: Record) -> None:
        with self._settled:
            self._records.append(record)
            self._running.add(id(record))

    def finished(self, record: Record) -> None:
        with self._settled:
            if id(record) not in self._running:
                return
            record.finished = time.monotonic()
            self._running.discard(id(record))
            if self.log:
                with open(self.log, "a") as file:
                    file.write(json.dumps(asdict(record)) + "\n")
            self._settled.notify_all()

    def route(self, request: Request) -> Reply:
        """The answer to a request."""
        moved = next((old for old in self.moved if f"/{old}/" in f"{request.path}/"), None)
        if moved and request.host == "hub":
            return Reply(307, {"Location": request.target.replace(moved, self.moved[moved], 1)})
        return route(request, [*READING, *WRITING, *XET])


def main() -> None:
    """Serve folders until the process is ended; the first line printed is the endpoint."""
    parser = argparse.ArgumentParser(description="A Hugging Face Hub on this machine.")
    parser.add_argument("--root", type=Path, required=True, help="folders OWNER/NAME in here are its repositories")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cdn-port", type=int, default=0)
    parser.add_argument("--gated", action="append", default=[], metavar="REPO", help="who reads needs a token")
    parser.add_argument("--digests", type=Path, help='JSON {"OWNER/NAME": {FILE: SHA-256}}, not to read huge files')
    parser.add_argument("--fault", action="append", default=[], help='JSON of a Fault: {"match": ..., "kind": ...}')
    parser.add_argument("--latency", type=float, default=0, metavar="SECONDS", help="before each answer")
    parser.add_argument("--xet", action="store_true", help="large files are in Xet")
    parser.add_argument("--log", type=Path, help="file that gets a line of JSON for every request answered")
    given = parser.parse_args()
    digests = json.loads(given.digests.read_text()) if given.digests else {}
    with FakeHub(given.root / ".hub", given.port, given.cdn_port) as hub:
        for folder in sorted(path for path in given.root.glob("[!.]*/[!.]*") if path.is_dir()):
            repo_id = folder.relative_to(given.root).as_posix()
            hub.add(repo_id, folder, gated=repo_id in given.gated, digests=digests.get(repo_id))
        hub.faults.extend(Fault(**json.loads(text)) for text in given.fault)
        hub.log, hub.latency, hub.xet = given.log, given.latency, given.xet
        print(hub.endpoint, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
