"""`gemmaq inspect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.cli.console import Output
from gemmaq.cli.options import Base, Json, WeightFile, quiet_option
from gemmaq.cli.views import grids
from gemmaq.files.quoting import shell
from gemmaq.models.samples import SAMPLE

if TYPE_CHECKING:
    from gemmaq.checkpoint import Adapter, Checkpoint

_SENSES = {"vision": "images", "audio": "sound"}
"""Kind of a tower's tensors -> what goes through it."""


def inspect(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder (Hugging Face, MLX, AWQ and others, or a LoRA adapter of PEFT), a .gguf file, a "
            f"repository on the Hub (org/name, only headers are read), or {SAMPLE.source}.",
        ),
    ],
    base: Base = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    weights: WeightFile = None,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the model's name")] = False,
) -> None:
    """Describe a model: architecture, sizes, types, tokenizer.

    Also says whether its weights lie on an int4 grid, as those of a QAT checkpoint do, and what is odd about it.
    """
    from gemmaq.cli.views import unsupported
    from gemmaq.errors import UnsupportedModelError
    from gemmaq.sources.companions import Wish
    from gemmaq.sources.open import open_source

    output = Output("inspect", as_json, quiet)
    try:
        checkpoint = open_source(source, Wish(weights=weights, base=base))
    except UnsupportedModelError as error:
        unsupported.emit(source, error, output)
        return
    output.emit(
        lambda: _facts(checkpoint, tensors),
        essential=lambda: [checkpoint.name],
        show=lambda: _show(checkpoint, tensors),
    )


def _facts(checkpoint: Checkpoint, with_tensors: bool) -> dict[str, Any]:
    """The JSON object: sizes in bytes, counts, names."""
    from gemmaq.checkpoint.lora.model import as_stored
    from gemmaq.checkpoint.weight_sets import PICKLED
    from gemmaq.models.config import global_layers
    from gemmaq.models.families import size_label
    from gemmaq.planning.survey import detect_grids

    config = checkpoint.config
    fits = detect_grids(checkpoint) if checkpoint.weights_here else {}
    stored = as_stored(checkpoint)
    counts = Counter(t.encoding.name for t in stored.tensors.values())
    sizes: Counter[str] = Counter()
    for tensor in stored.tensors.values():
        sizes[tensor.encoding.name] += tensor.nbytes
    total = sum(sizes.values())
    towers: Counter[str] = Counter()
    for tensor in checkpoint.towers.values():
        towers[tensor.place.kind] += tensor.nbytes
    facts: dict[str, Any] = {
        "name": checkpoint.name,
        "location": checkpoint.location,
        "format": "pytorch" if checkpoint.files[0].suffix in PICKLED else checkpoint.format,
        "files": len(checkpoint.files),
        "architecture": _architecture(checkpoint.family.name, towers),
        "size": size_label(checkpoint.family, config),
        "parameters": checkpoint.parameters,
        "tensor_bytes": total,
        "bits_per_weight": round(8 * total / checkpoint.parameters, 4),
        "types": {name: {"tensors": counts[name], "bytes": size} for name, size in sizes.most_common()},
        "vision_bytes": towers["vision"],
        "audio_bytes": towers["audio"],
        "layers": config.num_hidden_layers,
        "global_layers": global_layers(config),
        "sliding_window": max((layer.window for layer in config.layers if layer.window), default=None),
        "context": config.max_position_embeddings,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "rope": {
            "theta": config.rope.theta,
            "local_theta": config.rope.local_theta,
            "linear_factor": config.rope.factor,
        },
        "tokenizer": _tokenizer(checkpoint),
        "qat_name": "qat" in checkpoint.name.lower(),
        "grid": grids.facts(checkpoint, fits),
        "notes": list(checkpoint.remarks),
    }
    if checkpoint.adapter is not None:
        facts["adapter"] = _adapter(checkpoint.adapter)
    if with_tensors:
        facts["tensors"] = [
            {"name": t.name, "shape": list(t.shape), "type": t.encoding.name, "bytes": t.nbytes}
            | ({"grid": grids.fit_facts(fits[t.name])} if t.name in fits else {})
            for t in checkpoint.tensors.values()
        ]
    return facts


def _adapter(adapter: Adapter) -> dict[str, Any]:
    """An adapter and its base model: what they are, and the bytes of the adapter."""
    return {
        "kind": adapter.kind,
        "rank": adapter.rank,
        "changed": adapter.changed,
        "tensor_bytes": sum(tensor.nbytes for tensor in adapter.weights),
        "base": {"name": adapter.base.name, "location": adapter.base.location, "format": adapter.base.format},
    }


def _architecture(family: str, towers: Mapping[str, int]) -> str:
    """Name of the family, and what its model perceives besides text."""
    senses = " and ".join(sense for sense in _SENSES if towers[sense])
    return f"{family} with {senses}" if senses else family


def _tokenizer(checkpoint: Checkpoint) -> dict[str, Any]:
    """Vocabulary size, special tokens and chat template, or the error if the tokenizer cannot be read."""
    from gemmaq.errors import GemmaqError

    try:
        tokenizer = checkpoint.tokenizer
    except GemmaqError as error:
        return {"error": error.message}
    return {
        "tokens": len(tokenizer.pieces),
        "special": dict(tokenizer.special),
        "chat_template": tokenizer.chat_template is not None,
        "named_templates": sorted(tokenizer.named_templates or {}),
    }


def _adapter_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows about an adapter and its base model, if there is one."""
    if "adapter" not in facts:
        return []
    adapter = facts["adapter"]
    rank = f" of rank {adapter['rank']}" if adapter["rank"] else ""
    size = console.size(adapter["tensor_bytes"])
    return [
        ("adapter", f"{adapter['kind']}{rank}, {size}, changes {adapter['changed']} tensors"),
        ("base", f"{adapter['base']['name']}  ({adapter['base']['location']})"),
    ]


def _show(checkpoint: Checkpoint, with_tensors: bool) -> None:
    facts = _facts(checkpoint, with_tensors)
    rope, tokenizer = facts["rope"], facts["tokenizer"]
    types = ", ".join(f"{entry['tensors']} {name.upper()}" for name, entry in facts["types"].items())
    factor = f", linear scaling x{rope['linear_factor']:g}" if rope["linear_factor"] != 1 else ""
    if "error" in tokenizer:
        words = tokenizer["error"]
    else:
        ids = ", ".join(f"{role} {at}" for role, at in tokenizer["special"].items())
        words = f"{tokenizer['tokens']:,} tokens, {ids}, {'a' if tokenizer['chat_template'] else 'no'} chat template"
        if tokenizer["named_templates"]:
            words += f", others: {', '.join(tokenizer['named_templates'])}"
    rows = [
        ("model", f"{facts['name']}  ({facts['architecture']}, {facts['size']})"),
        ("stored as", f"{facts['format']}, {facts['files']} file{'s' if facts['files'] > 1 else ''}"),
        *_adapter_rows(facts),
        ("parameters", f"{facts['parameters']:,}"),
        ("tensors", f"{console.size(facts['tensor_bytes'])}, {facts['bits_per_weight']:.2f} bits per weight: {types}"),
        ("layers", f"{facts['layers']}, of which {facts['global_layers']} global; window {facts['sliding_window']}"),
        ("context", f"{facts['context']:,} tokens; rope {rope['theta']:g}, local {rope['local_theta']:g}{factor}"),
        ("tokenizer", words),
    ]
    rows += [
        (sense, f"{console.size(facts[f'{sense}_bytes'])} to turn {what} into embeddings")
        for sense, what in _SENSES.items()
        if facts[f"{sense}_bytes"]
    ]
    if checkpoint.family.drafts:
        option = f"--draft {shell(checkpoint.location)}"
        rows.append(("use", f"drafter: gemmaq convert MODEL {option} writes it beside its model"))
    rows += grids.rows(facts["grid"], facts["qat_name"])
    if not checkpoint.weights_here:
        rows.append(("read", "headers only, nothing of the weights"))
    rows += [("note", note) for note in facts["notes"]]
    console.fields(rows)
    if facts["qat_name"] or facts["grid"]["rules"]:
        grids.show_kinds(facts["grid"])
    if with_tensors:
        columns = ("tensor", "type", "shape", "bytes", "grid")
        listed = [
            (t["name"], t["type"], " x ".join(map(str, t["shape"])), f"{t['bytes']:,}", grids.cell(t.get("grid")))
            for t in facts["tensors"]
        ]
        console.table(None, columns, listed, left=2, fold=True, spare=("grid", "bytes"))
