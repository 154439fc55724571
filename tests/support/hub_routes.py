"""What the fake Hub answers: the routes that huggingface_hub asks for when it reads."""

from __future__ import annotations

import gzip
import re
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import hub_xet
from hub_faults import piece
from hub_http import Reply, Request, answer, content, failure
from hub_store import Blob, Commit, Repo

if TYPE_CHECKING:
    from fake_hub import FakeHub

LISTING_PAGE = 1000


class Refused(Exception):
    """A request that ends here, with this answer."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


def account(request: Request) -> dict[str, Any] | None:
    """Whose token it is; None without one. A token that nobody has is refused whatever is asked for."""
    token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
    if not token:
        return None
    if token not in request.hub.tokens:
        raise Refused(failure(401, None, "Invalid credentials in Authorization header"))
    return request.hub.tokens[token]


def namespaces(who: dict[str, Any] | None) -> list[str]:
    return [who["name"], *who.get("orgs", ())] if who else []


def readable(request: Request, repo_id: str, files: bool = False) -> Repo:
    """The repository, where the one who asks may see it (or, with `files`, read its files)."""
    who = account(request)
    repo = request.hub.repos.get(repo_id)
    owner = repo is not None and repo.namespace in namespaces(who)
    if repo is None or (repo.private and not owner):
        if who is None:
            raise Refused(failure(401, "RepoNotFound", "Invalid username or password."))
        raise Refused(failure(404, "RepoNotFound", "Repository not found"))
    opened = who.get("gated", ()) if who else ()
    granted = owner or opened is True or (opened and repo_id in opened)
    if repo.gated and (files or repo.gated == "all") and not granted:
        restricted = f"Access to model {repo_id} is restricted"
        if who is None:
            how = "You must have access to it and be authenticated to access it. Please log in."
            raise Refused(failure(401, "GatedRepo", f"{restricted}. {how}"))
        how = f"and you are not in the authorized list. Visit {request.hub.endpoint}/{repo_id} to ask for access."
        raise Refused(failure(403, "GatedRepo", f"{restricted} {how}"))
    return repo


def revision_of(repo: Repo, revision: str) -> Commit:
    commit = repo.find(revision)
    if commit is None:
        raise Refused(failure(404, "RevisionNotFound", f"Invalid rev id: {revision}"))
    return commit


def model_info(request: Request, repo_id: str, revision: str = "main") -> Reply:
    repo = readable(request, repo_id)
    commit = revision_of(repo, revision)
    siblings: list[dict[str, Any]] = [{"rfilename": name} for name in commit.files]
    if request.query.get("blobs", "").lower() == "true":
        for sibling in siblings:
            blob = commit.files[sibling["rfilename"]]
            size = request.hub.faults.size(f"{repo_id}/{sibling['rfilename']}", blob.size)
            sibling |= {"size": size, "blobId": blob.oid} | ({"lfs": blob.lfs(size)} if blob.sha256 else {})
    info = {"_id": commit.sha[:24], "id": repo_id, "modelId": repo_id, "author": repo.namespace, "sha": commit.sha}
    info |= {"private": repo.private, "gated": "manual" if repo.gated else False, "disabled": False}
    info |= {"downloads": 0, "likes": 0, "tags": [], "siblings": siblings}
    info |= {"lastModified": "2025-03-12T00:00:00.000Z", "createdAt": "2025-03-01T00:00:00.000Z"}
    return answer(info)


def entry(hub: FakeHub, repo: Repo, name: str, blob: Blob) -> dict[str, Any]:
    size = hub.faults.size(f"{repo.id}/{name}", blob.size)
    lfs = {"lfs": blob.lfs(size)} if blob.sha256 else {}
    return {"type": "file", "oid": blob.oid, "size": size, "path": name} | lfs


def tree(request: Request, repo_id: str, revision: str, folder: str = "") -> Reply:
    repo = readable(request, repo_id)
    commit = revision_of(repo, revision)
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    inside = {name: blob for name, blob in commit.files.items() if name.startswith(prefix)}
    if prefix and not inside:
        raise Refused(failure(404, "EntryNotFound", f"{folder} does not exist on {revision}"))
    recursive = request.query.get("recursive", "").lower() in ("true", "1")
    rows, folders = [], set()
    for name, blob in inside.items():
        steps = name[len(prefix) :].split("/")[:-1]
        folders |= {prefix + "/".join(steps[: i + 1]) for i in range(len(steps) if recursive else min(len(steps), 1))}
        if recursive or not steps:
            rows.append(entry(request.hub, repo, name, blob))
    rows += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders]
    rows.sort(key=lambda row: row["path"])
    first = int(request.query.get("cursor", 0))
    reply = answer(rows[first : first + LISTING_PAGE])
    if len(rows) > first + LISTING_PAGE:
        path = f"{request.hub.endpoint}{request.path}?recursive={recursive}&cursor={first + LISTING_PAGE}"
        reply.headers["Link"] = f'<{path}>; rel="next"'
    return reply


def resolve(request: Request, repo_id: str, revision: str, name: str) -> Reply:
    """A small file itself; of an LFS file where the CDN has it."""
    hub = request.hub
    repo = readable(request, repo_id, files=True)
    commit = revision_of(repo, revision)
    blob = commit.files.get(name)
    if blob is None:
        raise Refused(failure(404, "EntryNotFound", "Entry not found"))
    size = hub.faults.size(f"{repo_id}/{name}", blob.size)
    headers = {"X-Repo-Commit": commit.sha, "X-Linked-Size": str(size), "X-Linked-Etag": f'"{blob.etag}"'}
    if blob.sha256 and hub.xet:
        headers |= hub_xet.headers(hub, repo_id, commit.sha, blob)
    if blob.sha256 is None and hub.resolve_cache:
        return Reply(307, headers | {"Location": f"/api/resolve-cache/models/{repo_id}/{commit.sha}/{quote(name)}"})
    if blob.sha256 is None:
        return small_file(request, repo_id, commit.sha, name)
    headers["Location"] = f"{hub.cdn}/{repo_id}/{blob.sha256}/{quote(name)}?Expires=1893456000&Signature=made-up"
    text = f"Found. Redirecting to {headers['Location']}".encode()
    return Reply(302, headers, piece(text, 0, len(text)))


def small_file(request: Request, repo_id: str, revision: str, name: str) -> Reply:
    """The bytes of a file kept in git, compressed where that is wanted."""
    commit = revision_of(readable(request, repo_id, files=True), revision)
    blob = commit.files[name]
    reply = content(request, blob.source, blob.size, blob.oid, {"X-Repo-Commit": commit.sha})
    if request.hub.gzip and "gzip" in request.headers.get("Accept-Encoding", ""):
        data = gzip.compress(blob.read(), mtime=0)
        data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
        coded = {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked", "ETag": f'W/"{blob.oid}"'}
        reply = Reply(200, reply.headers | coded, piece(data, 0, len(data)))
    reply.file = f"{repo_id}/{name}"
    return reply


def cdn(request: Request, repo_id: str, sha256: str, name: str) -> Reply:
    """The bytes of an LFS file, to whom has the signed address; a second credential is refused, as S3 does."""
    if request.headers.get("Authorization"):
        return failure(400, None, "Only one auth mechanism allowed")
    repo = request.hub.repos.get(repo_id)
    blob = repo.lfs.get(sha256) if repo else None
    if blob is None or "Signature" not in request.query:
        return failure(403, None, "Access denied")
    reply = content(request, blob.source, blob.size, sha256, {})
    reply.file = f"{repo_id}/{name}"
    return reply


def auth_check(request: Request, repo_id: str) -> Reply:
    readable(request, repo_id, files=True)
    return answer({})


def whoami(request: Request) -> Reply:
    who = account(request)
    if who is None:
        raise Refused(failure(401, None, "Invalid username or password."))
    token = {"displayName": "test", "role": who.get("role", "read"), "createdAt": "2025-03-01T00:00:00.000Z"}
    orgs = [{"type": "org", "id": name, "name": name, "roleInOrg": "write"} for name in who.get("orgs", ())]
    about = {"type": "user", "id": who["name"], "name": who["name"], "fullname": who["name"], "isPro": False}
    return answer(about | {"orgs": orgs, "auth": {"type": "access_token", "accessToken": token}})


def refs(request: Request, repo_id: str) -> Reply:
    repo = readable(request, repo_id)
    heads = [{"name": k, "ref": f"refs/heads/{k}", "targetCommit": v} for k, v in repo.branches.items()]
    tags = [{"name": k, "ref": f"refs/tags/{k}", "targetCommit": v} for k, v in repo.tags.items()]
    return answer({"branches": heads, "tags": tags, "converts": [], "pullRequests": []})


def missing(request: Request) -> Reply:
    return failure(404, None, "Not found")


Route = Callable[..., Reply]
ROUTES: list[tuple[str, str, str, Route]] = [
    ("hub", "GET HEAD", r"api/models/([^/]+/[^/]+)", model_info),
    ("hub", "GET HEAD", r"api/models/([^/]+/[^/]+)/revision/([^/]+)", model_info),
    ("hub", "GET", r"api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", tree),
    ("hub", "GET", r"api/models/([^/]+/[^/]+)/refs", refs),
    ("hub", "GET", r"api/models/([^/]+/[^/]+)/auth-check", auth_check),
    ("hub", "GET HEAD", r"([^/]+/[^/]+)/resolve/([^/]+)/(.+)", resolve),
    ("hub", "GET HEAD", r"api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)", small_file),
    ("hub", "GET", r"api/whoami-v2", whoami),
    ("hub", "GET", r"api/agent-harnesses", missing),
    ("cdn", "GET HEAD", r"([^/]+/[^/]+)/([0-9a-f]{64})/(.+)", cdn),
]
"""Host, methods, path (matched before it is unquoted, so that a quoted slash is no separator), and who answers."""


def route(request: Request, routes: list[tuple[str, str, str, Route]]) -> Reply:
    """The answer to a request; one that no route knows is told on stderr."""
    path = request.path.strip("/")
    for host, methods, pattern, handler in routes:
        if host != request.host or request.method not in methods.split():
            continue
        if found := re.fullmatch(pattern, path):
            try:
                return handler(request, *(unquote(group) for group in found.groups() if group is not None))
            except Refused as refused:
                return refused.reply
            except ConnectionError:
                raise
            except Exception as error:
                request.hub.unknown.append(f"{request.method} {request.target}: {error!r}")
                traceback.print_exc()
                return failure(500, None, f"The fake Hub is wrong: {error!r}")
    request.hub.unknown.append(f"{request.method} {request.host} {request.target}")
    print(f"fake hub: no such route: {request.hub.unknown[-1]}", file=sys.stderr)
    return failure(404, None, "Sorry, we can't find the page you are looking for.")
