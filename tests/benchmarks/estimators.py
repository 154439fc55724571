"""Public estimators of the memory that Gemma 3 takes, and `gemmaq estimate-vram`, against llama.cpp's own allocator.

    GEMMAQ_ORACLES=FOLDER python tests/benchmarks/estimators.py [--tools FOLDER] [--only NAME ...] [--markdown]

27B and 4B, text only, one sequence, f16 KV cache, flash attention on, micro-batches of 512. True is what llama.cpp
takes on a dry run of the same file: tensors, both KV caches and the compute buffer, with outputs as llama-server has
them.

A tool is compared on Q4_0 with an F16 embedding, as in Google's own QAT files, if it reads GGUF or can be told a
llama.cpp type, else on BF16. Its cell is the error of what it calls the total. Where that is open to more than one
reading, the one nearest to the truth counts: with or without the driver's overhead it names apart, GB or GiB where it
does not say, and against llama.cpp as a server or as a library, which reserves up to 512 MiB more for logits. gemmaq
has the server's only.

The tools are installed into a temporary folder, or into the one that --tools names and left there; hf-vram-calc brings
torch along. node-llama-cpp needs npm.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from estimator_tools import TOOLS, Hub, Model, Tool

from allocator import Setting, load, sparse_gguf
from gemmaq.containers import gguf
from gemmaq.encodings import find
from gemmaq.models import gemma3
from gemmaq.models.families import require_size as require
from gemmaq.models.gemma3.config import TextConfig
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.recipe import Recipe
from gemmaq.planning.request import Request
from gemmaq.vram.weights import checkpoint_of
from synthetic import write_checkpoint

SIZES = ("27B", "4B")
CONTEXTS = (8192, 32768, 131072)
BODIES = {"q4_0": "Q4_0, F16 embedding", "bf16": "BF16"}
_MIB = 1 << 20
_VISION = {
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}

Row = list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, help="folder of installed tools")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="tools whose names begin so")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        tools = (arguments.tools or work / "tools").absolute()
        chosen = tuple(arguments.only or ("",))
        rows, remarks = _measure(work, tools, chosen)
    _show(rows, arguments.markdown)
    print(*remarks, sep="\n")


def _measure(work: Path, tools: Path, chosen: tuple[str, ...]) -> tuple[list[Row], list[str]]:
    """The rows of the table, and what there is to say of cells without a figure."""
    home = work / "home"
    home.mkdir()
    models = [_model(work, label) for label in SIZES]
    truths = {body: [pair for model in models for pair in _truth(work, model, body)] for body in BODIES}
    rows, remarks = [], []
    with Hub(work / "hub") as hub:
        for model in models:
            parameters = require(model.label).config.parameters
            hub.hold(model.repository, model.folder, parameters)
            hub.hold(model.gguf_repository, model.gguf.parent, parameters)
        for body, title in BODIES.items():
            rows.append([f"llama.cpp, {title}, MiB", *(f"{server / _MIB:,.0f}" for server, _ in truths[body])])
            ours = [size for model in models for size in _gemmaq(_file(work, model, body))]
            pairs = zip(ours, truths[body], strict=True)
            rows.append(["gemmaq", *(_percent([size], (server,)) for size, (server, _) in pairs)])
            for tool in TOOLS:
                if tool.body == body and tool.name.startswith(chosen):
                    row, said = _ask(tool, tools, models, truths[body], home, hub)
                    rows.append(row)
                    remarks += dict.fromkeys(said)
    return rows, remarks


def _ask(
    tool: Tool, tools: Path, models: list[Model], truths: list[tuple[float, float]], home: Path, hub: Hub
) -> tuple[Row, list[str]]:
    """A tool's row, and why it has no figure where it has none."""
    programs, row, remarks = tool.install(tools), [tool.name], []
    for (model, context), truth in zip(itertools.product(models, CONTEXTS), truths, strict=True):
        answer = tool.run(programs, model, context, home, hub)
        if isinstance(answer, str):
            remarks.append(f"{tool.name}, {model.label}: {answer}")
            row.append(answer.partition(":")[0])
        else:
            row.append(_percent(answer, truth))
    return row, remarks


def _percent(readings: list[float], truths: tuple[float, ...]) -> str:
    """The smallest error."""
    text = f"{min((r / truth - 1 for r in readings for truth in truths), key=abs):+.1%}"
    return "0.0%" if text[1:] == "0.0%" else text


def _file(work: Path, model: Model, body: str) -> Path:
    return model.gguf if body == "q4_0" else work / f"{model.name}-bf16.gguf"


def _plan(label: str, body: str) -> Plan:
    embedding = find("f16") if body == "q4_0" else None
    recipe = Recipe(find(body), embedding=embedding, method="nearest")
    return make_plan(checkpoint_of(require(label)), Request(recipe, ("gguf",), mmproj=None), gguf.FORMAT)


def _truth(work: Path, model: Model, body: str) -> Iterator[tuple[float, float]]:
    """Bytes that llama.cpp takes at every context, as a server and as a library."""
    plan, config, path = _plan(model.label, body), require(model.label).config, _file(work, model, body)
    weights = sum(-(-tensor.nbytes // 32) * 32 for tensor in plan.tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    _add_vocabulary(sparse_gguf(path, gemma3.FAMILY, config, plan), config.vocab_size, weights)
    with load(path) as allocator:
        for context in CONTEXTS:
            server, library = (allocator.allocate(Setting(context, library=library)) for library in (False, True))
            assert server is not None and library is not None
            yield tuple(weights + _MIB * (one.kv_global + one.kv_local + one.compute) for one in (server, library))


def _add_vocabulary(path: Path, tokens: int, weights: int) -> None:
    """Put a list of tokens in front of the other keys of a sparse file: there are tools that count them."""
    key = b"tokenizer.ggml.tokens"
    entry = len(key).to_bytes(8, "little") + key + bytes((9, 0, 0, 0, 8, 0, 0, 0)) + tokens.to_bytes(8, "little")
    words = [b"<unused>"] * tokens
    words[0] += b"_" * (-(len(entry) + 16 * tokens) % 32)  # what follows stays aligned
    entry += b"".join(len(word).to_bytes(8, "little") + word for word in words)
    size = path.stat().st_size
    with path.open("r+b") as file:
        head = file.read(size - weights)
        keys = int.from_bytes(head[16:24], "little") + 1
        file.seek(0)
        file.write(head[:16] + keys.to_bytes(8, "little") + entry + head[24:])
        file.truncate(size + len(entry))


def _model(work: Path, label: str) -> Model:
    """A size with its safetensors, which have no weights; the GGUF file is yet to be written."""
    config, name = require(label).config, f"{require(label).name}-it"
    folder = write_checkpoint(work / name, config, sparse=True, prefix="language_model.model.", shard_bytes=5 << 30)
    (folder / "config.json").write_text(json.dumps(_published(config, label)))
    return Model(label, f"google/{name}", folder, work / f"{name}-qat-q4_0-gguf" / f"{name}-q4_0.gguf")


def _published(config: TextConfig, label: str) -> dict[str, object]:
    """config.json as published: multimodal, and what is a default in transformers left out of the 4B's."""
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "sliding_window"]
    if label == "27B":
        names += ["head_dim", "num_attention_heads", "num_key_value_heads", "query_pre_attn_scalar"]
    text: dict[str, object] = {name: getattr(config, name) for name in names}
    text |= {"model_type": "gemma3_text", "rope_scaling": {"factor": config.rope_factor, "rope_type": "linear"}}
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "eos_token_id": [1, 106],
        "image_token_index": 262144,
        "initializer_range": 0.02,
        "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "text_config": text,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "vision_config": _VISION,
    }


def _gemmaq(path: Path) -> list[float]:
    """Bytes at every context, without the allowance for the driver."""
    contexts = [word for context in CONTEXTS for word in ("--context", str(context))]
    command = [sys.executable, "-m", "gemmaq", "estimate-vram", path, *contexts, "--json"]
    estimates = json.loads(subprocess.check_output(command))["estimates"]
    by_context = {entry["context"]: entry["bytes"] for entry in estimates}
    return [by_context[at]["total"] - by_context[at]["overhead"] - by_context[at]["vision"] for at in CONTEXTS]


def _show(rows: list[Row], markdown: bool) -> None:
    titles = ["", *(f"{size} {context >> 10}K" for size in SIZES for context in CONTEXTS)]
    if markdown:
        for row in (titles, ["---", *["---:"] * (len(titles) - 1)], *rows):
            print(f"| {' | '.join(row)} |")
        return
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        first, *rest = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print(first, *rest, sep="  ")


if __name__ == "__main__":
    main()
