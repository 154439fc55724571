"""Artifacts published: what is sent and what is not, the card and the sums beside it, and who may do it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

import inprocess
from damage import sealed_anew
from fake_hub import FakeHub, Fault
from home import Here, Settle
from repos import tree

REPO = "acme/gemma-3-4b-it-GGUF"
GGUF = "gemma-3-4b-it-Q4_0.gguf"
MADE = {"README.md", "SHA256SUMS", "params"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A tiny model under a name of Google's, with room for a table of contexts."""
    folder = shutil.copytree(tiny, tmp_path_factory.mktemp("source") / "gemma-3-4b-it")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32768}))
    return folder


@pytest.fixture(scope="module")
def converted(source: Path) -> Path:
    out = source.parent / "gguf"
    inprocess.run("convert", source, "--quant", "q4_0", "-q", "-o", out)
    return out


@pytest.fixture
def artifact(converted: Path, tmp_path: Path) -> Path:
    """One to be spoilt."""
    return shutil.copytree(converted, tmp_path / "artifact")


@pytest.fixture
def here(hub: FakeHub, settle: Settle) -> Here:
    """With a token that may write to acme."""
    return settle(hub, "hf_write")


def push(here: Here, *arguments: object) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(here.run("push", *arguments, "--json").stdout)
    assert report["schema"] == "gemmaq.push/1"
    return report


def sent(report: dict[str, Any]) -> set[str]:
    return {file["path"] for file in report["files"] if file["sent"]}


def uploads(hub: FakeHub) -> list[int]:
    """Bytes of each LFS object that was sent."""
    return [record.received for record in hub.requests if record.method == "PUT"]


def written(hub: FakeHub) -> list[str]:
    """Requests that change something."""
    return [record.path for record in hub.requests if record.method != "GET"]


def published(hub: FakeHub, repo: str = REPO, revision: str = "main") -> dict[str, bytes]:
    files = hub.commit(repo, revision).files
    return {name: blob.read() for name, blob in files.items() if name != ".gitattributes"}


def test_all_of_it_arrives(hub: FakeHub, here: Here, artifact: Path) -> None:
    report = push(here, artifact, REPO)
    assert (report["repo"], report["revision"], report["commit"]) == (REPO, "main", hub.commit(REPO).sha)
    assert report["url"] == f"{hub.endpoint}/{REPO}/commit/{report['commit']}"
    there = published(hub)
    assert {file["path"]: file["bytes"] for file in report["files"]} == {
        name: len(data) for name, data in there.items()
    }
    assert sent(report) == set(there) >= MADE | {GGUF}
    kept = {name: data for name, data in tree(artifact).items() if name not in MADE}
    assert {name: there[name] for name in kept} == kept
    assert not hub.repos[REPO].private and uploads(hub) == [(artifact / GGUF).stat().st_size]
    assert json.loads(there["params"]) == {"stop": ["<end_of_turn>"], "temperature": 1, "top_k": 64, "top_p": 0.95}


def card_of(hub: FakeHub, repo: str = REPO) -> tuple[dict[str, Any], str]:
    """Front matter and text."""
    _, front, text = hub.read(repo, "README.md").decode().split("---\n", 2)
    return yaml.safe_load(front), text


def test_card(hub: FakeHub, here: Here, artifact: Path) -> None:
    push(here, artifact, REPO)
    front, text = card_of(hub)
    base = front["base_model"]
    assert base in ("google/gemma-3-4b-it", ["google/gemma-3-4b-it"])
    assert front["base_model_relation"] == "quantized" and front["library_name"] == "gguf"
    assert front["license"] == "gemma" and front["license_link"] == "https://ai.google.dev/gemma/terms"
    assert {"gemma3", "gguf", "q4_0"} <= set(front["tags"])
    for name in set(published(hub)) - {"README.md", "SHA256SUMS"}:
        assert f"| `{name}` |" in text, "the table has every file"
    assert f"{(artifact / GGUF).stat().st_size:,} B" in text
    assert f"llama-server -hf {REPO}:Q4_0" in text and f"ollama run hf.co/{REPO}:Q4_0" in text
    rows = text[text.index("| context |") :].partition("\n\n")[0].splitlines()[2:]
    for context, row in zip((4096, 8192, 32768), rows, strict=True):
        flags = ("--context", context, "--json")
        (estimate,) = json.loads(here.run("estimate-vram", artifact / GGUF, *flags).stdout)["estimates"]
        assert row.startswith(f"| {context:,} |") and row.endswith(f"| {estimate['bytes']['total'] / 1e9:.2f} |")
    assert "Gemma Terms of Use" in text and str(artifact) not in text


def test_card_of_a_repository(hub: FakeHub, here: Here, source: Path, tmp_path: Path) -> None:
    """What it was made of is the repository that was pulled, with the licence of its card."""
    card = "---\nlicense: other\nbase_model: google/gemma-3-4b-pt\n---\n"
    hub.add("acme/my-gemma-3-4b", {path.name: path for path in source.iterdir()} | {"README.md": card})
    here.run("convert", "acme/my-gemma-3-4b", "--quant", "q8_0", "-q", "-o", tmp_path / "out")
    push(here, tmp_path / "out", "acme/mine")
    front, _ = card_of(hub, "acme/mine")
    assert front["base_model"] in ("acme/my-gemma-3-4b", ["acme/my-gemma-3-4b"])
    assert front["license"] == "other" and "q8_0" in front["tags"]


def test_sums_can_be_checked(hub: FakeHub, here: Here, artifact: Path, python: Callable[..., str]) -> None:
    """By coreutils, in what the real client fetched."""
    push(here, artifact, REPO)
    snapshot = python("print(hf.snapshot_download(sys.argv[1]))", REPO)
    check = ["sha256sum", "-c", "--strict", "SHA256SUMS"]
    done = subprocess.run(check, cwd=snapshot, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    listed = {line.partition(": ")[0] for line in done.stdout.splitlines()}
    assert listed == set(published(hub)) - {"SHA256SUMS"}


def test_own_card_is_kept(hub: FakeHub, here: Here, artifact: Path) -> None:
    own = "---\nlicense: gemma\n---\n# Mine\n"
    (artifact / "README.md").write_text(own)
    (artifact / "NOTES.txt").write_text("mine too\n")
    push(here, artifact, REPO)
    assert hub.read(REPO, "README.md").decode() == own and hub.read(REPO, "NOTES.txt") == b"mine too\n"
    assert {"README.md", "NOTES.txt"} <= {line[66:] for line in hub.read(REPO, "SHA256SUMS").decode().splitlines()}


def test_second_push_sends_nothing(hub: FakeHub, here: Here, artifact: Path) -> None:
    first = push(here, artifact, REPO)
    hub.reset()
    again = push(here, artifact, REPO)
    assert sent(again) == set() and again["commit"] is None and not written(hub)
    assert hub.commit(REPO).sha == first["commit"]
    assert "nothing was uploaded" in here.run("push", artifact, REPO).stderr
    assert here.run("push", artifact, REPO, "-q").stdout == ""


def test_changed_files_alone_are_sent(hub: FakeHub, here: Here, artifact: Path, source: Path, tmp_path: Path) -> None:
    (artifact / "README.md").write_text("# Mine\n")
    push(here, artifact, REPO)
    hub.reset()
    (artifact / "README.md").write_text("# Mine, and better\n")
    assert sent(push(here, artifact, REPO)) == {"README.md", "SHA256SUMS"} and uploads(hub) == []
    hub.reset()
    here.run("convert", source, "--quant", "q4_0", "--embedding", "q4_0", "-q", "-o", tmp_path / "other")
    refused = here.run("push", tmp_path / "other", REPO, code=7)
    assert f"has {GGUF} with another content" in refused.stderr and "--force" in refused.stderr and not written(hub)
    report = push(here, tmp_path / "other", REPO, "--force")
    assert GGUF in sent(report) and "params" not in sent(report) and report["replaced"] == [GGUF]
    assert uploads(hub) == [(tmp_path / "other" / GGUF).stat().st_size]


def test_known_bytes_under_another_name_are_not_sent(hub: FakeHub, here: Here, artifact: Path) -> None:
    push(here, artifact, REPO)
    hub.reset()
    (artifact / GGUF).rename(artifact / "renamed-Q4_0.gguf")
    for name in ("gemmaq.json", "Modelfile"):
        (artifact / name).write_text((artifact / name).read_text().replace(GGUF, "renamed-Q4_0.gguf"))
    sealed_anew(artifact)
    assert "renamed-Q4_0.gguf" in sent(push(here, artifact, REPO)) and uploads(hub) == []


def test_private(hub: FakeHub, here: Here, settle: Settle, artifact: Path) -> None:
    push(here, artifact, REPO, "--private")
    assert hub.repos[REPO].private
    assert sent(push(here, artifact, REPO)) == set(), "and it is seen again"
    settle(hub, "hf_read").run("pull", REPO, code=5)


def test_branch(hub: FakeHub, here: Here, artifact: Path) -> None:
    report = push(here, artifact, REPO, "--revision", "v2")
    assert report["revision"] == "v2" and GGUF in published(hub, revision="v2") and GGUF not in published(hub)
    hub.reset()
    assert sent(push(here, artifact, REPO, "--revision", "v2")) == set() and not written(hub)
    assert GGUF in sent(push(here, artifact, REPO)) and uploads(hub) == [], "what a branch has is not sent again"


def test_dry_run(hub: FakeHub, here: Here, settle: Settle, artifact: Path) -> None:
    report = push(here, artifact, REPO, "--dry-run")
    assert not written(hub) and REPO not in hub.repos
    assert sent(report) == set() and all(file["missing"] for file in report["files"]) and report["commit"] is None
    assert {file["path"] for file in report["files"]} >= {GGUF} | MADE
    table = settle(hub).run("push", artifact, REPO, "--dry-run").stdout  # nobody's token
    assert GGUF in table and "to upload" in table
    here = settle(hub, "hf_write")
    push(here, artifact, REPO)
    (artifact / "README.md").write_text("# Mine\n")
    report = push(here, artifact, REPO, "--dry-run")
    assert {file["path"] for file in report["files"] if file["missing"]} == {"README.md", "SHA256SUMS"}


def test_quiet(hub: FakeHub, here: Here, artifact: Path) -> None:
    done = here.run("push", artifact, REPO, "-q")
    assert done.stdout == f"{hub.endpoint}/{REPO}/commit/{hub.commit(REPO).sha}\n" and done.stderr == ""


def test_three_containers_at_once(hub: FakeHub, here: Here, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = [flag for name in ("gguf", "mlx", "safetensors") for flag in ("--to", name)]
    here.run("convert", source, "--quant", "q4_0", *flags, "-q", "-o", out)
    push(here, out, "acme/gemma-3-4b-it-q4_0")
    there = published(hub, "acme/gemma-3-4b-it-q4_0")
    assert {f"gguf/{GGUF}", "mlx/model.safetensors", "safetensors/model.safetensors"} < set(there)
    assert {name for name in there if "/" not in name} >= MADE
    front, text = card_of(hub, "acme/gemma-3-4b-it-q4_0")
    assert {"gguf", "mlx", "transformers"} <= set(front["tags"])
    for words in ("## GGUF", "## MLX", "## safetensors", "llama-server -hf", "mlx_lm.chat", "vllm serve"):
        assert words in text
    snapshot = here.run("pull", "acme/gemma-3-4b-it-q4_0", "--include", "*", "-q").stdout.strip()
    subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=snapshot, check=True)
    assert here.run("inspect", "acme/gemma-3-4b-it-q4_0:Q4_0", "-q").stdout == "gemma-3-4b-it\n"
    hub.reset()
    assert sent(push(here, out, "acme/gemma-3-4b-it-q4_0")) == set()


def test_hidden_files_stay_at_home(hub: FakeHub, here: Here, artifact: Path) -> None:
    for name in (".env", ".git/config", ".cache/huggingface/x", "sub/.secret"):
        (artifact / name).parent.mkdir(parents=True, exist_ok=True)
        (artifact / name).write_text("HF_TOKEN=hf_write")
    push(here, artifact, REPO)
    assert not [name for name in published(hub) if "/." in f"/{name}"]
    assert not any(b"hf_write" in data for data in published(hub).values())


def test_folders_that_are_no_artifact(hub: FakeHub, here: Here, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("no model")
    assert "holds no model" in here.run("push", tmp_path / "empty", REPO, code=5).stderr
    assert "is not a folder" in here.run("push", tmp_path / "none", REPO, code=5).stderr
    assert "is not a folder" in here.run("push", tmp_path / "empty/notes.txt", REPO, code=5).stderr
    assert not hub.requests


@pytest.mark.parametrize("what", ["file", "folder", "nowhere"])
def test_links_out_of_the_folder(hub: FakeHub, here: Here, artifact: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private/key").write_text("secret")
    (artifact / "link").symlink_to(tmp_path / "private" / {"file": "key", "folder": "", "nowhere": "none"}[what])
    failed = here.run("push", artifact, REPO, code=3)
    assert "link" in failed.stderr and "leads out of" in failed.stderr and not hub.requests


def test_links_within_the_folder(hub: FakeHub, here: Here, artifact: Path) -> None:
    (artifact / "system").symlink_to("params")
    push(here, artifact, REPO)
    assert hub.read(REPO, "system") == (artifact / "params").read_bytes()


def test_spoilt_artifact(hub: FakeHub, here: Here, artifact: Path) -> None:
    with (artifact / GGUF).open("r+b") as file:
        file.seek(-1, 2)
        file.write(bytes([255 - (artifact / GGUF).read_bytes()[-1]]))
    failed = here.run("push", artifact, REPO, code=8)
    assert GGUF in failed.stderr and "SHA256SUMS" in failed.stderr and not hub.requests


@pytest.mark.parametrize(
    ("token", "code", "words"),
    [
        (None, 4, ("without a token", "hf auth login", "HF_TOKEN")),
        ("hf_read", 4, ("refuses the token (403)", "HF_TOKEN")),
        ("hf_outsider", 4, ("refuses the token (403)", "HF_TOKEN")),
        ("hf_nobody", 4, ("refuses the token (401)", "HF_TOKEN")),
    ],
    ids=["nobody", "reader", "outsider", "bad"],
)
@pytest.mark.parametrize("exists", [False, True], ids=["new", "there"])
def test_who_may_not(
    hub: FakeHub, settle: Settle, artifact: Path, token: str | None, code: int, words: tuple[str, ...], exists: bool
) -> None:
    if exists:
        hub.add(REPO, {"a.txt": "a"})
    failed = settle(hub, token).run("push", artifact, REPO, code=code)
    assert all(word in failed.stderr for word in words), failed.stderr
    assert uploads(hub) == [] and (not exists or set(published(hub)) == {"a.txt"})


@pytest.mark.parametrize("name", ["acme", "acme/x@main", "acme/x:Q4_0", "a/b/c", "acme/x--y", "../x"])
def test_names_of_no_repository(hub: FakeHub, here: Here, artifact: Path, name: str) -> None:
    assert "is not a valid repository name" in here.run("push", artifact, name, code=2).stderr
    assert not hub.requests


def test_offline(hub: FakeHub, here: Here, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    here.run("push", artifact, REPO, code=6)
    assert not hub.requests


FAULTS = {
    "listing": Fault("api/models/.*GGUF$", "status", status=503, times=2),
    "create": Fault("repos/create", "status", status=500),
    "preupload": Fault("preupload", "status", status=502),
    "batch": Fault("lfs/objects/batch", "status", status=503),
    "upload": Fault("upload", "status", status=500, host="cdn"),
    "upload cut": Fault("upload", "cut", after_bytes=50_000, host="cdn"),
    "upload reset": Fault("upload", "reset", after_bytes=50_000, host="cdn"),
    "verify": Fault("objects/verify", "status", status=500),
    "commit": Fault("/commit/", "status", status=503),
    "commit throttled": Fault("/commit/", "status", status=429, retry_after=0),
    "commit lost": Fault("/commit/", "lost"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_that_pass(hub: FakeHub, here: Here, artifact: Path, name: str) -> None:
    fault = Fault(**vars(FAULTS[name]) | {"hits": 0})
    hub.faults.append(fault)
    here.run("push", artifact, REPO, "-q")
    assert fault.hits > 0 and published(hub)[GGUF] == (artifact / GGUF).read_bytes()
    assert sent(push(here, artifact, REPO)) == set()


def test_errors_for_ever(hub: FakeHub, here: Here, artifact: Path) -> None:
    hub.faults.append(Fault("/commit/", "status", status=503, times=None))
    failed = here.run("push", artifact, REPO, code=6)
    assert "answers 503" in failed.stderr
    hub.reset()
    push(here, artifact, REPO)
    assert uploads(hub) == [], "what was sent is not sent again"


def test_in_parts(hub: FakeHub, here: Here, artifact: Path) -> None:
    hub.part_size = 150_000
    push(here, artifact, REPO)
    assert published(hub)[GGUF] == (artifact / GGUF).read_bytes() and len(uploads(hub)) > 1
