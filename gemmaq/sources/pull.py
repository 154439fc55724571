"""Fetching a model: what is needed and not yet there, several files at a time, whole or to be continued."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from gemmaq.errors import InputError, NetworkError, NotFoundError, OutputError
from gemmaq.hub import Listing, Ref, RemoteFile, cache, client, transfer
from gemmaq.sources import select

_AT_A_TIME = 4

Progress = Callable[[str, int, int], None]
"""A file's path, bytes there, bytes in all."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be fetched.

    Attributes:
        listed: the repository at its commit.
        files: of it.
        missing: those of them that are not in the cache.
    """

    listed: Listing
    files: tuple[RemoteFile, ...]
    missing: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def order(ref: Ref, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Order:
    """Find out what a conversion of a repository needs (or what the patterns choose); fetches an index if there is one.

    Raises:
        GemmaqError: the repository cannot be had, or has nothing that is needed.
    """
    listed = client.listing(ref)
    if include:
        files = select.filtered(listed.files, include, exclude)
    else:
        files = _needed(listed, exclude, lambda: _index(listed))
    if not files:
        raise NotFoundError(f"{ref} has no file that matches")
    root = client.cache_folder(ref.repo)
    missing = tuple(file for file in files if not cache.held(root, listed, file))
    return Order(listed, tuple(files), missing)


def _index(listed: Listing) -> Mapping[str, str]:
    """Tensor -> file, as the index of the repository has it."""
    from gemmaq.checkpoint.folder import weight_map

    index = next(file for file in listed.files if file.path == select.INDEX)
    root = client.cache_folder(listed.ref.repo)
    if cache.held(root, listed, index):
        return weight_map(cache.snapshot(root, listed.commit), complete=False)
    with tempfile.TemporaryDirectory(prefix="gemmaq-") as place:
        (Path(place) / select.INDEX).write_bytes(client.read(listed, index, 0, index.size))
        return weight_map(Path(place), complete=False)


def run(wanted: Order, progress: Progress) -> tuple[Path, int]:
    """Fetch into the cache; the snapshot's folder, and the bytes that came over the network.

    Raises:
        GemmaqError: see `transfer.fetch`; what was fetched is kept and continued by the next run.
    """
    listed = wanted.listed
    root = client.cache_folder(listed.ref.repo)
    missing = [file for file in wanted.missing if not cache.held(root, listed, file)]
    _check_space(root, sum(file.size - _begun(root, file) for file in missing))
    stop = threading.Event()
    sizes = {file.path: file.size for file in wanted.files}

    def one(file: RemoteFile) -> int:
        (root / "blobs").mkdir(parents=True, exist_ok=True)
        with _alone(listed.ref.repo, file, stop):
            target = cache.blob(root, file)
            if target.is_file() and target.stat().st_size != file.size:
                target.unlink()
            count = 0
            if not target.is_file():
                part = cache.adopt(root, file)
                count = transfer.fetch(listed, file, part, lambda path, have: progress(path, have, sizes[path]), stop)
                _check_header(file, part)
                part.replace(target)
            cache.link(root, listed, file)
        return count

    try:
        counts = _together(one, missing, stop)
        cache.remember(root, listed)
    except OSError as error:
        raise OutputError(f"{root} cannot be written: {error.strerror}", "HF_HOME says where the cache is") from error
    return cache.snapshot(root, listed.commit), sum(counts)


@contextmanager
def _alone(repo: str, file: RemoteFile, stop: threading.Event) -> Iterator[None]:
    """Hold the lock of a blob; another process may be at it for an hour, which must not keep this one from stopping."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(client.lock(repo, file.etag))
                break
            except TimeoutError:
                if stop.is_set():
                    raise transfer.Stopped from None
        yield


def _together(one: Callable[[RemoteFile], int], files: Sequence[RemoteFile], stop: threading.Event) -> list[int]:
    """All files, a few at a time; the first failure stops the others."""
    failure: BaseException | None = None
    counts = []
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        futures = [pool.submit(one, file) for file in sorted(files, key=lambda file: file.size)]
        try:
            for future in futures:
                try:
                    counts.append(future.result())
                except Exception as error:
                    stop.set()
                    if failure is None or isinstance(failure, transfer.Stopped):
                        failure = error
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if failure is not None:
        raise failure
    return counts


def _begun(root: Path, file: RemoteFile) -> int:
    path = cache.partial(root, file)
    return min(path.stat().st_size, file.size) if path.is_file() else 0


def _check_space(folder: Path, size: int) -> None:
    parent = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if size > free:
        raise OutputError(f"{parent} has {free:,} bytes free, {size:,} are needed", "HF_HOME says where the cache is")


def _check_header(file: RemoteFile, path: Path) -> None:
    """Read the header of a weight file that has just come; its digest is right, but it may still be nonsense.

    Raises:
        InputError: it is.
    """
    name = {".safetensors": "safetensors_header", ".gguf": "gguf_reader"}.get(Path(file.path).suffix.lower())
    if name is not None:
        from gemmaq.files.span import FileSpan

        try:
            import_module(f"gemmaq.files.{name}").parse(FileSpan.of(path))
        except InputError as error:
            raise InputError(error.message.replace(str(path), file.path), error.hint) from error


def cached(ref: Ref) -> Path:
    """The snapshot of a model that was fetched before.

    Raises:
        NetworkError: there is none.
    """
    folder = cache.recall(client.cache_folder(ref.repo), ref)
    if folder is None:
        raise NetworkError(
            f"{ref} is not cached, and the network is not to be used", f"gemmaq pull {ref} where there is a network"
        )
    return folder


def cached_order(ref: Ref, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Order:
    """The same as `order` of what is in the cache, nothing missing.

    Raises:
        NetworkError: it is not there, or not all of it.
    """
    from gemmaq.checkpoint.folder import weight_map

    folder = cached(ref)
    listed = listing_of(folder, ref)
    try:
        if include:
            files = select.filtered(listed.files, include, exclude)
        else:
            files = _needed(listed, exclude, lambda: weight_map(folder, complete=False))
            config = "config.json"
            if not (select.is_gguf(listed) or select.matches(config, exclude) or listed.find(config)):
                raise NotFoundError(f"{config} is missing")
        if not files:
            raise NotFoundError("no file matches")
    except NotFoundError as error:
        raise NetworkError(f"{ref} is not completely cached: {error.message}", f"gemmaq pull {ref}") from error
    return Order(listed, tuple(files), ())


def _needed(listed: Listing, exclude: Sequence[str], placed: Callable[[], Mapping[str, str]]) -> list[RemoteFile]:
    """What a conversion needs, but for what is excluded; `placed` gives the index, if there is one."""
    if select.is_gguf(listed):
        files = [*select.gguf(listed, exclude), *(file for file in select.small(listed) if file.path == "README.md")]
    else:
        shards = sorted(set(placed().values())) if listed.find(select.INDEX) else None
        files = [*select.small(listed), *select.weights(listed, shards, exclude)]
    return select.filtered(files, (), exclude)


def listing_of(snapshot: Path, ref: Ref) -> Listing:
    """What a snapshot in the cache holds."""
    paths = sorted(path for path in snapshot.rglob("*") if path.is_file())
    files = (
        RemoteFile(path.relative_to(snapshot).as_posix(), path.stat().st_size, None, Path(os.path.realpath(path)).name)
        for path in paths
    )
    return Listing(ref, snapshot.name, tuple(files))


def copy(snapshot: Path, wanted: Order, folder: Path) -> None:
    """Put what was fetched into a folder of real files, with the Hub's own record of where they came from.

    The repository's name is a fourth line of ours in it, which the Hub's tools pass over.

    Weights become hard links to the cache where the file system can; small files, which people edit, are copied.
    """
    for file in wanted.files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = os.path.realpath(snapshot / file.path)
        try:
            if file.sha256 is None:
                raise OSError
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
        record = folder / ".cache/huggingface/download" / f"{file.path}.metadata"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(f"{wanted.listed.commit}\n{file.etag}\n{time.time()}\n{wanted.listed.ref.repo}\n")
