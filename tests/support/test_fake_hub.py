"""The fake Hub, asked by the real huggingface_hub, in processes of its own: it reads its environment when imported."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fake_hub import FakeHub, Fault
from hub_client import FILES, REPO, SHARD, ask_client, write_files
from hub_store import git_oid


@pytest.fixture
def client(hub: FakeHub, tmp_path: Path, require: Callable[[bool, str], None]) -> Callable[..., Any]:
    """The real client; see `hub_client.ask_client`."""
    require(find_spec("huggingface_hub") is not None, "huggingface_hub")
    return partial(ask_client, hub, tmp_path / "home")


def test_snapshot_holds_every_byte(hub: FakeHub, client: Callable[..., Any]) -> None:
    sha = hub.add(REPO, FILES, gated=True)
    code = 'path = hf.snapshot_download("google/gemma-3-tiny"); result = [path, hf.__version__]'
    snapshot = Path(client(code, "hf_read")[0])
    assert snapshot.name == sha and snapshot.parts[-3:-1] == ("models--google--gemma-3-tiny", "snapshots")
    assert (snapshot.parents[1] / "refs/main").read_text() == sha
    assert {p.relative_to(snapshot).as_posix(): p.read_bytes() for p in snapshot.rglob("*") if p.is_file()} == FILES
    assert (snapshot / SHARD).resolve().name == hashlib.sha256(FILES[SHARD]).hexdigest()
    assert (snapshot / "config.json").resolve().name == git_oid(FILES["config.json"])
    assert {name.removeprefix(f"{REPO}/"): size for name, size in hub.sent.items()} == {
        name: len(data) for name, data in FILES.items()
    }
    from_cdn = [record for record in hub.requests if record.host == "cdn"]
    assert len(from_cdn) == 3 and not any(record.token for record in from_cdn)
    hub.reset()
    assert client(code, "hf_read")[0] == str(snapshot)
    assert not any(record.host == "cdn" for record in hub.requests)


def test_listings(hub: FakeHub, client: Callable[..., Any]) -> None:
    hub.add(REPO, FILES)
    hub.add(REPO, {"config.json": "{}"}, revision="old/one")
    hub.tag(REPO, "v1")
    result = client(
        """
info = api.model_info("google/gemma-3-tiny", files_metadata=True)
files = {s.rfilename: [s.size, s.blob_id, s.lfs and s.lfs.sha256] for s in info.siblings}
tree = [type(e).__name__ + " " + e.path for e in api.list_repo_tree("google/gemma-3-tiny", recursive=True)]
top = [e.path for e in api.list_repo_tree("google/gemma-3-tiny")]
refs = api.list_repo_refs("google/gemma-3-tiny")
meta = hf.get_hf_file_metadata(hf.hf_hub_url("google/gemma-3-tiny", "tokenizer.json"))
some = api.get_paths_info("google/gemma-3-tiny", ["config.json", "none"])
result = dict(files=files, tree=tree, top=top,
              branches=[b.name for b in refs.branches], tags=[t.name for t in refs.tags],
              old=[s.rfilename for s in api.model_info("google/gemma-3-tiny", revision="old/one").siblings],
              meta=[meta.etag, meta.size, meta.commit_hash == info.sha], some=[f.path for f in some],
              gated=info.gated, sha=info.sha, tagged=api.model_info("google/gemma-3-tiny", revision="v1").sha)
"""
    )
    sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert {name: row[0] for name, row in result["files"].items()} == {name: len(data) for name, data in FILES.items()}
    assert result["files"]["folder/deep/name with blank.txt"][1:] == ["ce013625030ba8dba906f756967f9e9ca394464a", None]
    assert result["files"][SHARD][2] == sha256[SHARD]
    assert {"RepoFile config.json", "RepoFolder folder", "RepoFolder folder/deep"} < set(result["tree"])
    assert "folder" in result["top"] and not any("/" in path for path in result["top"])
    assert result["meta"] == [sha256["tokenizer.json"], len(FILES["tokenizer.json"]), True]
    assert (result["branches"], result["tags"], result["old"]) == (["main", "old/one"], ["v1"], ["config.json"])
    assert result["gated"] is False and result["tagged"] == result["sha"] and result["some"] == ["config.json"]


def test_refusals(hub: FakeHub, client: Callable[..., Any]) -> None:
    hub.add(REPO, FILES, gated=True)
    hub.add("google/hidden", FILES, gated="all")
    hub.add("acme/private", FILES, private=True)
    hub.add("acme/public", FILES)
    result = client(
        """
def ask(token):
    api = hf.HfApi(token=token)
    def load(*names):
        return attempt(lambda: api.get_hf_file_metadata(url=hf.hf_hub_url(*names)).size)
    ids = ["google/gemma-3-tiny", "google/none", "acme/private", "acme/public", "google/hidden"]
    return dict(access=[attempt(lambda: api.auth_check(id)) for id in ids],
                info=[attempt(lambda: api.model_info(id).id) for id in ids],
                files=[load("google/gemma-3-tiny", "config.json"), load("acme/public", "none.json")],
                revision=[attempt(lambda: call("acme/public", revision="none"))
                          for call in (api.model_info, api.snapshot_download)])
result = [ask(token) for token in (False, "hf_outsider", "hf_write", "hf_nobody")]
"""
    )
    gated, missing = "GatedRepoError", "RepositoryNotFoundError"
    for stranger in result[:2]:
        assert stranger["access"] == [gated, missing, missing, "None", gated]
        assert stranger["info"] == [REPO, missing, missing, "acme/public", gated]
        assert stranger["files"] == [gated, "RemoteEntryNotFoundError"]
    assert result[2]["access"] == ["None", missing, "None", "None", "None"]
    assert result[2]["info"] == [REPO, missing, "acme/private", "acme/public", "google/hidden"]
    assert result[2]["files"] == [str(len(FILES["config.json"])), "RemoteEntryNotFoundError"]
    assert all(friend["revision"] == ["RevisionNotFoundError"] * 2 for friend in result[:3])
    assert {name for row in result[3].values() for name in row} == {"HfHubHTTPError"}
    checks = [record for record in hub.requests if "auth-check" in record.path]
    statuses = {
        token: [r.status for r in checks if r.token == token] for token in dict.fromkeys(r.token for r in checks)
    }
    assert statuses == {
        None: [401, 401, 401, 200, 401],
        "hf_outsider": [403, 404, 404, 200, 403],
        "hf_write": [200, 404, 200, 200, 200],
        "hf_nobody": [401] * 5,
    }


UPLOAD = """
repo = sys.argv[1]
url = api.create_repo(repo, private=True, exist_ok=True)
info = api.upload_folder(folder_path=sys.argv[2], repo_id=repo, commit_message="Add all")
result = [url, info.oid, hf.snapshot_download(repo)]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "folder")


def test_upload_comes_back(hub: FakeHub, client: Callable[..., Any], folder: Path) -> None:
    url, sha, snapshot = client(UPLOAD, "hf_write", "acme/tiny", folder)
    assert url == f"{hub.endpoint}/acme/tiny" and hub.commit("acme/tiny").sha == sha and hub.repos["acme/tiny"].private
    assert {
        p.relative_to(snapshot).as_posix(): p.read_bytes() for p in Path(snapshot).rglob("*") if p.is_file()
    } == FILES
    puts = [record.received for record in hub.requests if record.method == "PUT"]
    assert sorted(puts) == sorted(
        len(FILES[name]) for name in FILES if name.endswith((".safetensors", "tokenizer.json"))
    )
    hub.reset()
    (folder / "config.json").write_text("{}")
    hub.faults.append(Fault("/commit/", "lost"))
    again = client(
        """
folder, repo = sys.argv[1], "acme/tiny"
first = attempt(lambda: api.upload_folder(folder_path=folder, repo_id=repo))
second = api.upload_folder(folder_path=folder, repo_id=repo)
stale = attempt(lambda: api.create_commit(repo, [hf.CommitOperationAdd("a", b"a")], commit_message="a",
                                          parent_commit=api.list_repo_commits(repo)[-1].commit_id))
api.create_branch(repo, branch="next", exist_ok=True)
api.create_commit(repo, [hf.CommitOperationDelete("folder/"), hf.CommitOperationAdd("b.bin", b"b" * 1000)],
                  commit_message="change", revision="next")
api.create_tag(repo, tag="v2", revision="next")
pull = api.create_commit(repo, [hf.CommitOperationAdd("c", b"c")], commit_message="c", create_pr=True)
nowhere = attempt(lambda: api.upload_file(path_or_fileobj=b"", path_in_repo="x", repo_id=repo, revision="none"))
result = [first, second.oid, stale, pull.pr_revision, nowhere, [c.title for c in api.list_repo_commits(repo)]]
""",
        "hf_write",
        folder,
    )
    assert again[0] in ("RemoteProtocolError", "ReadError") and hub.read("acme/tiny", "config.json") == b"{}"
    assert again[1:4] == [hub.commit("acme/tiny").sha, "HfHubHTTPError", "refs/pr/1"]
    assert again[4] == "RevisionNotFoundError" and len(again[5]) == 3
    assert [record.received for record in hub.requests if record.method == "PUT"] == [1000]
    changed = hub.commit("acme/tiny", "next").files
    assert hub.read("acme/tiny", "b.bin", "v2") == b"b" * 1000 and not any("folder" in name for name in changed)
    assert hub.read("acme/tiny", "c", "refs/pr/1") == b"c" and "c" not in hub.commit("acme/tiny").files


def test_upload_in_parts_and_after_failures(hub: FakeHub, client: Callable[..., Any], folder: Path) -> None:
    hub.part_size = 130_000
    hub.faults.append(Fault("part-2", "status", status=500))
    hub.faults.append(Fault("part-1", "reset", after_bytes=50_000))
    sha = client(UPLOAD, "hf_write", "tester/tiny", folder)[1]
    assert {name: hub.read("tester/tiny", name, sha) for name in FILES} == FILES
    assert [fault.hits for fault in hub.faults] == [1, 1] and not list(hub.root.glob("lfs/*.*"))


def test_who_may_not_write(hub: FakeHub, client: Callable[..., Any]) -> None:
    hub.add("acme/there", FILES)
    result = client(
        """
def ask(api):
    return [attempt(lambda: api.create_repo("acme/new")), attempt(lambda: api.create_repo("acme/there", exist_ok=True)),
            attempt(lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="acme/there"))]
result = [ask(hf.HfApi(token=token)) for token in (False, "hf_read", "hf_outsider", "hf_nobody")]
"""
    )
    refused = "HfHubHTTPError"
    assert result == [*[[refused, f"{hub.endpoint}/acme/there", refused]] * 3, [refused] * 3]
    assert list(hub.repos) == ["acme/there"]
    assert [record.status for record in hub.requests if record.path == "/api/repos/create"] == [
        *[401] * 2,
        *[403] * 4,
        *[401] * 2,
    ]


def test_client_mends_what_it_can(hub: FakeHub, client: Callable[..., Any]) -> None:
    """What huggingface_hub makes of faults: a cut is resumed, wrong bytes pass, a wrong size does not."""
    hub.add(REPO, FILES)
    hub.add("acme/flipped", FILES)
    hub.add("acme/short", FILES)
    hub.faults.append(Fault(f"gemma.*{SHARD}", "cut", host="cdn", after_bytes=100_000))
    hub.faults.append(Fault("gemma.*00002-of", "status", host="cdn", status=429, retry_after=0))
    hub.faults.append(Fault(f"flipped.*{SHARD}", "flip", host="cdn", offset=5))
    hub.faults.append(Fault(f"short.*{SHARD}", "truncate", host="cdn", by=5, times=None))
    result = client(
        """
def load(repo, name):
    return hf.hf_hub_download(repo, name)
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor() as pool:
    shard = "model-00001-of-00002.safetensors"
    whole = pool.submit(hf.snapshot_download, "google/gemma-3-tiny")
    flipped = pool.submit(load, "acme/flipped", shard)
    short = pool.submit(attempt, lambda: load("acme/short", shard))
    result = [whole.result(), flipped.result(), short.result()]
"""
    )
    assert all((Path(result[0]) / name).read_bytes() == data for name, data in FILES.items())
    wrong = Path(result[1]).read_bytes()
    assert wrong != FILES[SHARD] and len(wrong) == len(FILES[SHARD]) and result[2] == "OSError"
    assert [fault.hits for fault in hub.faults] == [1, 1, 1, 1]


def test_ways_of_the_real_hub(hub: FakeHub, client: Callable[..., Any]) -> None:
    """Text compressed without a length, small files behind a redirect, a repository of another name."""
    hub.add(REPO, FILES)
    hub.moved["google/gemma-old"] = REPO
    hub.gzip = hub.resolve_cache = True
    snapshot = Path(client('result = hf.snapshot_download("google/gemma-old")'))
    assert all((snapshot / name).read_bytes() == data for name, data in FILES.items())
    assert any(record.status == 307 and "gemma-old" in record.path for record in hub.requests)
    assert any("resolve-cache" in record.path and record.method == "GET" for record in hub.requests)
