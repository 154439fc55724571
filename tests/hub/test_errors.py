"""Every error of the Hub: its exit code, its message, and what to do next; and no token in any of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from fake_hub import FakeHub, Fault
from gemmaq.cli.app import main
from gemmaq.hub import retry
from gemmaq.sources import select
from home import Here, Settle
from repos import REPO, shards

COMMANDS = (("pull",), ("convert",), ("convert", "--dry-run"), ("inspect",), ("estimate-vram",))
GGUF = "acme/gemma-3-tiny-GGUF"


@pytest.fixture(params=COMMANDS, ids=" ".join)
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[object]:
    """Each command that takes a repository."""
    name, *flags = request.param
    return [name, *flags, *(["-o", tmp_path / "out"] if name == "convert" else [])]


def fails(here: Here, command: list[object], source: str, code: int, *words: str) -> str:
    """Run it; the error it ended with says all this, and nothing was made."""
    failed = here.run(*command, source, code=code)
    message = failed.stderr[failed.stderr.lower().rindex("error:") :]
    missing = [word for word in words if word not in message]
    assert not missing, f"{missing} is not in {message!r}"
    assert not any(path.exists() for path in command if isinstance(path, Path))
    return message


@pytest.mark.parametrize("gated", [True, "all"])
def test_gated_and_anonymous(hub: FakeHub, here: Here, command: list[object], gated: bool | str) -> None:
    hub.add(REPO, shards(2, 1000), gated=gated)
    page = f"{hub.endpoint}/{REPO}"
    fails(here, command, REPO, 4, f"{REPO} is gated", f"accept its terms at {page}", "hf auth login", "HF_TOKEN")


@pytest.mark.parametrize("gated", [True, "all"])
def test_gated_and_no_access(hub: FakeHub, settle: Settle, command: list[object], gated: bool | str) -> None:
    hub.add(REPO, shards(2, 1000), gated=gated)
    here = settle(hub, "hf_outsider")
    message = fails(here, command, REPO, 4, "your account has no access", f"accept its terms at {hub.endpoint}/{REPO}")
    assert "login" not in message


def test_refused_token(hub: FakeHub, settle: Settle, command: list[object]) -> None:
    hub.add(REPO, shards(2, 1000), gated=True)
    fails(settle(hub, "hf_nobody"), command, REPO, 4, "refuses the token (401)", "HF_TOKEN")


def test_missing_repository(hub: FakeHub, settle: Settle, command: list[object]) -> None:
    hub.add("acme/private", shards(2, 1000), private=True)
    for repo in ("acme/none", "acme/private"):
        fails(settle(hub), command, repo, 5, f"{repo} does not exist", "or is private", "set HF_TOKEN")
        fails(settle(hub, "hf_read"), command, repo, 5, f"{repo} does not exist", "your token has no access")


def test_missing_revision(hub: FakeHub, here: Here, command: list[object]) -> None:
    hub.add(REPO, shards(2, 1000))
    for revision in ("v9", "refs/pr/7", "0123456789abcdef0123456789abcdef01234567"):
        fails(here, command, f"{REPO}@{revision}", 5, f"no revision {revision}", f"{hub.endpoint}/{REPO}")


def test_missing_shard(hub: FakeHub, here: Here, command: list[object]) -> None:
    files = shards(2, 1000)
    del files["model-00002-of-00002.safetensors"]
    hub.add(REPO, files)
    fails(here, command, REPO, 5, "no file model-00002-of-00002.safetensors", "its index names")


def test_neither_safetensors_nor_gguf(hub: FakeHub, here: Here, command: list[object]) -> None:
    hub.add(REPO, {"config.json": "{}", "tf_model.h5": b"\0" * 1000})
    fails(here, command, REPO, 5, "neither safetensors nor GGUF")


def ggufs() -> dict[str, bytes]:
    names = ("tiny-Q4_0.gguf", "tiny-Q8_0.gguf", "BF16/tiny-BF16-00001-of-00002.gguf", "mmproj-tiny-F16.gguf")
    empty = b"GGUF\3\0\0\0" + bytes(16)
    return {name: empty for name in (*names, "BF16/tiny-BF16-00002-of-00002.gguf")}


@pytest.mark.parametrize("part", ["Q6_K", "tiny-Q6_K.gguf", "mmproj-tiny-F16.gguf"])
def test_missing_type(hub: FakeHub, here: Here, command: list[object], part: str) -> None:
    hub.add(GGUF, ggufs())
    choices = (f"{GGUF}:Q4_0", f"{GGUF}:Q8_0", f"{GGUF}:BF16")
    fails(here, command, f"{GGUF}:{part}", 5, f"no GGUF model {part}", *choices)


def test_several_types_and_none_named(hub: FakeHub, here: Here, command: list[object]) -> None:
    hub.add(GGUF, ggufs())
    fails(here, command, GGUF, 3, "holds 3 GGUF models", "name one", f"{GGUF}:Q4_0", f"{GGUF}:Q8_0")


def test_nothing_matches(hub: FakeHub, here: Here) -> None:
    hub.add(REPO, shards(2, 1000))
    fails(here, ["pull", "--include", "*.gguf"], REPO, 5, "no file that matches")
    fails(here, ["pull", "--exclude", "*"], REPO, 5, "no file that matches")
    here.run("pull", REPO, "-q")
    fails(here, ["pull", "--offline", "--include", "*.gguf"], REPO, 6, "not completely cached", f"gemmaq pull {REPO}")


@pytest.mark.parametrize(
    "name", ["a/b/c", "org", "../x/y", "org/na--me", "org/..", "org/name@../../x", "org/name@/etc"]
)
def test_names_of_no_repository(here: Here, name: str) -> None:
    fails(here, ["pull"], name, 2, "is not a valid repository name", "org/name")
    fails(here, ["inspect"], name, 5, f"{name} does not exist")


def test_offline_and_not_cached(
    hub: FakeHub, here: Here, command: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, shards(2, 1000))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fails(here, command, REPO, 6, f"{REPO} is not cached", f"gemmaq pull {REPO}")
    assert not hub.requests and not here.home.exists()


LOST = {
    "a shard": ["model-00002-of-00003.safetensors"],
    "index and shard": ["model.safetensors.index.json", "model-00003-of-00003.safetensors"],
    "config": ["config.json"],
    "all weights": [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)],
    "blob of a shard": [],
}


@pytest.mark.parametrize("lost", LOST)
def test_offline_and_half_cached(
    hub: FakeHub, here: Here, command: list[object], monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    hub.add(REPO, shards(3, 1000))
    snapshot = Path(here.run("pull", REPO, "-q").stdout.strip())
    for name in LOST[lost]:
        (snapshot / name).unlink()
    if not LOST[lost]:
        (snapshot / "model-00001-of-00003.safetensors").resolve().unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fails(here, command, REPO, 6, f"{REPO} is not completely cached", f"gemmaq pull {REPO}")


def test_offline_and_half_of_a_split_gguf(hub: FakeHub, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(GGUF, ggufs())
    here.run("pull", GGUF, "-q", "--include", "*00001-of*")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("pull", "inspect"):
        fails(here, [name], f"{GGUF}:BF16", 6, "is not completely cached", "gemmaq pull")
        fails(here, [name], f"{GGUF}:Q4_0", 6, "is not completely cached", "gemmaq pull")


def point(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_name_not_found(here: Here, command: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    point(monkeypatch, "http://hub.example")
    fails(here, command, REPO, 6, "cannot reach hub.example: unknown host name", "check the network")


def test_connection_refused(here: Here, command: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unused.getsockname()[1]}"
    point(monkeypatch, f"http://{place}")
    fails(here, command, REPO, 6, f"cannot reach {place}", "onnection refused", "check the network")


@pytest.mark.parametrize(("status", "word"), [(429, "asks to slow down (429)"), (500, "answers 500"), (503, "503")])
@pytest.mark.parametrize("match", ["api/models", "resolve/.*config", "00001-of"])
def test_errors_for_ever(hub: FakeHub, here: Here, command: list[object], status: int, word: str, match: str) -> None:
    hub.add(REPO, shards(2, 1000))
    hub.faults.append(Fault(match, "status", status=status, times=None))
    begun = time.monotonic()
    fails(here, command, REPO, 6, word, "try again later")
    assert time.monotonic() - begun < 10 and hub.faults[0].hits == retry.ATTEMPTS


UNSAFE = ["../x", "a/../../b", "/etc/x", "a\\b", "a\0b", "..", "a/..", "a//b", "C:x", "./x", "a\nb", "x" * 600]


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names(hub: FakeHub, here: Here, tmp_path: Path, name: str) -> None:
    hub.add(REPO, {**shards(1, 1000), name: b"unsafe"})
    before = sorted(tmp_path.rglob("*"))
    for command in ("pull", "pull --include *", "inspect", "convert"):
        fails(here, [*command.split()], REPO, 3, "unsafe name", "do not trust this repository")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("what", ["sha256", "blobId", "sha"])
def test_unsafe_digests(hub: FakeHub, here: Here, monkeypatch: pytest.MonkeyPatch, what: str, tmp_path: Path) -> None:
    """Digests become names of files too."""
    hub.add(REPO, shards(1, 1000))
    true = huggingface_hub.HfApi.model_info

    def lying(*arguments: object, **options: object) -> object:
        info = true(*arguments, **options)  # type: ignore[arg-type]
        for file in info.siblings or ():
            if what == "sha256" and file.lfs:
                file.lfs.sha256 = "../../../../outside"
            if what == "blobId" and not file.lfs:
                file.blob_id = "../../../../outside"
        info.sha = "../../../outside" if what == "sha" else info.sha
        return info

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lying)
    fails(here, ["pull"], REPO, 6, "is not a Hub's answer", "HF_ENDPOINT")
    assert not list(tmp_path.rglob("*outside*"))


def test_no_space(hub: FakeHub, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, shards(2, 1_000_000))
    free = 1_900_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - free, free))
    fails(here, ["pull"], REPO, 7, "1,900,000 bytes free", "2,000,", "HF_HOME")
    assert not hub.sent.get(f"{REPO}/model-00001-of-00002.safetensors")
    free = 2_100_000
    here.run("pull", REPO, "-q")


@pytest.mark.parametrize("place", ["home", "home/hub", "home/hub/models--google--gemma-3-tiny", "home/hub/.locks"])
def test_unwritable_cache(hub: FakeHub, here: Here, tmp_path: Path, place: str) -> None:
    """A file where a folder should be, which stops root as well."""
    hub.add(REPO, shards(2, 1000))
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("in the way")
    fails(here, ["pull"], REPO, 7, "cannot be", "HF_HOME")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_cache_without_permission(hub: FakeHub, here: Here) -> None:
    hub.add(REPO, shards(2, 1000))
    here.home.mkdir(mode=0o555)
    fails(here, ["pull"], REPO, 7, "cannot be written", "HF_HOME")


Portal = Callable[[int, bytes, str], str]


@pytest.fixture
def portal() -> Iterator[Portal]:
    """A server that answers everything in the same way; where it is."""
    servers = []

    def serve(status: int, body: bytes, kind: str) -> str:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if status == 302:
                    self.send_header("Location", f"http://{self.headers['Host']}/login")
                self.end_headers()
                self.wfile.write(body)

            do_HEAD = do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, b"<html>Welcome to our hotel</html>", "text/html", "is not a Hub's answer"),
        (200, b"", "text/html", "is not a Hub's answer"),
        (200, b"{}", "application/json", "is not a Hub's answer"),
        (200, b"[1]", "application/json", "is not a Hub's answer"),
        (200, b'{"id": 1, "siblings": [{}]}', "application/json", "is not a Hub's answer"),
        (302, b"", "text/html", "redirects in circles"),
        (404, b"<html>nothing here</html>", "text/html", "not found on"),
        (511, b"<html>log in first</html>", "text/html", "answers 511"),
    ],
)
def test_captive_portal(
    here: Here, command: list[object], monkeypatch: pytest.MonkeyPatch, portal: Portal, status: int, body: bytes,
    kind: str, words: str,
) -> None:  # fmt: skip
    point(monkeypatch, portal(status, body, kind))
    fails(here, command, REPO, 6, words)


def test_portal_in_the_middle(hub: FakeHub, here: Here, portal: Portal) -> None:
    """A page instead of the bytes of a file."""
    hub.add(REPO, shards(1, 100_000))
    hub.cdn = portal(200, b"<html>Welcome to our hotel</html>", "text/html")
    message = fails(here, ["pull"], REPO, 8, "model-00001-of-00001.safetensors", "has 33 bytes")
    assert here.partials() == [] and "100,000" in message


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "ftp://hub.example", "http://[::1", "http://x:y"])
def test_endpoint_nonsense(here: Here, command: list[object], monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    point(monkeypatch, endpoint)
    fails(here, command, REPO, 6, endpoint, "HF_ENDPOINT")


def test_secrets_in_addresses_are_not_told(here: Here, command: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unused.getsockname()[1]}"
    point(monkeypatch, f"http://user:secret@{place}")
    assert "secret" not in fails(here, command, REPO, 6, place)


def test_token_is_never_told(hub: FakeHub, tmp_path: Path) -> None:
    """Neither in errors nor with every switch for more words on."""
    hub.add(REPO, shards(2, 1000), gated=True)
    hub.tokens["hf_SeCrEt"] = {"name": "reader", "role": "read", "gated": []}
    env = hub.env(tmp_path / "home", "hf_SeCrEt") | {"GEMMAQ_DEBUG": "1", "HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    for arguments in (["pull", REPO], ["inspect", "acme/none"]):
        command = [sys.executable, "-m", "gemmaq", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode in (4, 5) and "SeCrEt" not in done.stdout + done.stderr
    assert {record.token for record in hub.requests} == {"hf_SeCrEt"}


def test_token_is_not_in_a_traceback(hub: FakeHub, settle: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, shards(2, 1000))
    settle(hub, "hf_read")

    def bug(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(select, "small", bug)
    monkeypatch.setenv("GEMMAQ_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["gemmaq", "pull", REPO])
    with pytest.raises(RuntimeError) as caught:
        main()
    assert "hf_read" not in "".join(traceback.format_exception(caught.value))
