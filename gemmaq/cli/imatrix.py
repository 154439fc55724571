"""`gemmaq imatrix`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gemmaq.cli import calibration, console
from gemmaq.cli.console import Output
from gemmaq.cli.options import Device, Json, Threads, check_file, cores, opened, quiet_option
from gemmaq.models.samples import SAMPLE


def imatrix(
    *,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help=f"Folder, .gguf file, repository (org/name), or {SAMPLE.source}."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="File to write, such as imatrix.gguf.")
    ],
    text: calibration.Texts = None,
    calibration_tokens: calibration.Tokens = None,
    calibration_context: calibration.Context = None,
    device: Device = None,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check text and model; compute and write nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the file's path")] = False,
) -> None:
    """Compute an importance matrix from text.

    It says how large the inputs of every weight matrix are on that text. The file has llama.cpp's format, for
    `gemmaq convert --method importance --imatrix FILE` and for llama-quantize.
    """
    from gemmaq.calibration.complete import Resources, importance, sequences
    from gemmaq.calibration.imatrix import document
    from gemmaq.files.atomic import write_file

    settings = {"tokens": calibration_tokens, "context": calibration_context}
    basis = calibration.from_text(
        "imatrix", text, {name: value for name, value in settings.items() if value is not None}
    )
    assert basis.text is not None
    check_file(output, force)
    shown = Output("imatrix", as_json, quiet)
    checkpoint = opened(source, dry_run, shown.silent)
    tokens = sequences(checkpoint, basis.text, basis.calibration)
    names = basis.text.names
    report = {"path": str(output), "texts": list(names), "sequences": len(tokens), "tokens": tokens.size}
    if not dry_run:
        resources = Resources(device, threads or cores())
        with console.progress(None, shown.silent) as progress:
            matrix = importance(checkpoint, tokens, names, resources=resources, progress=progress)
        write_file(output, document(matrix), force)
        report |= {"matrices": len(matrix.entries), "bytes": output.stat().st_size}

    def show() -> None:
        console.out(str(output))
        work = f"{len(tokens)} sequences of {tokens.shape[1]} tokens from {', '.join(names)}"
        console.say(f"{work}; nothing was written (dry run)" if dry_run else work)

    shown.emit(lambda: report, essential=lambda: [str(output)], show=show)
