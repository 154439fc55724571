"""What the fake Hub answers when something is written: repositories, branches, LFS objects, commits."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs

from hub_http import Reply, Request, answer, failure
from hub_routes import Refused, Route, account, entry, namespaces, readable, revision_of
from hub_store import LFS_SUFFIXES, Blob, Repo, is_lfs, lfs_blob, make_commit, regular_blob

GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
FIRST = "initial commit"


def writer(request: Request, namespace: str) -> dict[str, Any]:
    """Who writes into that namespace; refused for everybody else."""
    who = account(request)
    if who is None:
        raise Refused(failure(401, None, "Invalid username or password."))
    if who.get("role") != "write":
        raise Refused(failure(403, None, f"Forbidden: the token of {who['name']} has no write permission"))
    if namespace not in namespaces(who):
        told = f"You don't have the rights to create a model under the namespace {json.dumps(namespace)}"
        raise Refused(failure(403, None, told))
    return who


def writable(request: Request, repo_id: str) -> Repo:
    """The repository, for who may write to it, or propose a change with `create_pr`."""
    repo = readable(request, repo_id, files=True)
    if request.query.get("create_pr") != "1":
        writer(request, repo.namespace)
    elif account(request) is None:
        raise Refused(failure(401, None, "Invalid username or password."))
    return repo


def create_repo(request: Request) -> Reply:
    asked = request.json()
    who = account(request)
    namespace = asked.get("organization") or (who or {"name": ""})["name"]
    writer(request, namespace)
    if asked.get("type", "model") != "model":
        raise Refused(failure(400, None, "the fake Hub holds models only"))
    repo_id = f"{namespace}/{asked['name']}"
    about = {"url": f"{request.hub.endpoint}/{repo_id}", "name": repo_id, "id": repo_id}
    with request.hub.lock:
        if repo_id in request.hub.repos:
            told = f"You already created this model repo: {repo_id}"
            return answer(about | {"error": told}, 409, **{"X-Error-Message": told})
        private = asked.get("private") is True or asked.get("visibility") == "private"
        repo = request.hub.repos[repo_id] = Repo(repo_id, private=private)
        repo.put(make_commit({".gitattributes": regular_blob(GITATTRIBUTES.encode())}, FIRST), "main")
    return answer(about)


def delete_repo(request: Request) -> Reply:
    asked = request.json()
    repo_id = f"{asked.get('organization') or (account(request) or {'name': ''})['name']}/{asked['name']}"
    writable(request, repo_id)
    del request.hub.repos[repo_id]
    return answer("OK")


def validate_yaml(request: Request) -> Reply:
    """The metadata at the head of a README."""
    import yaml

    text = request.json()["content"].replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return answer({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        card = yaml.safe_load(text.split("---\n")[1])
    except yaml.YAMLError as error:
        return answer({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if not isinstance(card, dict):
        return answer({"errors": [{"message": "metadata must be a mapping"}], "warnings": []}, 400)
    return answer({"errors": [], "warnings": []})


def preupload(request: Request, repo_id: str, revision: str) -> Reply:
    """Which files go to LFS, and what the repository has under their names."""
    commit = revision_of(writable(request, repo_id), revision)
    rows = []
    for file in request.json()["files"]:
        held = commit.files.get(file["path"])
        mode = "lfs" if is_lfs(file["path"], file["size"], request.hub.lfs_from) else "regular"
        row = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
        rows.append(row | ({"oid": held.etag} if held else {}))
    return answer({"files": rows})


def lfs_batch(request: Request, repo_id: str) -> Reply:
    """Where to put the objects that are not there yet."""
    repo, hub = writable(request, repo_id), request.hub
    asked = request.json()
    rows = []
    for wanted in asked["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        rows.append(row := {"oid": oid, "size": size, "authenticated": True})
        if oid in repo.lfs:
            continue
        href, header = f"{hub.cdn}/upload/{repo_id}/{oid}/{size}", {}
        if hub.part_size and size > hub.part_size and "multipart" in asked["transfers"]:
            parts = range(1, -(-size // hub.part_size) + 1)
            header = {"chunk_size": str(hub.part_size)} | {str(i): f"{href}/part-{i}" for i in parts}
            href = f"{hub.endpoint}/{repo_id}.git/info/lfs/objects/complete/{oid}/{size}"
        verify = f"{hub.endpoint}/{repo_id}.git/info/lfs/objects/verify"
        row["actions"] = {"upload": {"href": href, "header": header}, "verify": {"href": verify}}
    return answer({"transfer": "basic", "objects": rows}, **{"Content-Type": "application/vnd.git-lfs+json"})


def _place(request: Request, name: str) -> Path:
    folder = request.hub.root / "lfs"
    folder.mkdir(exist_ok=True)
    return folder / name


def _keep(request: Request, repo_id: str, held: Path, oid: str, size: int, digest: str) -> Reply:
    """Take a file that has arrived, if it is what was announced."""
    if digest != oid or held.stat().st_size != size:
        held.unlink()
        return failure(400, None, f"BadDigest: the bytes received are not those of {oid}")
    final = _place(request, oid)
    os.replace(held, final)
    request.hub.repos[repo_id].lfs[oid] = lfs_blob(final, size, oid)
    return Reply(200, {"ETag": f'"{oid[:32]}"'})


def upload(request: Request, repo_id: str, oid: str, size: str, part: str | None = None) -> Reply:
    """An object, or a part of one, written to disk as it comes."""
    arriving = _place(request, f"{uuid.uuid4().hex}.arriving")
    digest = hashlib.sha256()
    try:
        with open(arriving, "wb") as file:
            for data in request.body:
                file.write(data)
                digest.update(data)
    except BaseException:
        arriving.unlink()
        raise
    if part is None:
        return _keep(request, repo_id, arriving, oid, int(size), digest.hexdigest())
    os.replace(arriving, _place(request, f"{oid}.{part}"))
    return Reply(200, {"ETag": f'"{digest.hexdigest()[:32]}"'})


def complete(request: Request, repo_id: str, oid: str, size: str) -> Reply:
    """Put the pieces of an object together."""
    parts = [_place(request, f"{oid}.{part['partNumber']}") for part in request.json()["parts"]]
    if not all(part.exists() for part in parts):
        return failure(400, None, "InvalidPart: a part was not uploaded")
    whole = _place(request, f"{uuid.uuid4().hex}.arriving")
    with open(whole, "w+b") as file:
        for part in parts:
            _append(file, part)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _keep(request, repo_id, whole, oid, int(size), digest)


def _append(file: IO[bytes], part: Path) -> None:
    with open(part, "rb") as piece:
        while data := piece.read(1 << 20):
            file.write(data)
    part.unlink()


def verify(request: Request, repo_id: str) -> Reply:
    asked = request.json()
    blob = writable(request, repo_id).lfs.get(asked["oid"])
    if blob is None or blob.size != asked["size"]:
        return failure(404, "EntryNotFound", f"LFS object {asked['oid']} was not uploaded")
    return answer({})


def commit(request: Request, repo_id: str, revision: str) -> Reply:
    """A commit on a branch, from lines of JSON: a header, then one operation each."""
    repo = writable(request, repo_id)
    lines = [json.loads(line) for line in b"".join(request.body).splitlines() if line.strip()]
    header = lines[0]["value"]
    with request.hub.lock:
        head = revision_of(repo, revision)
        if header.get("parentCommit") and not head.sha.startswith(header["parentCommit"]):
            return failure(412, None, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines[1:]:
            _apply(repo, files, line["key"], line["value"])
        message = "\n\n".join(text for text in (header["summary"], header.get("description")) if text)
        made = make_commit(files, message, head.sha)
        url = f"{request.hub.endpoint}/{repo_id}"
        about = {"success": True, "commitOid": made.sha, "commitUrl": f"{url}/commit/{made.sha}"}
        if request.query.get("create_pr") == "1":
            number = 1 + sum(name.startswith("refs/pr/") for name in repo.branches)
            repo.put(made, f"refs/pr/{number}")
            about["pullRequestUrl"] = f"{url}/discussions/{number}"
        elif revision in repo.branches:
            repo.put(made, revision)
        else:
            return failure(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return answer(about | {"hookOutput": ""})


def _apply(repo: Repo, files: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key == "file":
        files[path] = regular_blob(base64.b64decode(value["content"], validate=True))
    elif key == "lfsFile":
        if value["oid"] not in repo.lfs:
            raise Refused(failure(400, None, f"LFS pointer of {path} points to an object that was not uploaded"))
        files[path] = repo.lfs[value["oid"]]
    elif key in ("deletedFile", "deletedFolder"):
        gone = [name for name in files if name == path or name.startswith(f"{path.rstrip('/')}/")]
        if not gone:
            raise Refused(failure(404, "EntryNotFound", f"{path} does not exist"))
        for name in gone:
            del files[name]
    else:
        raise Refused(failure(400, None, f"unknown operation {key}"))


def create_ref(request: Request, repo_id: str, kind: str, name: str) -> Reply:
    """A branch of that name, or a tag on that revision."""
    repo, asked = writable(request, repo_id), request.json()
    if kind == "branch":
        names, made, start = repo.branches, name, asked.get("startingPoint", "main")
    else:
        names, made, start = repo.tags, asked["tag"], name
    if made in names:
        return failure(409, None, f"Reference already exists: {made}")
    names[made] = revision_of(repo, start).sha
    return answer({})


def delete_ref(request: Request, repo_id: str, kind: str, name: str) -> Reply:
    repo = writable(request, repo_id)
    names = repo.branches if kind == "branch" else repo.tags
    if names.pop(name, None) is None:
        return failure(404, "RevisionNotFound", f"Invalid rev id: {name}")
    return answer({})


def paths_info(request: Request, repo_id: str, revision: str) -> Reply:
    repo = readable(request, repo_id)
    files = revision_of(repo, revision).files
    asked = parse_qs(b"".join(request.body).decode()).get("paths", [])
    return answer([entry(request.hub, repo, name, files[name]) for name in asked if name in files])


def commits(request: Request, repo_id: str, revision: str) -> Reply:
    repo = readable(request, repo_id)
    rows, sha = [], revision_of(repo, revision).sha
    while sha is not None:
        made = repo.commits[sha]
        title, _, message = made.message.partition("\n\n")
        row = {"id": sha, "title": title, "message": message, "authors": [], "date": "2025-03-12T00:00:00.000Z"}
        rows.append(row)
        sha = made.parent if made.parent in repo.commits else None
    return answer(rows)


_ID = r"([^/]+/[^/]+)"
ROUTES: list[tuple[str, str, str, Route]] = [
    ("hub", "POST", r"api/repos/create", create_repo),
    ("hub", "DELETE", r"api/repos/delete", delete_repo),
    ("hub", "POST", r"api/validate-yaml", validate_yaml),
    ("hub", "POST", rf"api/models/{_ID}/preupload/([^/]+)", preupload),
    ("hub", "POST", rf"api/models/{_ID}/commit/([^/]+)", commit),
    ("hub", "POST", rf"api/models/{_ID}/(branch|tag)/([^/]+)", create_ref),
    ("hub", "DELETE", rf"api/models/{_ID}/(branch|tag)/([^/]+)", delete_ref),
    ("hub", "POST", rf"api/models/{_ID}/paths-info/([^/]+)", paths_info),
    ("hub", "GET", rf"api/models/{_ID}/commits/([^/]+)", commits),
    ("hub", "POST", rf"{_ID}\.git/info/lfs/objects/batch", lfs_batch),
    ("hub", "POST", rf"{_ID}\.git/info/lfs/objects/verify", verify),
    ("hub", "POST", rf"{_ID}\.git/info/lfs/objects/complete/([0-9a-f]{{64}})/(\d+)", complete),
    ("cdn", "PUT", rf"upload/{_ID}/([0-9a-f]{{64}})/(\d+)(?:/part-(\d+))?", upload),
]
