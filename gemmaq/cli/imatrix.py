"""`gemmaq imatrix`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gemmaq.cli import calibration, console


def imatrix(
    source: Annotated[str, typer.Argument(help="The model: a folder, .gguf file, repository, or sample:gemma-3-270m.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to make: imatrix.gguf.")],
    text: calibration.Texts = None,
    calibration_tokens: calibration.Tokens = None,
    calibration_context: calibration.Context = None,
    device: calibration.Device = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, envvar="GEMMAQ_THREADS", help="Workers.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier file.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read text and model, compute and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the file's path.")] = False,
) -> None:
    """Gather an importance matrix: how large the inputs of every matrix are on real text.

    The file is llama.cpp's, for `gemmaq convert --method importance --imatrix FILE` and for llama-quantize.
    """
    from gemmaq.calibration.complete import Resources, importance, sequences
    from gemmaq.calibration.imatrix import document
    from gemmaq.cli.options import cores, opened
    from gemmaq.errors import OutputError
    from gemmaq.files.atomic import write_file

    settings = {"tokens": calibration_tokens, "context": calibration_context}
    basis = calibration.from_text(
        "imatrix", text, {name: value for name, value in settings.items() if value is not None}
    )
    assert basis.text is not None
    if output.exists() and not force:
        raise OutputError(f"{output} exists", "choose another -o, or replace it with --force")
    if output.is_dir() or not output.absolute().parent.is_dir():  # here, for what follows takes its time
        raise OutputError(f"{output} cannot be written", "name a file in a folder that is there")
    silent = quiet or as_json
    checkpoint = opened(source, dry_run, silent)
    tokens = sequences(checkpoint, basis.text, basis.calibration)
    said = {
        "path": str(output), "texts": list(basis.text.names), "sequences": len(tokens), "tokens": tokens.size
    }  # fmt: skip
    if not dry_run:
        resources = Resources(device, threads or cores())
        with console.progress(None, silent) as progress:
            found = importance(checkpoint, tokens, basis.text.names, resources=resources, progress=progress)
        write_file(output, document(found), force)
        said |= {"matrices": len(found.entries), "bytes": output.stat().st_size}
    if as_json:
        console.emit_json("imatrix", said)
        return
    console.out(str(output))
    if not quiet:
        done = f"{len(tokens)} sequences of {tokens.shape[1]} tokens from {', '.join(basis.text.names)}"
        console.say(f"{done}; nothing was written (dry run)" if dry_run else done)
