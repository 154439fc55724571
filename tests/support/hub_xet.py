"""Xet on the fake Hub: tokens, reconstructions of files, and xorbs, as https://huggingface.co/docs/xet describes them.

A file is cut into chunks of one size, whatever its content, and each run of `CHUNKS` chunks is a xorb of its own.
Hashes are made up: the client takes them for names. Chunks are not compressed, and are sent from the file on disk.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hub_faults import Body, cut, piece, size_of
from hub_http import Reply, Request, answer, failure
from hub_store import Blob

if TYPE_CHECKING:
    from fake_hub import FakeHub

CHUNK = 1 << 16
"""Bytes of a chunk."""
CHUNKS = 64
"""Chunks of a xorb."""
TOKEN = "xet-made-up"
_HEADER = 8
_XORB = CHUNK * CHUNKS


def file_hash(blob: Blob) -> str:
    """The hash by which Xet knows a file."""
    return hashlib.sha256(f"file {blob.sha256}".encode()).hexdigest()


def _xorb_hash(blob: Blob, number: int) -> str:
    return hashlib.sha256(f"xorb {number} {blob.sha256}".encode()).hexdigest()


def headers(hub: FakeHub, repo_id: str, commit: str, blob: Blob) -> dict[str, str]:
    """What the answer about a file says of Xet."""
    where = f"{hub.endpoint}/api/models/{repo_id}/xet-read-token/{commit}"
    return {"X-Xet-Hash": file_hash(blob), "Link": f'<{where}>; rel="xet-auth"'}


def token(request: Request) -> Reply:
    """A token for the server of chunks, in headers and in the body."""
    hub, end = request.hub, int(time.time()) + 3600
    told = {"X-Xet-Cas-Url": hub.cdn, "X-Xet-Access-Token": TOKEN, "X-Xet-Token-Expiration": str(end)}
    return answer({"accessToken": TOKEN, "exp": end, "casUrl": hub.cdn}, **told)


def _find(hub: FakeHub, wanted: Callable[[Blob], bool]) -> tuple[str, Blob] | None:
    """File `repo/name` and blob."""
    for repo in hub.repos.values():
        for commit in repo.commits.values():
            for name, blob in commit.files.items():
                if blob.sha256 and wanted(blob):
                    return f"{repo.id}/{name}", blob
    return None


def reconstruction(request: Request, version: str, name: str) -> Reply:
    """Of which chunks of which xorbs a file, or the range of it that was asked for, consists."""
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        return failure(401, None, "Unauthorized")
    found = _find(request.hub, lambda blob: file_hash(blob) == name)
    if found is None:
        return failure(404, None, "File not found")
    blob = found[1]
    first, last = 0, blob.size - 1
    if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "")):
        first, last = int(asked[1]), min(int(asked[2] or last), last)
        if first > last:
            return failure(416, None, "Range not satisfiable")
    terms: list[dict[str, Any]] = []
    places: dict[str, dict[str, Any]] = {}
    for number in range(first // _XORB, last // _XORB + 1):
        base = number * _XORB
        start = max(first - base, 0) // CHUNK
        stop = min(last - base, _XORB - 1) // CHUNK + 1
        unpacked = min(base + stop * CHUNK, blob.size) - base - start * CHUNK
        hash_, chunks = _xorb_hash(blob, number), {"start": start, "end": stop}
        inside = {"start": start * (CHUNK + _HEADER), "end": start * CHUNK + unpacked + stop * _HEADER - 1}
        terms.append({"hash": hash_, "unpacked_length": unpacked, "range": chunks})
        url = f"{request.hub.cdn}/xorbs/{found[0]}/{blob.sha256}/{number}?Signature=made-up"
        places[hash_] = {"url": url, "chunks": chunks, "bytes": inside}
    about: dict[str, Any] = {"offset_into_first_range": first % CHUNK, "terms": terms}
    if version == "v2":
        about["xorbs"] = {
            key: [{"url": at["url"], "ranges": [{"chunks": at["chunks"], "bytes": at["bytes"]}]}]
            for key, at in places.items()
        }
    else:
        about["fetch_info"] = {
            key: [{"url": at["url"], "range": at["chunks"], "url_range": at["bytes"]}] for key, at in places.items()
        }
    return answer(about)


def xorb(request: Request, file: str, sha256: str, number: str) -> Reply:
    """A range of a xorb: chunks, each with its header."""
    found = _find(request.hub, lambda blob: blob.sha256 == sha256)
    asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
    if found is None or not asked or "Signature" not in request.query:
        return failure(403, None, "Access denied")
    blob, body = found[1], []
    base = int(number) * _XORB
    for at in range(base, min(base + _XORB, blob.size), CHUNK):
        size = min(CHUNK, blob.size - at)
        length = size.to_bytes(3, "little")
        body += [*piece(b"\0" + length + b"\0" + length, 0, _HEADER), *piece(blob.source, at, at + size)]
    total, first, last = size_of(body), int(asked[1]), int(asked[2])
    told = {"Content-Type": "application/octet-stream", "Content-Range": f"bytes {first}-{last}/{total}"}
    return Reply(206, told, _from(cut(body, last + 1), first), file)


def _from(body: Body, start: int) -> Body:
    """The body without its first bytes, which are whole pieces: ranges begin where chunks do."""
    at = 0
    for index, part in enumerate(body):
        if at >= start:
            return body[index:]
        at += part.size
    return []


def telemetry(request: Request) -> Reply:
    return answer({})


ROUTES = [
    ("hub", "GET", r"api/models/([^/]+/[^/]+)/xet-read-token/[^/]+", lambda request, repo_id: token(request)),
    ("cdn", "GET", r"(v[12])/reconstructions/([0-9a-f]{64})", reconstruction),
    ("cdn", "GET", r"xorbs/(.+)/([0-9a-f]{64})/(\d+)", xorb),
    ("cdn", "POST", r"v1/telemetry", telemetry),
]
