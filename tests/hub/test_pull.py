"""Pulled, converted, pushed and pulled again; the cache shared with the real client; what a pull may be told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from home import Here, Settle
from repos import REPO, shards, tree

from damage import contained
from fake_hub import FakeHub


def test_pull_convert_push_pull(hub: FakeHub, settle: Settle, tiny: Path, tmp_path: Path) -> None:
    sha = hub.add("google/gemma-3-4b-it", tiny, gated=True)
    here = settle(hub, "hf_write")
    snapshot = Path(here.run("pull", "google/gemma-3-4b-it", "-q").stdout.strip())
    assert snapshot == here.root("google/gemma-3-4b-it") / "snapshots" / sha
    assert tree(snapshot) == tree(tiny) and len(list(snapshot.glob("*.safetensors"))) > 2
    made = tmp_path / "gemma-3-4b-it-GGUF"
    hub.reset()
    here.run("convert", "google/gemma-3-4b-it", "--quant", "q4_0", "-o", made)
    assert not [record for record in hub.requests if record.host == "cdn"]
    of_folder = tmp_path / "of-folder"
    here.run("convert", tiny, "--quant", "q4_0", "-o", of_folder)
    (gguf,) = made.glob("*.gguf")
    assert gguf.name == "gemma-3-4b-it-Q4_0.gguf"
    page = here.run("push", made, "acme/gemma-3-4b-it-GGUF", "-q").stdout.strip()
    assert page.endswith(hub.commit("acme/gemma-3-4b-it-GGUF").sha)
    assert hub.read("acme/gemma-3-4b-it-GGUF", gguf.name) == gguf.read_bytes()
    again = settle(hub, "hf_write", tmp_path / "other-home")
    out = tmp_path / "pulled"
    again.run("pull", "acme/gemma-3-4b-it-GGUF", "--include", "*", "-o", out)
    assert contained(out) == contained(made) != {}
    subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=out, check=True)
    back = tmp_path / "back"
    again.run("convert", "acme/gemma-3-4b-it-GGUF:q4_0", "--to", "safetensors", "--quant", "bf16", "-o", back)
    here.run("convert", gguf, "--to", "safetensors", "--quant", "bf16", "-o", tmp_path / "direct")
    assert (back / "model.safetensors").read_bytes() == (tmp_path / "direct/model.safetensors").read_bytes()


def test_round_trip_of_the_sample_size(hub: FakeHub, settle: Settle, sample_q4_0: Path, tmp_path: Path) -> None:
    hub.add("acme/gemma-3-270m-GGUF", {sample_q4_0.name: sample_q4_0})
    here = settle(hub, "hf_write")
    snapshot = Path(here.run("pull", "acme/gemma-3-270m-GGUF:Q4_0", "-q").stdout.strip())
    assert (snapshot / sample_q4_0.name).read_bytes() == sample_q4_0.read_bytes()
    assert hub.sent[f"acme/gemma-3-270m-GGUF/{sample_q4_0.name}"] == sample_q4_0.stat().st_size
    made = tmp_path / "made"
    here.run("convert", "acme/gemma-3-270m-GGUF:Q4_0", "--to", "mlx", "--quant", "auto", "-o", made)
    here.run("push", made, "acme/gemma-3-270m-mlx", "-q")
    out = tmp_path / "out"
    settle(hub, None, tmp_path / "other").run("pull", "acme/gemma-3-270m-mlx", "-q", "-o", out)
    assert len(contained(made)) > 3 and contained(out) == contained(made)


OFFLINE = """
from pathlib import Path
repo, include = sys.argv[1], sys.argv[2:]
snapshot = hf.snapshot_download(repo, local_files_only=True, allow_patterns=include or None)
for path in sorted(Path(snapshot).rglob("*")):
    name = path.relative_to(snapshot).as_posix()
    assert hf.hf_hub_download(repo, name, local_files_only=True) == str(path), name
    assert hf.try_to_load_from_cache(repo, name) == str(path), name
print(snapshot)
"""


def test_real_client_reads_our_cache(hub: FakeHub, here: Here, python: Callable[..., str]) -> None:
    files = shards(3, 300_000)
    hub.add(REPO, files)
    snapshot = here.run("pull", REPO, "-q").stdout.strip()
    hub.reset()
    assert python(OFFLINE, REPO, *files, offline=True) == snapshot
    assert python("print(hf.snapshot_download(sys.argv[1]))", REPO) == snapshot
    assert not hub.sent, "the real client fetched again what was there"
    cached = python("(repo,) = hf.scan_cache_dir().repos; print(repo.repo_id, repo.size_on_disk, *repo.refs)")
    assert cached == f"{REPO} {sum(map(len, files.values()))} main"
    checked = python("print(hf.HfApi().verify_repo_checksums(sys.argv[1]).mismatches)", REPO)
    assert checked == "[]"


def test_our_pull_finds_what_the_real_client_fetched(hub: FakeHub, here: Here, python: Callable[..., str]) -> None:
    hub.add(REPO, shards(3, 300_000))
    hub.tag(REPO, "v1")
    snapshot = python("print(hf.snapshot_download(sys.argv[1]))", REPO)
    hub.reset()
    assert here.run("pull", REPO, "-q").stdout.strip() == snapshot
    assert here.run("pull", f"{REPO}@v1", "-q").stdout.strip() == snapshot
    assert {name for name in hub.sent if "safetensors" in name and "index" not in name} == set()
    hub.reset()
    here.run("pull", REPO, "--offline", "-q")
    assert not hub.requests


def test_json(hub: FakeHub, here: Here, tmp_path: Path) -> None:
    files = shards(2, 200_000)
    sha = hub.add(REPO, files)
    wanted = json.loads(here.run("pull", REPO, "--dry-run", "--json").stdout)
    assert not here.home.exists(), "a dry run writes nothing"
    assert wanted["schema"] == "gemmaq.pull/1" and wanted["commit"] == sha and wanted["revision"] == "main"
    assert {file["path"]: file["bytes"] for file in wanted["files"]} == {n: len(d) for n, d in files.items()}
    assert not any(file["cached"] for file in wanted["files"])
    total = sum(map(len, files.values()))
    assert wanted["bytes"] == wanted["missing_bytes"] == total and "path" not in wanted
    got = json.loads(here.run("pull", REPO, "--json").stdout)
    assert got["fetched_bytes"] == total and Path(got["path"]).name == sha and got["repo"] == REPO
    again = json.loads(here.run("pull", REPO, "--dry-run", "--json").stdout)
    assert all(file["cached"] for file in again["files"]) and again["missing_bytes"] == 0
    lfs = {file["path"] for file in again["files"] if file["sha256"]}
    assert lfs == {name for name in files if name.endswith(".safetensors")}
    offline = json.loads(here.run("pull", REPO, "--offline", "--json").stdout)
    assert offline["fetched_bytes"] == 0 and offline["path"] == got["path"] and offline["commit"] == sha
