"""What an artifact says of a source from the Hub: repository, commit, and digests that nobody had to make again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub._local_folder import read_download_metadata

from damage import small_model
from fake_hub import FakeHub
from gemmaq.artifact import digests
from home import Here, Settle
from records import recorded

REPO = "acme/gemma-3-tiny"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "source", shard_bytes=50_000)


@pytest.fixture
def sha(hub: FakeHub, model: Path) -> str:
    """A repository whose weights are large files and whose other files are small ones."""
    return hub.add(REPO, model, lfs_from=20_000)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose digests are made."""
    names: list[str] = []
    feed = digests.feed

    def noted(path: Path, *more: Any) -> None:
        names.append(path.name)
        feed(path, *more)

    monkeypatch.setattr(digests, "feed", noted)
    return names


def source_of(artifact: Path) -> dict[str, Any]:
    source_record: dict[str, Any] = recorded(artifact)["source"]
    return source_record


def is_true(source_record: dict[str, Any], model: Path) -> None:
    """Every file of the source with its digest."""
    expected = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in model.iterdir() if path.is_file()}
    assert {file["path"]: file["sha256"] for file in source_record["files"]} == expected
    assert all(file["bytes"] == (model / file["path"]).stat().st_size for file in source_record["files"])


def test_the_cache_knows_repository_commit_and_digests(
    hub: FakeHub, here: Here, model: Path, sha: str, read: list[str], tmp_path: Path
) -> None:
    here.run("convert", REPO, "-q", "-o", tmp_path / "out")
    source_record = source_of(tmp_path / "out")
    assert (source_record["name"], source_record["repo"], source_record["revision"]) == ("gemma-3-tiny", REPO, sha)
    is_true(source_record, model)
    assert not [name for name in read if name.endswith(".safetensors")] and "config.json" in read
    assert f"- {REPO}\n" in (tmp_path / "out/README.md").read_text()
    here.run("verify", tmp_path / "out", "--against", REPO, "-q")
    hub.reset()
    here.run("convert", here.root(REPO) / "snapshots" / sha, "-q", "-o", tmp_path / "of-folder")
    assert source_of(tmp_path / "of-folder") == source_record and not hub.requests


def test_a_pulled_folder_knows_them_too(here: Here, model: Path, sha: str, read: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "pulled/gemma-3-tiny"
    here.run("pull", REPO, "-q", "-o", folder)
    here.run("convert", folder, "-q", "-o", tmp_path / "out")
    source_record = source_of(tmp_path / "out")
    assert (source_record["repo"], source_record["revision"]) == (REPO, sha)
    is_true(source_record, model)
    assert not [name for name in read if name.endswith(".safetensors")]
    found = read_download_metadata(folder, "config.json")
    assert found is not None and found.commit_hash == sha, "the Hub's own tools read the record"


@pytest.mark.parametrize("change", ["weights", "record", "record of another commit"])
def test_what_was_changed_since_is_read_again(
    change: str, here: Here, sha: str, read: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "pulled/gemma-3-tiny"
    here.run("pull", REPO, "-q", "-o", folder)
    shard = sorted(folder.glob("*.safetensors"))[0]
    record = folder / f".cache/huggingface/download/{shard.name}.metadata"
    lines = record.read_text().splitlines()
    if change == "weights":
        content = shard.read_bytes()
        shard.unlink()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(shard, (float(lines[2]) + 60,) * 2)
    elif change == "record":
        record.write_text("nonsense")
    else:
        record.write_text("\n".join(["d" * 40, *lines[1:]]))
    here.run("convert", folder, "-q", "-o", tmp_path / "out")
    source_record = source_of(tmp_path / "out")
    assert source_record["revision"] is None and source_record["repo"] is None
    is_true(source_record, folder)
    assert (shard.name in read) == (change != "record of another commit")


def test_what_the_real_client_fetched_has_a_commit(
    hub: FakeHub, here: Here, python: Any, model: Path, sha: str, tmp_path: Path
) -> None:
    """Its record of a folder does not say which repository."""
    folder = tmp_path / "gemma-3-tiny"
    python("print(hf.snapshot_download(sys.argv[1], local_dir=sys.argv[2]))", REPO, folder)
    here.run("convert", folder, "-q", "-o", tmp_path / "out")
    source_record = source_of(tmp_path / "out")
    assert (source_record["repo"], source_record["revision"]) == (None, sha)
    is_true(source_record, model)


def test_a_gguf_in_a_folder_of_a_repository(hub: FakeHub, here: Here, model: Path, tmp_path: Path) -> None:
    here.run("convert", model, "-q", "--quant", "bf16", "-o", tmp_path / "gguf")
    file = next((tmp_path / "gguf").glob("*.gguf"))
    sha = hub.add("acme/gemma-3-tiny-GGUF", {f"BF16/{file.name}": file}, lfs_from=1000)
    here.run("convert", "acme/gemma-3-tiny-GGUF", "-q", "-o", tmp_path / "out")
    source_record = source_of(tmp_path / "out")
    assert (source_record["repo"], source_record["revision"], source_record["format"]) == (
        "acme/gemma-3-tiny-GGUF",
        sha,
        "gguf",
    )
    assert source_record["files"][0]["path"] == f"BF16/{file.name}"
    settled = tmp_path / "pulled"
    here.run("pull", "acme/gemma-3-tiny-GGUF", "-q", "-o", settled)
    here.run("convert", settled / "BF16" / file.name, "-q", "-o", tmp_path / "again")
    assert source_of(tmp_path / "again")["files"] == source_record["files"]
    assert source_of(tmp_path / "again")["repo"] == "acme/gemma-3-tiny-GGUF"


def test_a_pushed_artifact_is_still_good(hub: FakeHub, settle: Settle, model: Path, tmp_path: Path) -> None:
    """Its card is another, and the list with it; gemmaq.json is the same."""
    here = settle(hub, "hf_write")
    for kind, options in {"one": (), "all": ("--to", "gguf", "--to", "mlx")}.items():
        made, pulled = tmp_path / kind, tmp_path / f"pulled-{kind}"
        here.run("convert", model, "-q", *options, "-o", made)
        here.run("push", made, f"acme/{kind}", "-q")
        here.run("pull", f"acme/{kind}", "--include", "*", "-q", "-o", pulled)
        assert f"acme/{kind}" in (pulled / "README.md").read_text()
        here.run("verify", pulled, "--against", model, "-q")
        (pulled / "README.md").write_text("# Mine\n")
        assert "README.md is not what SHA256SUMS says" in here.run("verify", pulled, code=8).stderr
        inner = next(pulled.rglob("*.gguf"))
        inner.write_bytes(inner.read_bytes()[:-1] + b"x")
        assert inner.name in here.run("push", pulled, f"acme/{kind}", code=8).stderr


def test_a_name_without_an_organization_is_no_repository(here: Here, model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--tiny" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    model.rename(snapshot)
    here.run("convert", snapshot, "-q", "-o", tmp_path / "out")
    assert source_of(tmp_path / "out")["repo"] is None
    here.run("verify", tmp_path / "out", "-q")
