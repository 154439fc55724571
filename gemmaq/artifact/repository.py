"""A repository that already holds something: what is there is read, so that a push adds to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gemmaq.artifact import provenance
from gemmaq.artifact.provenance import Provenance
from gemmaq.errors import GemmaqError, InputError
from gemmaq.files import sums
from gemmaq.files.malformed import parse_json
from gemmaq.hub import Listing, RemoteFile, client

_SMALL = 1 << 26
"""Bytes of a file that is read whole: lists, records and cards are smaller."""


@dataclass(frozen=True, slots=True)
class Repository:
    """The files of a repository at one commit, below a folder of it.

    Attributes:
        listing: all of its files.
        prefix: the folder with a slash at its end; empty for the repository as a whole.
    """

    listing: Listing
    prefix: str = ""

    @property
    def files(self) -> dict[str, RemoteFile]:
        """Path below the folder -> file."""
        start = len(self.prefix)
        return {file.path[start:]: file for file in self.listing.files if file.path.startswith(self.prefix)}

    def read(self, path: str) -> bytes | None:
        """Content of a small file, None if there is none.

        Raises:
            InputError: it is too large.
            GemmaqError: the Hub cannot be asked.
        """
        file = self.files.get(path)
        if file is None:
            return None
        if file.size > _SMALL:
            raise InputError(f"has {file.size:,} bytes, which is too many for such a file", path=self._place(path))
        return client.read(self.listing, file, start=0, end=file.size) if file.size else b""

    def records(self, prefix: str) -> tuple[Provenance, ...]:
        """The models that the gemmaq.json in a folder tells of; none if there is no such file.

        Raises:
            InputError: the file was not written by gemmaq.
        """
        data = self.read(prefix + provenance.NAME)
        if data is None:
            return ()
        place = self._place(prefix + provenance.NAME)
        try:
            value: Any = parse_json(data)
        except ValueError as error:
            raise InputError("is not JSON", path=place) from error
        if not isinstance(value, dict):
            raise InputError("is not what gemmaq writes", path=place)
        return provenance.parse(value, place)

    def digests(self, paths: Mapping[str, object]) -> dict[str, str]:
        """SHA-256 of files: from the Hub or the repository's own list if it is there, else of their bytes."""
        found, files = {}, self.files
        listed = self._listed()
        for path in paths:
            digest = files[path].sha256 or listed.get(path)
            found[path] = digest or hashlib.sha256(self.read(path) or b"").hexdigest()
        return found

    def _listed(self) -> Mapping[str, str]:
        data = self.read(sums.NAME)
        try:
            return sums.parse(data, sums.NAME) if data is not None else {}
        except GemmaqError:
            return {}  # a list in a form of somebody else's is written anew

    def _place(self, path: str) -> str:
        return f"{self.listing.ref}/{self.prefix}{path}"
