"""Pulled, converted, pushed and pulled again; the cache shared with the real client; the options of a pull."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from damage import contained
from fake_hub import FakeHub, Fault
from home import Here, Settle
from repos import REPO, safetensors, shards, tree


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


@pytest.mark.slow
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
    planned = json.loads(here.run("pull", REPO, "--dry-run", "--json").stdout)
    assert not here.home.exists(), "a dry run writes nothing"
    assert planned["schema"] == "gemmaq.pull/1" and planned["commit"] == sha and planned["revision"] == "main"
    assert {file["path"]: file["bytes"] for file in planned["files"]} == {n: len(d) for n, d in files.items()}
    assert not any(file["cached"] for file in planned["files"])
    total = sum(map(len, files.values()))
    assert planned["bytes"] == planned["missing_bytes"] == total and "path" not in planned
    got = json.loads(here.run("pull", REPO, "--json").stdout)
    assert got["fetched_bytes"] == total and Path(got["path"]).name == sha and got["repo"] == REPO
    again = json.loads(here.run("pull", REPO, "--dry-run", "--json").stdout)
    assert all(file["cached"] for file in again["files"]) and again["missing_bytes"] == 0
    lfs = {file["path"] for file in again["files"] if file["sha256"]}
    assert lfs == {name for name in files if name.endswith(".safetensors")}
    offline = json.loads(here.run("pull", REPO, "--offline", "--json").stdout)
    assert offline["fetched_bytes"] == 0 and offline["path"] == got["path"] and offline["commit"] == sha


def test_only_what_a_conversion_needs(hub: FakeHub, here: Here) -> None:
    files = shards(2, 10_000)
    tokenizer = {name: b"{}" for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")}
    processor = {name: b"{}" for name in ("preprocessor_config.json", "processor_config.json", "chat_template.jinja")}
    others = {name: b"x" for name in ("pytorch_model.bin", "flax_model.msgpack", "consolidated.safetensors", "a.png")}
    others |= {"original/model.safetensors": b"x", "model-00009-of-00009.safetensors": b"x", ".gitattributes": b"x"}
    hub.add(REPO, files | tokenizer | processor | {"generation_config.json": b"{}"} | others)
    snapshot = here.run("pull", REPO, "-q").stdout.strip()
    assert set(tree(snapshot)) == set(files | tokenizer | processor) | {"generation_config.json"}
    assert not any(hub.sent[f"{REPO}/{name}"] for name in others)


def test_one_file_before_shards(hub: FakeHub, here: Here) -> None:
    hub.add(REPO, {"config.json": "{}", "model.safetensors": safetensors(1000, 1), "adapter.safetensors": b"x"})
    assert set(tree(here.run("pull", REPO, "-q").stdout.strip())) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--include", "*.json"], {"config.json", "model.safetensors.index.json"}),
        (["--include", "*.json", "--exclude", "*index*"], {"config.json"}),
        (["--include", "config.json", "--include", "docs/*"], {"config.json", "docs/a.md"}),
        (["--exclude", "*.safetensors"], {"config.json", "model.safetensors.index.json", "README.md"}),
        (["--exclude", "*00001*", "--exclude", "*.json"], {"README.md", "model-00002-of-00002.safetensors"}),
    ],
)
def test_patterns(hub: FakeHub, here: Here, flags: list[str], names: set[str]) -> None:
    hub.add(REPO, shards(2, 1000) | {"docs/a.md": b"# A\n"})
    assert set(tree(here.run("pull", REPO, "-q", *flags).stdout.strip())) == names
    offline = json.loads(here.run("pull", REPO, "--offline", "--json", *flags).stdout)
    if "--include" in flags:
        assert {file["path"] for file in offline["files"]} == names


def test_what_is_said(hub: FakeHub, here: Here) -> None:
    """The commit and every file on stderr, the folder alone on stdout; sizes before anything is fetched."""
    files = shards(2, 200_000)
    sha = hub.add(REPO, files)
    dry = here.run("pull", REPO, "--dry-run")
    assert sha in dry.stdout and "400 kB of 400 kB to download" in dry.stdout and dry.stdout.count("to download") == 6
    assert "200,000" in dry.stdout and dry.stderr == "" and not here.home.exists()
    done = here.run("pull", REPO)
    assert done.stdout == f"{here.root(REPO)}/snapshots/{sha}\n"
    assert f"{REPO} at {sha[:12]}: 5 files, 400 kB, 400 kB to download" in done.stderr
    assert f"commit {sha}, 400 kB downloaded" in done.stderr and all(f"  {name}  " in done.stderr for name in files)
    again = here.run("pull", REPO)
    assert "all cached" in again.stderr and f"commit {sha}, 0 B downloaded" in again.stderr
    quiet = here.run("pull", REPO, "-q")
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")
    assert here.run("pull", REPO, "--dry-run").stdout.count("cached") == 5
    (here.root(REPO) / f"snapshots/{sha}/config.json").resolve().unlink()
    assert "30 B of 400 kB to download" in here.run("pull", REPO, "--dry-run").stdout


def test_into_a_folder(hub: FakeHub, here: Here, python: Callable[..., str], tmp_path: Path) -> None:
    files = shards(3, 100_000)
    sha = hub.add(REPO, files)
    out = tmp_path / "models/tiny"
    report = json.loads(here.run("pull", REPO, "-o", out, "--json").stdout)
    assert (report["path"], report["commit"]) == (str(out), sha) and tree(out) == files
    assert not any(path.is_symlink() for path in out.rglob("*")) and [path.name for path in out.parent.iterdir()] == [
        "tiny"
    ]
    for name in files:
        record = (out / ".cache/huggingface/download" / f"{name}.metadata").read_text().splitlines()
        assert record[:2] == [sha, hub.commit(REPO).files[name].etag]
    hub.reset()
    assert python("print(hf.snapshot_download(sys.argv[1], local_dir=sys.argv[2]))", REPO, out) == str(out)
    assert not hub.sent, "the real client sees that all of it is there"
    (out / "config.json").write_text("changed by its owner")
    assert tree(here.run("pull", REPO, "-q").stdout.strip()) == files and not hub.sent


def test_into_a_folder_that_exists(hub: FakeHub, here: Here, tmp_path: Path) -> None:
    first, second = shards(2, 1000), shards(3, 2000)
    hub.add(REPO, first)
    out = tmp_path / "out"
    here.run("pull", REPO, "-q", "-o", out)
    hub.add(REPO, second)
    for flags in ([], ["--dry-run"], ["--offline"]):
        assert f"{out} exists" in here.run("pull", REPO, "-o", out, *flags, code=7).stderr
    assert tree(out) == first
    here.run("pull", REPO, "-q", "-o", out, "--force")
    assert tree(out) == second
    (out / "thesis.tex").write_text("years of work")
    assert "thesis.tex" in here.run("pull", REPO, "-q", "-o", out, "--force", code=7).stderr
    assert (out / "thesis.tex").exists()


def test_folder_is_whole_or_not_there(hub: FakeHub, here: Here, tmp_path: Path) -> None:
    hub.add(REPO, shards(2, 100_000))
    hub.faults.append(Fault("00002-of", "flip", offset=5, times=None, host="cdn"))
    here.run("pull", REPO, "-o", tmp_path / "out", code=8)
    assert {path.name for path in tmp_path.iterdir()} == {"hub", "home"}
    hub.faults.clear()
    assert here.run("pull", REPO, "-q", "-o", tmp_path / "out").stdout == f"{tmp_path / 'out'}\n"


def test_shard_that_is_no_safetensors_file(hub: FakeHub, here: Here) -> None:
    """Its digest is right, but its content is not what its name promises: an error at once, not hours later."""
    for name, data in (("model.safetensors", b"version https://git-lfs"), ("model-Q4_0.gguf", b"GGUF and no more")):
        hub.add(f"acme/bad-{name[:7]}", {"config.json": "{}", name: data})
        failed = here.run("pull", f"acme/bad-{name[:7]}", code=3)
        assert name in failed.stderr and str(here.home) not in failed.stderr


def test_offline_flag_and_variable(hub: FakeHub, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, shards(2, 1000))
    snapshot = here.run("pull", REPO, "-q").stdout
    hub.add(REPO, shards(2, 2000))
    hub.reset()
    assert here.run("pull", REPO, "-q", "--offline").stdout == snapshot
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert here.run("pull", REPO, "-q").stdout == snapshot and not hub.requests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert here.run("pull", REPO, "-q").stdout != snapshot


def test_same_bytes_in_two_files(hub: FakeHub, here: Here) -> None:
    data = safetensors(500_000, 1)
    files = {"config.json": b"{}", **{f"model-0000{n}-of-00002.safetensors": data for n in (1, 2)}}
    hub.add(REPO, files)
    assert tree(here.run("pull", REPO, "-q").stdout.strip()) == files
    assert sum(hub.sent.values()) < 600_000
