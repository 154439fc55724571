"""Downloads a model from the Hub into the cache: the files that a conversion needs, several at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from gemmaq.errors import InputError, NetworkError, NotFoundError, OutputError
from gemmaq.files.replacing import DOWNLOADS
from gemmaq.files.span import FileSpan
from gemmaq.hub import Listing, Ref, RemoteFile, cache, client, transfer
from gemmaq.progress import ProgressCallback
from gemmaq.sources import gguf_repository, headers, listed_weights, select
from gemmaq.sources.companions import Wish, refuse
from gemmaq.sources.listed_weights import ListedShelf

_PARALLEL = 4
"""Files that are downloaded at the same time."""
_PARSERS = {
    ".safetensors": "gemmaq.files.safetensors_header",
    ".gguf": "gemmaq.files.gguf_reader",
    ".bin": "gemmaq.files.torch_file",
}
"""Ending of a weight file -> module whose `parse` reads its header."""


@dataclass(frozen=True, slots=True)
class Download:
    """The files of a repository that a conversion needs.

    Attributes:
        listing: The repository at one commit.
        files: Files to have in the cache.
        missing: Files that are not there yet.
        notes: A sentence for each file beside a GGUF model: taken, or passed over and why.
    """

    listing: Listing
    files: tuple[RemoteFile, ...]
    missing: tuple[RemoteFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing_size(self) -> int:
        """Bytes of the missing files."""
        return sum(file.size for file in self.missing)


def fetch(ref: Ref, show: Callable[[Download], AbstractContextManager[ProgressCallback]], wish: Wish) -> Path:
    """Download a model into the cache, unless it is there already.

    Args:
        ref: The repository.
        wish: What the user wants of the files beside a GGUF model.
        show: Called once it is known what to download; gives the callback for progress.

    Returns:
        Folder of the snapshot.

    Raises:
        GemmaqError: See `plan` and `download`.
    """
    files = plan(ref, wish)
    with show(files) as progress:
        return download(files, progress)[0]


def plan(ref: Ref, wish: Wish, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Download:
    """Find out which files to download: those that a conversion needs, or those that match the patterns.

    Offline, see `plan_cached`.

    Raises:
        NetworkError: The Hub cannot be reached.
        AuthError: The repository is gated or private.
        NotFoundError: There is no such repository, or no file that matches.
        InputError: The repository holds several GGUF models and none is named.
    """
    if client.is_offline():
        return plan_cached(ref, wish, include=include, exclude=exclude)
    listing = client.listing(ref)
    notes: tuple[str, ...] = ()
    if include:
        files = select.filtered(listing.files, include, exclude)
    elif select.is_gguf(listing):
        with tempfile.TemporaryDirectory(prefix="gemmaq-") as temporary:
            files, notes = gguf_repository.needed(listing, exclude, headers.opener(listing, Path(temporary)), wish)
    else:
        refuse(wish, ref)
        with tempfile.TemporaryDirectory(prefix="gemmaq-") as temporary:
            files, notes = _needed(listed_weights.online(listing, Path(temporary), exclude), wish)
    if not files:
        raise NotFoundError("has no file that matches", path=ref)
    root = client.cache_folder(ref.repo)
    missing = tuple(file for file in files if not cache.held(root, listing, file))
    return Download(listing, tuple(files), missing, notes)


def plan_cached(ref: Ref, wish: Wish, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Download:
    """Find the files in the cache that a conversion needs, or those that match the patterns; nothing is missing.

    Raises:
        NetworkError: The cache lacks the snapshot, or a file of it.
    """
    folder = cached(ref)
    listing = cache.listing(folder, ref)
    notes: tuple[str, ...] = ()
    try:
        if include:
            files = select.filtered(listing.files, include, exclude)
        elif select.is_gguf(listing):
            files, notes = gguf_repository.needed(listing, exclude, lambda file: FileSpan.of(folder / file.path), wish)
        else:
            refuse(wish, ref)
            files, notes = _needed(listed_weights.cached(listing, folder, exclude), wish)
            config = select.ADAPTER if select.is_adapter(listing) else "config.json"
            if not (select.matches(config, exclude) or listing.find(config)):
                raise NotFoundError(f"{config} is missing")
        if not files:
            raise NotFoundError("no file matches")
    except NotFoundError as error:
        raise NetworkError(f"is not completely cached: {error.message}", f"gemmaq pull {ref}", path=ref) from error
    return Download(listing, tuple(files), (), notes)


def _needed(shelf: ListedShelf, wish: Wish) -> tuple[list[RemoteFile], tuple[str, ...]]:
    """Files of a folder that a conversion needs, less excluded ones, and notes on their choice."""
    if select.is_adapter(shelf.listing):
        found = [*select.small(shelf.listing), *select.adapter_weights(shelf.listing)]
        return select.filtered(found, (), shelf.exclude), ()
    choice = listed_weights.chosen(shelf, wish.weights)
    found = [*select.small(shelf.listing), *listed_weights.files(shelf, choice)]
    return select.filtered(found, (), shelf.exclude), choice.notes


def cached(ref: Ref) -> Path:
    """Folder of a snapshot in the cache.

    Raises:
        NetworkError: The cache has none.
    """
    folder = cache.recall(client.cache_folder(ref.repo), ref)
    if folder is None:
        raise NetworkError("is not cached, and gemmaq is offline", f"gemmaq pull {ref} while online", path=ref)
    return folder


def download(files: Download, progress: ProgressCallback) -> tuple[Path, int]:
    """Download the missing files into the cache.

    What an interrupted run has downloaded stays in the cache, and the next run continues it.

    Returns:
        Folder of the snapshot, and bytes received over the network.

    Raises:
        GemmaqError: See `transfer.fetch`.
        OutputError: The cache has no space or is not writable.
    """
    listing = files.listing
    root = client.cache_folder(listing.ref.repo)
    missing = [file for file in files.missing if not cache.held(root, listing, file)]
    _check_space(root, sum(file.size - _present(root, file) for file in missing))
    stop = threading.Event()
    try:
        counts = _in_parallel(lambda file: _download_file(listing, file, progress, stop=stop), missing, stop)
        cache.remember(root, listing)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror}", "HF_HOME says where the cache is", path=root
        ) from error
    return cache.snapshot(root, listing.commit), sum(counts)


def _download_file(listing: Listing, file: RemoteFile, progress: ProgressCallback, *, stop: threading.Event) -> int:
    """Download one file, check it and link it into the snapshot; bytes received."""
    root = client.cache_folder(listing.ref.repo)
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    with _locked(listing.ref.repo, file, stop):
        target = cache.blob(root, file)
        if target.is_file() and target.stat().st_size != file.size:
            target.unlink()
        received = 0
        if not target.is_file():
            partial = cache.adopt(root, file)
            received = transfer.fetch(listing, file, partial, progress=progress, stop=stop)
            _check_header(file, partial)
            partial.replace(target)
        cache.link(root, listing, file)
    return received


@contextmanager
def _locked(repo: str, file: RemoteFile, stop: threading.Event) -> Iterator[None]:
    """Hold the lock of a blob; waiting for another process, which may take an hour, ends when `stop` is set."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(client.lock(repo, file.etag))
                break
            except TimeoutError:
                if stop.is_set():
                    raise transfer.Stopped from None
        yield


def _in_parallel(work: Callable[[RemoteFile], int], files: Sequence[RemoteFile], stop: threading.Event) -> list[int]:
    """Do the work for all files, a few at a time; the first failure stops the others."""
    failure: BaseException | None = None
    counts = []
    with ThreadPoolExecutor(_PARALLEL) as pool:
        futures = [pool.submit(work, file) for file in sorted(files, key=lambda file: file.size)]
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


def _present(root: Path, file: RemoteFile) -> int:
    """Bytes of a file that an earlier run has downloaded."""
    path = cache.partial(root, file)
    return min(path.stat().st_size, file.size) if path.is_file() else 0


def _check_space(folder: Path, size: int) -> None:
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if size > free:
        raise OutputError(
            f"has {free:,} bytes free, {size:,} are needed", "HF_HOME says where the cache is", path=parent
        )


def _check_header(file: RemoteFile, path: Path) -> None:
    """Read the header of a downloaded weight file: even a file with the right digest may be nonsense.

    Raises:
        InputError: It is.
    """
    module = _PARSERS.get(Path(file.path).suffix.lower())
    if module is not None:
        try:
            import_module(module).parse(FileSpan.of(path))
        except InputError as error:
            raise error.at(path=file.path) from error


def copy(snapshot: Path, files: Download, folder: Path) -> None:
    """Copy downloaded files into a folder, with the record of their origin that the Hub's own tools keep there.

    The record has a fourth line of ours, the name of the repository, which those tools ignore. Weights become hard
    links to the cache where the file system can; small files, which people edit, are copied.
    """
    for file in files.files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = os.path.realpath(snapshot / file.path)
        try:
            if file.sha256 is None:
                raise OSError
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)
        record = folder / DOWNLOADS / f"{file.path}.metadata"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(f"{files.listing.commit}\n{file.etag}\n{time.time()}\n{files.listing.ref.repo}\n")
