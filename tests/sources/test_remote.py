"""Repositories as sources: read by their headers, converted, several models in one; cache, proxy and tokens found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants

import inprocess
from artifacts import give_image_tokens
from fake_hub import FakeHub, Fault
from gemmaq.models.gemma3 import towers
from gemmaq.models.gemma3.vision_config import VisionConfig
from home import Here, Settle
from repos import REPO, shards, tree
from synthetic import TINY, full_size, write_checkpoint

GGUF = "acme/gemma-3-tiny-GGUF"
MB = 10**6


def facts(here: Here, source: object) -> dict[str, Any]:
    """What inspect says, without where it lies and what only weights tell."""
    report = json.loads(here.run("inspect", source, "--tensors", "--json").stdout)
    assert report["schema"] == "gemmaq.inspect/1"
    for tensor in report["tensors"]:
        tensor.pop("grid", None)
    return {key: value for key, value in report.items() if key not in ("location", "tokenizer", "grid", "qat_name")}


def sizes(here: Here, source: object) -> list[dict[str, int]]:
    """What estimate-vram says in bytes."""
    report = json.loads(here.run("estimate-vram", source, "--context", "1024", "--json").stdout)
    return [estimate["bytes"] for estimate in report["estimates"]]


def test_headers_alone_say_what_the_folder_says(hub: FakeHub, here: Here, tiny: Path) -> None:
    hub.add(f"google/{tiny.name}", tiny)
    assert facts(here, f"google/{tiny.name}") == facts(here, tiny)
    assert sizes(here, f"google/{tiny.name}") == sizes(here, tiny)
    assert not here.home.exists(), "nothing is put into the cache"
    assert "headers only" in here.run("inspect", f"google/{tiny.name}").stdout


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory, sample_bf16: Path) -> Path:
    """A 27B model of holes, 54 GB in twelve shards, with Gemma's tokenizer."""
    folder = tmp_path_factory.mktemp("huge") / "gemma-3-27b-it"
    write_checkpoint(folder, full_size("27b"), shard_bytes=4_950_000_000, sparse=True, tokenizer=sample_bf16)
    assert len(list(folder.glob("*.safetensors"))) == 12
    assert sum(path.stat().st_size for path in folder.iterdir()) > 54 * 10**9
    return folder


def not_hashed(folder: Path) -> Mapping[str, str]:
    return {path.name: f"{at:064x}" for at, path in enumerate(sorted(folder.glob("*.safetensors")))}


@pytest.mark.parametrize("command", ["inspect", "estimate-vram"])
def test_traffic_of_headers(hub: FakeHub, here: Here, huge: Path, command: str) -> None:
    hub.add("google/gemma-3-27b-it", huge, digests=not_hashed(huge))
    report = json.loads(here.run(command, "google/gemma-3-27b-it", "--json").stdout)
    assert hub.bytes_sent < 10 * MB
    if command == "inspect":
        assert (report["files"], report["size"]) == (12, "27B") and report["tensor_bytes"] > 54 * 10**9
    else:
        assert report["estimates"][0]["bytes"]["weights"] > 54 * 10**9


def test_traffic_without_ranges(hub: FakeHub, here: Here, huge: Path) -> None:
    """A server that would send all 54 GB is hung up on."""
    hub.add("google/gemma-3-27b-it", huge, digests=not_hashed(huge))
    hub.faults.append(Fault("safetensors$", "no_range", times=None, host="cdn"))
    here.run("inspect", "google/gemma-3-27b-it")
    assert hub.bytes_sent < 500 * MB


def test_dry_run_of_a_huge_repository(hub: FakeHub, here: Here, huge: Path) -> None:
    """The tokenizer is wanted for sizes to the byte; of the weights, headers alone."""
    hub.add("google/gemma-3-27b-it", huge, digests=not_hashed(huge))
    report = json.loads(here.run("convert", "google/gemma-3-27b-it", "--quant", "q4_0", "--dry-run", "--json").stdout)
    assert 15 * 10**9 < report["artifacts"][0]["files"][0]["bytes"] < 17 * 10**9
    weights = sum(size for name, size in hub.sent.items() if name.endswith(".safetensors"))
    assert weights < 10 * MB and not list(here.home.rglob("*.safetensors"))


@pytest.mark.parametrize("to", ["gguf", "mlx", "safetensors"])
def test_dry_run_is_the_real_run(hub: FakeHub, here: Here, tiny: Path, tmp_path: Path, to: str) -> None:
    hub.add("google/gemma-3-1b-it", tiny)
    command = ("convert", "google/gemma-3-1b-it", "--quant", "q4_0", "--to", to, "--json", "-o", tmp_path / "out")
    (dry,) = json.loads(here.run(*command, "--dry-run").stdout)["artifacts"]
    assert not (tmp_path / "out").exists() and not list(here.home.rglob("*.safetensors"))
    (real,) = json.loads(here.run(*command).stdout)["artifacts"]
    for file in real["files"]:
        del file["sha256"]
    assert dry["files"] == real["files"] and len(real["files"]) > (to != "gguf")


def mmproj(path: Path, width: int) -> int:
    """A small projector by gguf-py; bytes of its tensors."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "gemma3")
    numbers = {"projection_dim": width, "image_size": 56, "patch_size": 14, "embedding_length": 64}
    for name, number in {**numbers, "feed_forward_length": 96, "block_count": 1, "attention.head_count": 2}.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    config = VisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14
    )
    arrays = {towers.to_gguf(name): shape for name, shape in towers.shapes(config, width)}
    for name, shape in arrays.items():
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return 4 * sum(int(np.prod(shape)) for shape in arrays.values())


@pytest.fixture(scope="module")
def quants(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A folder as people publish them: several types, one of them in shards, and projectors beside."""
    folder = tmp_path_factory.mktemp("quants") / "repo"
    source = Path(shutil.copytree(tiny, folder.parent / tiny.name))
    give_image_tokens(source)
    for kind, flags in (("q4_0", ()), ("q8_0", ()), ("bf16", ("--max-shard-size", "150k"))):
        out = folder.parent / kind
        inprocess.run("convert", source, "--quant", kind, *flags, "-q", "-o", out)
        place = folder / "BF16" if flags else folder
        place.mkdir(parents=True, exist_ok=True)
        for path in out.glob("*.gguf"):
            shutil.copy(path, place)
    mmproj(folder / "mmproj-F16.gguf", TINY.hidden_size)
    mmproj(folder / "mmproj-BF16.gguf", TINY.hidden_size)
    (folder / "README.md").write_text("---\nlicense: gemma\nbase_model: google/gemma-3-tiny\n---\n")
    assert len(list((folder / "BF16").glob("*-of-*.gguf"))) > 2
    return folder


PARTS = {
    "Q4_0": "gemma-3-tiny-Q4_0.gguf",
    "q8_0": "gemma-3-tiny-Q8_0.gguf",
    "gemma-3-tiny-Q8_0.gguf": "gemma-3-tiny-Q8_0.gguf",
    "bf16": "BF16/gemma-3-tiny-BF16-00001-of-*.gguf",
    "BF16/gemma-3-tiny-BF16-00002-of-*.gguf": "BF16/gemma-3-tiny-BF16-00001-of-*.gguf",
}


def named(folder: Path, name: str) -> str:
    """A name with its wildcard filled in."""
    return next(folder.glob(name)).relative_to(folder).as_posix() if "*" in name else name


@pytest.mark.parametrize("part", PARTS)
def test_one_model_of_several(hub: FakeHub, here: Here, quants: Path, tmp_path: Path, part: str) -> None:
    hub.add(GGUF, quants)
    source, local = f"{GGUF}:{named(quants, part)}", quants / named(quants, PARTS[part])
    if local.parent != quants:  # a projector beside, where the repository's is a folder above
        shutil.copytree(local.parent, tmp_path / "model")
        for projector in quants.glob("mmproj*"):
            shutil.copy(projector, tmp_path / "model")
        local = tmp_path / "model" / local.name
    of_repo, of_file = facts(here, source), facts(here, local)
    assert of_repo["vision_bytes"] == mmproj(tmp_path / "mmproj.gguf", TINY.hidden_size)
    assert {**of_repo, "name": ""} == {**of_file, "name": ""} and of_repo["name"] == "gemma-3-tiny"
    assert sizes(here, source) == sizes(here, local)
    hub.reset()
    snapshot = Path(here.run("pull", source, "-q").stdout.strip())
    kind = local.stem.partition("tiny-")[2][:4]
    models = {name for name in tree(snapshot) if name.endswith(".gguf")} - {"mmproj-F16.gguf"}
    assert models and all(kind in name for name in models), "one type and no more"
    assert "mmproj-F16.gguf" in tree(snapshot) and "mmproj-BF16.gguf" not in tree(snapshot)
    assert all((quants / name).read_bytes() == data for name, data in tree(snapshot).items())
    command = ("convert", "--to", "mlx", "--quant", "auto", "--mmproj", "none", "-q", "-o")
    here.run(*command, tmp_path / "of-repo", source)
    here.run(*command, tmp_path / "of-file", local)
    converted = tree(tmp_path / "of-repo")
    assert converted["model.safetensors"] == tree(tmp_path / "of-file")["model.safetensors"]


def test_dry_run_of_a_gguf_repository(
    hub: FakeHub, here: Here, quants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is called what its file is called, whatever the repository's name."""
    monkeypatch.chdir(tmp_path)
    hub.add("acme/all-kinds-GGUF", quants)
    command = ("convert", "acme/all-kinds-GGUF:q8_0", "--quant", "q4_0", "--mmproj", "none", "--json")
    (dry,) = json.loads(here.run(*command, "--dry-run").stdout)["artifacts"]
    (real,) = json.loads(here.run(*command).stdout)["artifacts"]
    assert dry["path"] == real["path"] == "gemma-3-tiny-Q4_0-gguf"
    assert [(f["path"], f["bytes"]) for f in dry["files"]] == [(f["path"], f["bytes"]) for f in real["files"]]


def test_the_only_model_needs_no_name(hub: FakeHub, here: Here, quants: Path) -> None:
    hub.add(GGUF, {name: quants / name for name in ("gemma-3-tiny-Q4_0.gguf", "mmproj-F16.gguf")})
    assert facts(here, GGUF) == facts(here, f"{GGUF}:Q4_0")


def test_safetensors_before_gguf(hub: FakeHub, here: Here, quants: Path, tiny: Path) -> None:
    both = {path.name: path for path in tiny.iterdir()} | {"gemma-3-tiny-Q4_0.gguf": quants / "gemma-3-tiny-Q4_0.gguf"}
    hub.add(REPO, both)
    assert facts(here, REPO)["format"] == "safetensors" and facts(here, f"{REPO}:Q4_0")["format"] == "gguf"


def test_traffic_of_gguf(hub: FakeHub, here: Here, sample_q4_0: Path, tmp_path: Path) -> None:
    """The tokenizer is in the header of a GGUF file: that much, once, is read whatever the number of shards."""
    here.run("convert", sample_q4_0, "--quant", "auto", "--max-shard-size", "50M", "-q", "-o", tmp_path / "split")
    split = {f"split/{path.name}": path for path in (tmp_path / "split").glob("*.gguf")}
    mmproj(tmp_path / "mmproj-F16.gguf", 640)
    hub.add(GGUF, {sample_q4_0.name: sample_q4_0, "mmproj-F16.gguf": tmp_path / "mmproj-F16.gguf", **split})
    assert len(split) > 2
    whole = f"{GGUF}:{sample_q4_0.name}"
    for source in (whole, f"{GGUF}:{min(split)}"):
        hub.reset()
        report = facts(here, source)
        assert report["files"] == 1 + (1 if source == whole else len(split)) and report["vision_bytes"] > 0
        assert hub.bytes_sent < 10 * MB
        hub.reset()
        assert sizes(here, source)[0]["weights"] > 200 * MB
        assert hub.bytes_sent < 10 * MB


def test_a_path_wins(hub: FakeHub, here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny, tmp_path / REPO)
    here.run("inspect", REPO)
    here.run("estimate-vram", REPO, "--context", "1024")
    here.run("convert", REPO, "--quant", "q8_0", "-q", "-o", tmp_path / "out")
    assert not hub.requests
    here.run("inspect", "google/gemma-3-nano", code=5)
    assert hub.requests


def test_offline(hub: FakeHub, here: Here, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = hub.add(REPO, tiny)
    here.run("pull", REPO, "-q")
    online = facts(here, REPO)
    hub.reset()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for source in (REPO, f"{REPO}@main", f"{REPO}@{sha}"):
        assert facts(here, source) == online
    assert sizes(here, REPO) == sizes(here, tiny)
    here.run("convert", REPO, "--quant", "q8_0", "-q", "-o", tmp_path / "out")
    here.run("inspect", f"{REPO}@v1", code=6)
    assert not hub.requests


def test_revisions(hub: FakeHub, here: Here, tiny: Path) -> None:
    first = hub.add(REPO, shards(1, 1000))
    second = hub.add(REPO, tiny, revision="next/one")
    hub.tag(REPO, "v2", "next/one")
    for source in (f"{REPO}@next/one", f"{REPO}@v2", f"{REPO}@{second}"):
        assert facts(here, source)["files"] == len(list(tiny.glob("*.safetensors")))
    here.run("pull", f"{REPO}@v2", "-q")
    pinned = here.run("pull", REPO).stderr
    assert first in pinned and second not in pinned
    assert {path.name for path in here.root(REPO).glob("snapshots/*")} == {first, second}
    assert (here.root(REPO) / "refs/v2").read_text() == second
    assert (here.root(REPO) / "refs/main").read_text() == first


def test_ways_of_the_real_hub(hub: FakeHub, here: Here, tiny: Path) -> None:
    """A repository under its old name, compressed text, small files behind a redirect."""
    hub.add(REPO, tiny)
    hub.moved["google/gemma-old"] = REPO
    hub.gzip = hub.resolve_cache = True
    assert tree(here.run("pull", "google/gemma-old", "-q").stdout.strip()) == tree(tiny)
    assert facts(here, "google/gemma-old")["tensor_bytes"] == facts(here, tiny)["tensor_bytes"]


def gemmaq(*arguments: object, env: Mapping[str, str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gemmaq", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=dict(env), cwd=cwd, timeout=60)


@pytest.mark.slow
def test_environment(hub: FakeHub, tmp_path: Path) -> None:
    """HF_HOME and HF_HUB_CACHE say where, HF_TOKEN and the file of `hf auth login` who, HF_HUB_OFFLINE whether."""
    files = shards(2, 1000)
    hub.add(REPO, files, gated=True)
    env = hub.env(tmp_path / "home") | {"HF_HUB_CACHE": str(tmp_path / "elsewhere")}
    assert gemmaq("pull", REPO, env=env).returncode == 4
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home/token").write_text("hf_read\n")
    done = gemmaq("pull", REPO, "-q", env=env)
    assert tree(done.stdout.strip()) == files and done.stdout.startswith(str(tmp_path / "elsewhere"))
    assert not (tmp_path / "home/hub").exists()
    hub.reset()
    for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        again = gemmaq("pull", REPO, "-q", env=env | {key: "1"})
        assert (again.returncode, again.stdout) == (0, done.stdout)
    assert not hub.requests
    other = gemmaq("pull", REPO, "-q", env=hub.env(Path("relative"), "hf_read"), cwd=tmp_path)
    assert other.returncode == 0 and tree(tmp_path / other.stdout.strip()) == files
    third = env | {"HF_HUB_CACHE": str(tmp_path / "third"), "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    assert gemmaq("pull", REPO, env=third).returncode == 4


class Proxy(ThreadingHTTPServer):
    """An HTTP proxy that counts; with a password where `wanted` is set."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.password = ""
        super().__init__(("127.0.0.1", 0), Relay)


class Relay(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        if self.server.password not in self.headers.get("Proxy-Authorization", ""):
            self.send_error(407)
            return
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Straight)
        with opener.open(urllib.request.Request(self.path, headers=dict(self.headers))) as reply:
            body = reply.read()
            self.send_response(reply.status)
            for key, value in reply.headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Straight(urllib.request.HTTPErrorProcessor):
    """Redirects and errors are the client's to read."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    server = Proxy()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_proxy(
    hub: FakeHub, here: Here, settle: Settle, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = shards(2, 10_000)
    hub.add(REPO, files)

    def through(address: str) -> None:
        settle(hub, None, tmp_path / "other")
        for key, value in (("http_proxy", f"http://{address}"), ("NO_PROXY", ""), ("no_proxy", "")):
            monkeypatch.setenv(key, value)
        huggingface_hub.close_session()  # what it knows of proxies it knows from its beginning

    address = f"127.0.0.1:{proxy.server_port}"
    through(address)
    assert tree(here.run("pull", REPO, "-q").stdout.strip()) == files
    assert any(path.startswith(hub.cdn) for path in proxy.paths)
    assert len(proxy.paths) == len(hub.requests)
    proxy.password = "Basic"
    through(f"me:PaSsWoRd@{address}")
    here.run("inspect", REPO, code=3)  # it is no model
    proxy.password = "nobody has this"
    refused = here.run("inspect", REPO, code=6).stderr
    through("me:PaSsWoRd@127.0.0.1:9")
    gone = here.run("inspect", REPO, code=6).stderr
    huggingface_hub.close_session()
    assert "407" in refused and "proxy" in gone and "PaSsWoRd" not in refused + gone


def test_settle_is_undone(settle: Settle, hub: FakeHub) -> None:
    """These tests point this process at a Hub of their own; a second one after it is the one asked."""
    with FakeHub(hub.root / "second") as second:
        second.add(REPO, shards(1, 1000))
        settle(hub).run("pull", REPO, "-q", code=5)
        settle(second).run("pull", REPO, "-q")
