"""`gemmaq convert --to gguf-lora`: an adapter alone, without its base model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemmaq.cli import console
from gemmaq.cli.console import Output
from gemmaq.cli.options import download_bar, listed_values
from gemmaq.errors import UsageError

NAME = "gguf-lora"
"""What `--to` calls it: no container of models, and written alone."""
UNUSED = (
    *("--method", "--recipe", "--embedding", "--tensor-type", "--like", "--fit", "--target-size", "--target-bpw"),
    *("--imatrix", "--text", "--refine", "--mmproj-file", "--draft", "--max-shard-size", "--portable", "--weights"),
)
"""Options that an adapter alone has no use for."""


def is_asked(to: Sequence[str] | None) -> bool:
    """Whether the user asks for an adapter alone.

    Raises:
        UsageError: A container is asked for, too.
    """
    names = [name.lower() for name in listed_values("--to", to)] if to else []
    if NAME in names and len(names) > 1:
        raise UsageError(f"--to {NAME} is written alone", "convert the adapter again for other containers")
    return NAME in names


def convert(
    source: str,
    base: str | None,
    quant: Sequence[str] | None,
    output: Path | None,
    *,
    others: Mapping[str, Any],
    force: bool,
    dry_run: bool,
    shown: Output,
) -> None:
    """Write an adapter as a GGUF file.

    Args:
        source: The adapter as the user typed it.
        base: Its base model, None for the one that its config names.
        quant: Type of the file.
        output: Folder to create.
        others: Options that an adapter alone has no use for, by their flags.
        force: Whether to replace an earlier artifact.
        dry_run: Whether to report only.
        shown: Where to report.

    Raises:
        UsageError: An option is given that has no use here, or another type than f32, f16 and bf16.
        GemmaqError: See `sources.open` and `convert.gguf_lora`.
    """
    from gemmaq.convert.gguf_lora import TYPES, lay_out, write
    from gemmaq.files.atomic import check_output
    from gemmaq.models.identity import identify
    from gemmaq.sources.companions import Wish
    from gemmaq.sources.open import open_with_weights

    started = time.monotonic()
    given = next((flag for flag, value in others.items() if value), None)
    if given is not None:
        raise UsageError(f"{given} is of no use with --to {NAME}", "leave it out")
    types = [kind.lower() for kind in listed_values("--quant", quant)] if quant else ["f32"]
    if len(types) != 1 or types[0] not in TYPES:
        raise UsageError(
            f"--quant {', '.join(types)}: an adapter alone is written in one type", f"known: {', '.join(TYPES)}"
        )
    wish = Wish(base=base, alone=True)
    checkpoint = open_with_weights(source, lambda files: download_bar(files, quiet=shown.silent), wish)
    adapted = lay_out(checkpoint, types[0])
    folder = output or Path(f"{identify(checkpoint.name).stem}-{types[0].upper()}-{NAME}")
    path = folder / adapted.name
    check_output(folder, adapted.size, inputs=checkpoint.files, force=force)
    if not dry_run:
        write(checkpoint, adapted, folder, force=force)
    seconds = time.monotonic() - started

    def document() -> dict[str, Any]:
        return {
            "source": {"name": checkpoint.name, "location": source, "format": "peft"},
            "path": str(path),
            "bytes": adapted.size,
            "pairs": len(adapted.pairs),
            "written": not dry_run,
        }

    def show() -> None:
        console.out(f"{path}  {console.size(adapted.size)} ({adapted.size:,} bytes)")
        console.say(f"{len(adapted.pairs)} pairs of matrices, {seconds:.1f} s; llama-server -m BASE.gguf --lora {path}")

    shown.emit(document, essential=lambda: [str(folder)], show=show, made=not dry_run)
