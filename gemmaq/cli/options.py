"""Parts that several commands share: their common options, opening sources, counting workers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.errors import OutputError, UsageError

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.progress import ProgressCallback
    from gemmaq.sources.companions import Wish
    from gemmaq.sources.pull import Download


_NUMBER = re.compile(r"(\d+)(k?)", re.IGNORECASE)


def count(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` on, for options; `32k` is 32768."""

    def parse(text: str | int) -> int:
        match = _NUMBER.fullmatch(str(text))
        number = int(match[1]) * (1024 if match[2] else 1) if match else -1
        if number < least:
            raise typer.BadParameter(f"{text!r} is not a whole number from {least} on.")
        return number

    return parse


def counts(flag: str, values: Sequence[str] | None, least: int) -> list[int] | None:
    """Whole numbers of an option that can be repeated or have several values with commas between; None without any.

    Raises:
        UsageError: One is no whole number from `least` on.
    """
    try:
        return [count(least)(value) for value in listed_values(flag, values)] or None
    except typer.BadParameter as mistake:
        raise UsageError(f"{flag} {mistake.message.rstrip('.')}", "8192, 32k, or 8k,32k for example") from None


def number(least: float = 0.0, *, included: bool = False) -> Callable[[str], float]:
    """A parser of numbers above `least`, or from there on."""

    def parse(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (value > least or (included and value == least)) or math.isinf(value):
            range = f"from {least:g} on" if included else f"above {least:g}"
            raise typer.BadParameter(f"{text!r} is not a number {range}.")
        return value

    return parse


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def byte_count(flag: str, text: str) -> int:
    """The bytes of `2G`, `500MB` or `4GiB`.

    Raises:
        UsageError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if size < 1:
        raise UsageError(f"{flag} {text!r} is not a size", "write 2G, 500M or 4GiB")
    return size


def listed_values(flag: str, values: Sequence[str] | None) -> list[str]:
    """The values of an option that can be repeated or have several values with commas between.

    Raises:
        UsageError: one is empty.
    """
    parts = [part.strip() for value in values or () for part in value.split(",")]
    if not all(parts):
        raise UsageError(f"{flag} {', '.join(values or ())!r} has an empty value", "write values with commas between")
    return parts


def quiet_option(value: str) -> Any:
    """The option `-q` of a command whose essential value is `value`."""
    return typer.Option("-q", "--quiet", help=f"Print only {value}.")


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        envvar="GEMMAQ_DEVICE",
        help="Device to compute on: cpu, cuda, cuda:1 or mps. Default: the best there is.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        parser=count(1),
        envvar="GEMMAQ_THREADS",
        help="Number of worker threads. Default: one for each core.",
    ),
]


_FILES = (".gguf", ".safetensors", ".json", ".bin", ".mlx")


def new_folder(text: str | Path) -> Path:
    """The folder that an option names.

    Raises:
        BadParameter: It is called like a file.
    """
    path = Path(text)
    if path.suffix.lower() in _FILES:
        raise typer.BadParameter(
            f"{path.name!r} names a file, and a folder is made: try {path.with_suffix('').name!r}."
        )
    return path


def check_new(folder: Path | None, force: bool) -> None:
    """Refuse a folder that exists, before anything is opened or downloaded; None is one with a name yet to be found.

    Raises:
        OutputError: It exists and is not to be replaced.
    """
    if folder is not None and os.path.lexists(folder) and not force:
        raise OutputError("exists", "choose another -o, or replace it with --force", path=folder)


def check_file(path: Path, force: bool) -> None:
    """Refuse a file that could not be written, before any work.

    Raises:
        OutputError: It exists and is not to be replaced, is a folder, or has no folder.
    """
    if path.is_dir():
        raise OutputError("cannot be written: it is a folder", "name a file in it", path=path)
    if os.path.lexists(path) and not force:
        raise OutputError("exists", "choose another name, or replace it with --force", path=path)
    if not path.absolute().parent.is_dir():
        raise OutputError("cannot be written: its folder does not exist", "make the folder first", path=path)


MmprojFile = Annotated[
    Path | None,
    typer.Option(
        "--mmproj-file",
        metavar="FILE",
        help="For a GGUF source: mmproj file to read images and sound from, a local one or one of the repository. "
        "Default: the one beside the model that belongs to it.",
    ),
]


WeightFile = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="For a SOURCE with config.json that holds more than one set of weights: the file to read, which may be an "
        "index, a whole file or one of several shards. Default: the index with its shards, if a whole file beside it "
        "holds the same numbers; else an error asks for this option.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="SOURCE",
        help="For an adapter: the base model that it is merged into. Default: the one that its config names.",
    ),
]


def opened(
    source: str,
    dry_run: bool,
    quiet: bool,
    wish: Wish | None = None,
    *,
    weights: str | None = None,
    base: str | None = None,
) -> Checkpoint:
    """Open a source; a repository is downloaded first, or for a dry run only the headers of its files are.

    `wish` is what the user wants of the files of a source; by default those beside a GGUF model may leave a choice.
    `weights` is the weight file that the user chose of a folder, `base` the base model of an adapter.
    """
    from gemmaq import jit
    from gemmaq.sources.companions import Wish
    from gemmaq.sources.open import open_source, open_with_weights

    here = os.path.exists(os.path.expanduser(source)) or "/" not in source
    jit.watch(console.waiting.compiling)
    console.waiting.doing(f"reading {source}" if here else f"asking the Hub for {source}")
    wish = wish or Wish()
    wish = wish if weights is None else replace(wish, weights=weights)
    wish = wish if base is None else replace(wish, base=base)
    if dry_run:
        return open_source(source, wish, tokenizer=True)
    return open_with_weights(source, lambda files: download_bar(files, quiet=quiet), wish)


def drafted(checkpoint: Checkpoint, draft: str | None, *, dry_run: bool, quiet: bool) -> Checkpoint:
    """A model with the drafter that the user named; as it is for None or `none`.

    Raises:
        InputError: The drafter does not belong to the model.
    """
    from gemmaq.checkpoint.drafters import with_drafter

    if draft is None or draft.lower() == "none":
        return checkpoint
    return with_drafter(checkpoint, opened(draft, dry_run, quiet))


def download_bar(files: Download, *, quiet: bool) -> AbstractContextManager[ProgressCallback]:
    """Show the progress of a download."""
    what = f"{len(files.files)} files, {console.size(files.size)}"
    what += f", {console.size(files.missing_size)} to download" if files.missing else ", all cached"
    listing = files.listing
    return console.progress(f"{listing.ref} at {listing.commit[:12]}: {what}", quiet, files.missing_size)


def cores() -> int:
    """Processors this process may use; of several that torchrun started here, each takes its part."""
    from gemmaq.inference.peers import here

    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, count // here())


def every_gguf(sources: Sequence[str]) -> list[str]:
    """The sources, with each model in place of a folder that holds GGUF models in several types."""
    from gemmaq.files.names import is_first, models_among

    found = []
    for source in sources:
        folder = Path(source)
        files = sorted(path.name for path in folder.glob("*.gguf") if is_first(path.name)) if folder.is_dir() else []
        models = models_among(files)
        found += [str(folder / name) for name in models] if len(models) > 1 else [source]
    return found
