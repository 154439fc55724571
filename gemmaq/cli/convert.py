"""`gemmaq convert`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import budget, budgeted, calibration, choices, console, lora, ranks
from gemmaq.cli.console import Output
from gemmaq.cli.options import (
    Base,
    Device,
    Json,
    MmprojFile,
    Threads,
    WeightFile,
    byte_count,
    check_new,
    cores,
    drafted,
    new_folder,
    opened,
    quiet_option,
)
from gemmaq.cli.views import convert as views
from gemmaq.encodings import ENCODINGS, listed
from gemmaq.errors import UsageError, unknown
from gemmaq.methods import AUTO, METHODS
from gemmaq.models.samples import SAMPLE
from gemmaq.planning.containers import CONTAINERS
from gemmaq.planning.mixtures import MIXTURES

if TYPE_CHECKING:
    pass

_SCALES = ("bf16", "f16")
_IN_GGUF = " ".join(name for name, encoding in ENCODINGS.items() if encoding.ggml_type is not None)
_IN_FOLDERS = {name: encoding for name, encoding in ENCODINGS.items() if encoding.ggml_type is None}
_IN_MLX = " ".join(listed(name for name, encoding in _IN_FOLDERS.items() if encoding.mlx))
_IN_SAFETENSORS = " ".join(listed(name for name, encoding in _IN_FOLDERS.items() if encoding.compressed_tensors))
_MIXTURES = " ".join(name for name, m in MIXTURES.items() if name not in ENCODINGS and m.file_type is not None)
_MLX_MIXTURES = " ".join(listed(name for name, mixture in MIXTURES.items() if mixture.file_type is None))
_METHODS = "; ".join(f"{name}: {method.title}" for name, method in METHODS.items())


def convert(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder (Hugging Face, MLX, AWQ and others, or a LoRA adapter of PEFT), a .gguf file, a "
            f"repository org/name, or {SAMPLE.source}.",
        ),
    ],
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="CONTAINER",
            help=f"Container, or several with commas between or the option repeated: {' '.join(CONTAINERS)}. "
            f"{lora.NAME}: a LoRA adapter alone, as llama.cpp reads it. Default: gguf.",
        ),
    ] = None,
    quant: Annotated[
        list[str] | None,
        typer.Option(
            "--quant",
            metavar="TYPE",
            envvar="GEMMAQ_QUANT",
            help="Type of the layers' matrices. Several, with commas between or the option repeated, make a model in "
            f"each. For gguf: {_IN_GGUF}, and the mixtures of llama.cpp: {_MIXTURES}. For mlx also: {_IN_MLX}, and the "
            f"mixtures of mlx_lm: {_MLX_MIXTURES}. For safetensors also: {_IN_SAFETENSORS}. auto: the types of a "
            "quantized source. Not every container holds every type. Default: q4_0.",
        ),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            "--embedding",
            metavar="TYPE",
            envvar="GEMMAQ_EMBEDDING",
            help="Type of the embedding. Default, if the layers are quantized: q6_k or q8_0 in gguf, q8_0 in mlx, bf16 "
            "in safetensors; in gguf and mlx the layers' type, if the embedding was trained for it too.",
        ),
    ] = None,
    ple_type: Annotated[
        str | None,
        typer.Option(
            "--ple-type",
            metavar="TYPE",
            envvar="GEMMAQ_PLE_TYPE",
            help="Type of the per-layer embeddings, for models that have them. Default: that of the embedding.",
        ),
    ] = None,
    ple_proj_type: Annotated[
        str | None,
        typer.Option(
            "--ple-proj-type",
            metavar="TYPE",
            envvar="GEMMAQ_PLE_PROJ_TYPE",
            help="Type of the matrix that makes per-layer inputs, for models with such embeddings. Default, if the "
            "layers are quantized: f16 in gguf, bf16 in mlx and safetensors.",
        ),
    ] = None,
    tensor_type: choices.TensorTypes = None,
    like: choices.Like = None,
    target_size: budget.TargetSize = None,
    target_bpw: budget.TargetBits = None,
    fit: budget.FitCards = None,
    context: budget.FitContext = None,
    kv_type: budget.FitCache = None,
    parallel: budget.FitParallel = None,
    engine: budget.FitEngine = None,
    offload: budget.FitOffload = False,
    ram: budget.FitMemory = None,
    sensitivity: budget.SensitivityFile = None,
    check: budget.Checked = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="METHOD",
            envvar="GEMMAQ_METHOD",
            help=f"How codes are chosen. {_METHODS}; {AUTO}: lattice for tensors that lie on a grid, wholly or in "
            "part, nearest for all others. The calibrated methods, importance and gptq, are the better ones for "
            f"checkpoints without QAT. Default: {AUTO}.",
        ),
    ] = None,
    portable: Annotated[
        bool,
        typer.Option("--portable", help="Choose scales that all containers hold exactly: the same model everywhere."),
    ] = False,
    scales: Annotated[
        str,
        typer.Option(
            "--scales",
            metavar="TYPE",
            help="Type of the scales in mlx and safetensors: bf16, or f16, which holds the scales of any GGUF exactly, "
            "but makes MLX compute in float32 and is rounded by vLLM.",
        ),
    ] = "bf16",
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="NAME|FILE", envvar="GEMMAQ_RECIPE", help="Name of a shipped recipe, or a .toml file."
        ),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option("--imatrix", metavar="FILE", help="Importance matrix for method importance, from llama.cpp too."),
    ] = None,
    keep_imatrix: Annotated[
        bool,
        typer.Option("--keep-imatrix", help="Lay the importance matrix beside the model, as MODEL.imatrix.gguf."),
    ] = False,
    text: calibration.Texts = None,
    calibration_kind: calibration.Kinds = None,
    calibration_tokens: calibration.Tokens = None,
    calibration_context: calibration.Context = None,
    damping: calibration.Damping = None,
    order: calibration.Order = None,
    sweeps: calibration.Sweeps = None,
    refine: calibration.Refine = None,
    resume: calibration.Resume = False,
    weights: WeightFile = None,
    device: Device = None,
    mmproj: Annotated[
        str,
        typer.Option(
            "--mmproj",
            metavar="TYPE",
            help="Type of the towers for images and sound in gguf, which get a file of their own: f16, bf16, q8_0 or "
            "f32 (mlx and safetensors store them as bf16). none: leave them out of all containers.",
        ),
    ] = "f16",
    mmproj_file: MmprojFile = None,
    base: Base = None,
    draft: Annotated[
        str | None,
        typer.Option(
            "--draft",
            metavar="SOURCE",
            help="Drafter of the model, which proposes tokens to it: gguf gets a file mtp-... beside the model, in the "
            "same type. Default: the drafter beside a .gguf file that belongs to it; none: no drafter.",
        ),
    ] = None,
    dense_heads: Annotated[
        bool,
        typer.Option(
            "--dense-heads",
            help="For a model that embeds: put its dense heads into gguf, too, for runtimes that apply them. mlx and "
            "safetensors have them in folders of their own.",
        ),
    ] = False,
    max_shard_size: Annotated[
        str | None,
        typer.Option("--max-shard-size", metavar="SIZE", help="Maximum size of a file: 2G, 500M, 4GiB."),
    ] = None,
    source_digest: choices.SourceDigest = True,
    digest_cache: choices.DigestCache = True,
    threads: Threads = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            parser=new_folder,
            help="Folder to create. Default: ./MODEL-TYPE-CONTAINER.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier artifact.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would be written, to the byte.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the artifacts' paths, one a line")] = False,
) -> None:
    """Quantize a model into GGUF, MLX or safetensors files."""
    from gemmaq.calibration.complete import settled
    from gemmaq.convert import ladder
    from gemmaq.convert.layout import lay_out
    from gemmaq.convert.run import Conversion, Options, assist, prepare, run
    from gemmaq.planning import recipe as recipes
    from gemmaq.planning.request import Request
    from gemmaq.sources.companions import Need, Wish

    started, peers = time.monotonic(), ranks.join(device)
    shown = Output("convert", as_json, quiet, peers.main)
    if lora.is_asked(to):
        values: tuple[Any, ...] = (method, recipe, embedding, tensor_type, like, fit, target_size, target_bpw)
        values += (imatrix, text, refine, mmproj_file, draft, max_shard_size, portable, weights)
        unused = dict(zip(lora.UNUSED, values, strict=True))
        lora.convert(source, base, quant, output, others=unused, force=force, dry_run=dry_run, shown=shown)
        return
    limit = byte_count("--max-shard-size", max_shard_size) if max_shard_size is not None else None
    if scales.lower() not in _SCALES:
        raise unknown("type of scales", scales, _SCALES)
    file = recipes.load(recipe) if recipe else None
    types = {"embedding": embedding, "ple_type": ple_type, "ple_proj_type": ple_proj_type}
    named_containers = choices.containers(to, file) if to or (file and file.to) else ()
    fitting = (target_size, target_bpw, fit, context, kv_type, parallel, engine, offload or None, ram)
    flags = budget.Flags(*fitting, sensitivity, check)
    asked = budget.wanted(flags, quant=quant, like=like, to=named_containers)
    taken = choices.take(like, quant)
    body = [taken.quant] if taken else ["q4_0"] if asked else quant
    chosen = choices.applied(choices.recipes(body, method, types, file), tensor_type, taken)
    settings: dict[str, Any] = {"tokens": calibration_tokens, "context": calibration_context}
    settings |= {"damping": damping, "order": order, "sweeps": sweeps, "kinds": calibration_kind, "refine": refine}
    read = budget.basis if asked and sensitivity is None else calibration.read
    basis = read(chosen[0], text, imatrix, settings)
    containers = named_containers or ((asked.container or "gguf") if asked else "gguf",)
    if draft is not None and draft.lower() != "none" and "gguf" not in containers:
        raise UsageError(
            f"--draft is for gguf, not for {' and '.join(containers)}",
            "the runtimes of other containers load a drafter from the folder that it comes in",
        )
    kept = choices.mmproj(mmproj)
    if mmproj_file is not None and kept is None:
        raise UsageError("--mmproj none leaves out what --mmproj-file names", "give one of them")
    projector = Need.NONE if kept is None else Need.DECIDED
    wish = Wish(mmproj_file, projector, Need.DECIDED if draft is None else Need.NONE, weights, base)
    force = calibration.replaces(output, force, resume)
    check_new(output, force)
    checkpoint = drafted(opened(source, dry_run, shown.silent, wish), draft, dry_run=dry_run, quiet=shown.silent)
    checkpoint = choices.compared(taken, checkpoint)
    methods, measuring = {method for one in chosen for method in one.methods}, basis
    if asked and refine is None and not any(METHODS[name].is_calibrated for name in methods if name in METHODS):
        basis = None
    if basis is not None:
        file_name = imatrix.name if imatrix and not keep_imatrix else None
        basis = settled(basis, checkpoint, methods=methods, file=file_name, keep=keep_imatrix)
    if keep_imatrix and (basis is None or basis.calibration.matrix is None):
        raise UsageError("--keep-imatrix is for method importance", "add --method importance, or leave it out")
    shared = Request(
        recipe=chosen[0],
        to=containers,
        portable=portable,
        scales=scales.lower(),
        mmproj=kept,
        dense_heads=dense_heads,
        draft=checkpoint.drafter is not None,
        shard_bytes=limit,
        calibration=basis.calibration if basis else None,
    )
    requests = ladder.requests(shared, chosen)
    named = (imatrix, mmproj_file, sensitivity, *(text or ()), *(Path(name) for name in (like, recipe) if name))
    inputs = tuple(path for path in named if path is not None and path.is_file())
    folder = output or choices.default_folder(checkpoint, shared, chosen)
    conversion = Conversion(checkpoint, requests, folder, basis, inputs)
    ranks.check(peers, conversion, asked is not None)
    digests = choices.digests(source_digest, digest_cache)
    calibration.check_resume(resume, basis, asked is not None)
    force = calibration.replaces(folder, force, resume)
    options = Options(threads or cores(), device, force, digests=digests, peers=peers, resume=resume)
    if asked:
        budgeted.convert(asked, budgeted.Job(source, conversion, measuring, output, options, dry_run), shown)
        return
    console.waiting.doing("looking at the weights")
    prepared = prepare(conversion, force=force or not peers.main, dry_run=dry_run or not peers.main)
    if not peers.main:
        assist(conversion, () if dry_run else prepared.plans, options)
        return
    for note in prepared.notes:
        console.note(note)
    for warning in (warnings := list(prepared.warnings)):
        console.warn(warning)
    if basis is not None:
        shown.say(calibration.described(checkpoint, prepared.plans, basis, resume=resume))
    if dry_run:
        artifacts, outcomes = lay_out(checkpoint, prepared.plans, conversion.folder), None
    else:
        with console.progress(None, shown.silent) as progress:
            result = run(conversion, prepared.plans, options, progress)
        artifacts, outcomes = result.artifacts, result.outcomes
        plans = [plan for artifact in artifacts for plan in artifact.plans]
        of_calibration = ladder.by_type([(plan.label, plan.warnings) for plan in plans])
        for warning in [warning for warning in of_calibration if warning not in warnings]:
            console.warn(warning)
            warnings.append(warning)
        for plan in plans:
            views.warn_rounded(plan, result.outcomes)
    seconds = None if dry_run else time.monotonic() - started

    def document() -> dict[str, Any]:
        told = (*prepared.notes, *warnings)
        report = views.report(source, checkpoint, artifacts, counter=outcomes, warnings=told, seconds=seconds)
        return report | ({"grid": views.grid(prepared.fits)} if prepared.fits else {})

    shown.emit(
        document,
        essential=lambda: [str(artifact.folder) for artifact in artifacts],
        show=lambda: views.summarize(checkpoint, artifacts, prepared.fits, seconds),
        made=not dry_run,
    )
