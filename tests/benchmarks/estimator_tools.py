"""The estimators that `estimators.py` compares: how each is installed, asked and read; and the hub some ask.

Each runs unmodified in an environment of its own. A tool that only reads a hub gets one on this machine, with the
files of the benchmark in it; one that knows nothing of files is asked for the same model by name.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fake_hub import FakeHub
from hub_http import Reply, Request, answer

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Model:
    """One size, as the tools meet it.

    Attributes:
        label: `27B`.
        repository: of the safetensors, on the hub.
        folder: the same on disk.
        gguf: the Q4_0 file, on disk; its folder is named as its repository.
    """

    label: str
    repository: str
    folder: Path
    gguf: Path

    @property
    def name(self) -> str:
        """`gemma-3-27b`."""
        return self.folder.name.removesuffix("-it")

    @property
    def gguf_repository(self) -> str:
        return f"google/{self.gguf.parent.name}"


@dataclass(frozen=True, slots=True)
class Tool:
    """One estimator.

    Attributes:
        body: the type of weights it is compared on: what it can read or be told.
        packages: PyPI's, or npm's with `@`; the first names the tool.
        ask: where its programs are, the model and the context -> command.
        figures: output -> bytes it may mean by its total; more than one where that is in doubt.
    """

    name: str
    body: str
    packages: tuple[str, ...]
    ask: Callable[[Path, Model, int], list[object]]
    figures: Callable[[str], list[float]]

    def install(self, root: Path) -> Path:
        """The folder of its programs, installed below `root` unless it is there."""
        folder = root / re.split("[@=]", self.packages[0])[0]
        node = "==" not in self.packages[0]
        programs = folder / ("node_modules/.bin" if node else "bin")
        if (folder / "complete").exists():
            return programs
        if node:
            folder.mkdir(parents=True, exist_ok=True)
            flags = ("--omit=optional", "--ignore-scripts", "--no-fund", "--no-audit", "--silent")
            subprocess.check_call(["npm", "install", "--prefix", folder, *flags, *self.packages])
        else:
            subprocess.check_call([sys.executable, "-m", "venv", folder])
            subprocess.check_call([programs / "python", "-m", "pip", "install", "-qq", *self.packages])
        (folder / "complete").touch()
        return programs

    def run(self, programs: Path, model: Model, context: int, home: Path, hub: Hub) -> list[float] | str:
        """The bytes it may mean, or why there are none."""
        environment = hub.env(home) | {"HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
        command = list(map(str, self.ask(programs, model, context)))
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=home,
                capture_output=True,
                text=True,
                timeout=300,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return "fails: no answer in 5 minutes"
        output = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)
        if found := self.figures(output) if not done.returncode else []:
            return found
        text = (output + done.stderr).strip()
        last = text.splitlines()[-1].strip() if text else "no output"
        return f"{'fails' if 'Traceback' in text else 'refuses'}: {last[:160]}"


def _number(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)[:1]]


def _gib(pattern: str, apart: str | None = None) -> Callable[[str], list[float]]:
    """A total in GiB, which most tools call GB; and the same less the overhead that the tool names apart."""

    def figures(text: str) -> list[float]:
        total, less = _number(pattern, text), _number(apart, text) if apart else []
        return [GIB * (t - part) for t in total for part in (0, *less)]

    return figures


_XLLAMACPP = """
import sys
from xllamacpp.memory import estimate_gpu_layers
gpu = {"name": "CUDA", "memory_free": 1 << 40, "memory_min": 0}
print("bytes", estimate_gpu_layers([gpu], sys.argv[1], [], int(sys.argv[2]), 512, 1, "f16").total_size)
"""

_HF_MEM = """
import os, httpx2
hub = httpx2.URL(os.environ["HF_ENDPOINT"])
class Local(httpx2.AsyncHTTPTransport):  # the tool has the address of its hub written in
    async def handle_async_request(self, request):
        if request.url.host == "huggingface.co":
            request.url = request.url.copy_with(scheme=hub.scheme, host=hub.host, port=hub.port)
        return await super().handle_async_request(request)
client = httpx2.AsyncClient
httpx2.AsyncClient = lambda **options: client(transport=Local(), **options)
from hf_mem.cli import main
main()
"""

_TORCH = ("hf-vram-calc==1.0.9", "accelerate==1.15.0", "transformers==5.23.0", "torch==2.13.0")

TOOLS = (
    Tool(
        "node-llama-cpp 3.22.0",
        "q4_0",
        ("node-llama-cpp@3.22.0", "@node-llama-cpp/linux-x64@3.22.0"),
        lambda at, model, context: [at / "nlc", "inspect", "estimate", "--gpu", "false", "-c", context, model.gguf],
        _gib(r"RAM usage: ([\d.]+)GB"),
    ),
    Tool(
        "xllamacpp.memory 2026.10.11549, knows no flash attention",
        "q4_0",
        ("xllamacpp==2026.10.11549", "gguf==0.17.1"),
        lambda at, model, context: [at / "python", "-c", _XLLAMACPP, model.gguf, context],
        lambda text: _number(r"bytes (\d+)", text),
    ),
    Tool(
        "hf-mem 0.5.6",
        "q4_0",
        ("hf-mem==0.5.6",),
        lambda at, model, context: [
            *(at / "python", "-c", _HF_MEM, "--model-id", model.gguf_repository, "--gguf-file", model.gguf.name),
            *("--experimental", "--max-model-len", context, "--kv-cache-dtype", "F16", "--json-output"),
        ],
        lambda text: _number(r'"total_memory": (\d+)', text),
    ),
    Tool(
        "modelinfo-cli 1.4.4",
        "q4_0",
        ("modelinfo-cli==1.4.4",),
        lambda at, model, context: [at / "modelinfo", model.gguf, "--context", context],
        lambda text: [
            GIB * total - (part << 20)
            for total in _number(r"~([\d.]+) GB Total", text)
            for part in (0, 600)  # "CUDA Context + Activations"
        ],
    ),
    Tool(
        "llmfit 1.1.17",
        "q4_0",
        ("llmfit==1.1.17",),
        lambda at, model, context: [
            *(at / "llmfit", "plan", model.repository, "--context", context),
            *("--quant", "Q4_0", "--kv-quant", "fp16", "--json", "--no-dashboard"),
        ],
        lambda text: [unit * gb for gb in _number(r'"vram_gb": ([\d.]+)', text) for unit in (1e9, GIB)],
    ),
    Tool(
        "ggufit 0.3.0",
        "q4_0",
        ("ggufit==0.3.0",),
        lambda at, model, context: [
            *(at / "ggufit", model.name, "--offline", "--quant", "q4", "--context", context),
            *("--gpu", "RTX A6000", "--vram", 500),
        ],
        _gib(r"cache → ([\d.]+) GB of"),
    ),
    Tool(
        "vramscout 0.7.0",
        "bf16",
        ("vramscout==0.7.0",),
        lambda at, model, context: [
            *(at / "vramscout", model.repository, "--context", context, "--dtype", "bf16", "--kv-dtype", "bf16"),
            *("--vram-gib", 500, "--reserve-gib", 0, "--json"),
        ],
        _gib(r'"total_gib": ([\d.]+)', r'"CUDA / runtime": ([\d.]+)'),
    ),
    Tool(
        "hf-vram-calc 1.0.9",
        "bf16",
        _TORCH,
        lambda at, model, context: [
            *(at / "hf-vram-calc", "--model", model.name, "--model_path", model.folder, "--dtype", "bf16"),
            *("--max_seq_len", context, "--max-num-tokens", 512, "--output_json", "/dev/stdout"),
        ],
        _gib(r'"inference_total_gib": ([\d.]+)'),
    ),
    Tool(
        "accelerate 1.15.0, weights only",
        "bf16",
        _TORCH,
        lambda at, model, context: [
            *(at / "accelerate", "estimate-memory", model.repository),
            *("--library_name", "transformers", "--dtypes", "float16"),
        ],
        _gib(r"float16│[^│]+│\s*([\d.]+) GB"),
    ),
)


class Hub(FakeHub):
    """A hub that also tells what the real one reads in the files of a repository: its config and its parameters."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.told: dict[str, dict[str, object]] = {}

    def hold(self, repository: str, folder: Path, parameters: int) -> None:
        """Add a folder of files that may be holes: large ones are not read."""
        digests = {file.name: f"{number:064x}" for number, file in enumerate(sorted(folder.iterdir()))}
        self.add(repository, folder, digests=digests)
        if (folder / "config.json").exists():
            safetensors = {"parameters": {"BF16": parameters}, "total": parameters}
            config = json.loads((folder / "config.json").read_text())
            self.told[repository] = {"safetensors": safetensors, "config": config}

    def route(self, request: Request) -> Reply:
        reply = super().route(request)
        told = self.told.get(request.path.removeprefix("/api/models/").partition("/revision/")[0])
        if told is None or reply.status != 200:
            return reply
        return answer(json.loads(b"".join(bytes(part.source) for part in reply.body)) | told)
