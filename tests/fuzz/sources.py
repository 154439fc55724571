"""Sound models and artifacts of every kind, the files of them that are damaged, and the commands that read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gemma4
import gemma4_drafter
import gemma4_towers
import lora_files
import made_up
import quantized_folders
from damage import small_model
from gemmaq.calibration import imatrix
from gemmaq.planning.sensitivities import document
from gemmaq.sources.open import open_source
from inprocess import run

Command = Callable[[Path, Path], tuple[Any, ...]]
"""(model, folder to create) -> arguments."""


@dataclass(frozen=True)
class Model:
    """A folder, and what in it the commands are given."""

    folder: Path
    path: Path


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        make: makes a sound one in a new folder, or takes the one that is there.
        endings: endings of the files that are damaged.
        commands: commands that read it.
    """

    make: Callable[[Path], Model]
    endings: tuple[str, ...]
    commands: tuple[Command, ...]

    def files(self, folder: Path) -> list[str]:
        """Paths of the files that are damaged."""
        found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name.endswith(self.endings)]
        return [path.relative_to(folder).as_posix() for path in found]


def _once(make: Callable[[Path], object], inside: str = "") -> Callable[[Path], Model]:
    """Make a folder unless it is there; the model is a path in it."""

    def made(folder: Path) -> Model:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            make(folder)
        return Model(folder, next(folder.glob(inside)) if inside else folder)

    return made


def _converted(*options: object) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        source = folder.with_name(f"{folder.name}-source")
        small_model(source)
        run("convert", source, "-q", "-o", folder, *options)

    return make


def _adapter(folder: Path) -> None:
    base = small_model(folder / "base")
    lora_files.write(folder / "adapter", lora_files.config(), lora_files.pair(64, 64), base="../base")
    assert base.is_dir()


def _quantized(make: quantized_folders.Make, **settings: Any) -> Callable[[Path], object]:
    return lambda folder: quantized_folders.write(folder, settings, make)


def _with_recipe(folder: Path) -> None:
    small_model(folder)
    (folder / "mine.toml").write_text(
        'quant = "q4_0"\nmethod = "nearest"\nto = ["gguf"]\n[[rules]]\nmatch = "*.v_proj.*"\ntype = "q8_0"\n'
    )


def _with_imatrix(folder: Path) -> None:
    small_model(folder)
    model = open_source(str(folder))
    names = {model.family.names.to_gguf(tensor.name): tensor.columns for tensor in model.matrices.values()}
    entries = {
        name: imatrix.Entry(np.arange(1, columns + 1, dtype=np.float32), np.full(1, 7, np.float32))
        for name, columns in names.items()
    }
    (folder / "mine.gguf").write_bytes(imatrix.document(imatrix.Imatrix(entries, ("a.txt",), 7, 512)))


def _with_sensitivities(folder: Path) -> None:
    small_model(folder)
    (folder / "mine.json").write_bytes(document(made_up.sensitivities(open_source(str(folder)), real=True)))


def _with_added_tokens(folder: Path) -> None:
    small_model(folder)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "added_tokens.json").write_text('{"<mine>": 7, "<yours>": 8}')


def _drafter(folder: Path) -> None:
    gemma4_drafter.write(folder / "drafter", gemma4_drafter.DRAFTERS["unified"])


def _seeing(folder: Path) -> None:
    source = gemma4_towers.write(folder.with_name(f"{folder.name}-source"), gemma4_towers.KINDS["dense"])
    run("convert", source, "-q", "-o", folder)


INSPECT: Command = lambda model, out: ("inspect", model)  # noqa: E731
TENSORS: Command = lambda model, out: ("inspect", model, "--tensors", "--json")  # noqa: E731
TO_GGUF: Command = lambda model, out: ("convert", model, "--method", "nearest", "-o", out)  # noqa: E731
TO_MLX: Command = lambda model, out: ("convert", model, "--to", "mlx", "--method", "nearest", "-o", out)  # noqa: E731
MEMORY: Command = lambda model, out: ("estimate-vram", model, "--json")  # noqa: E731
VERIFY: Command = lambda model, out: ("verify", model)  # noqa: E731
RECIPE: Command = lambda model, out: ("convert", model, "--recipe", model / "mine.toml", "-o", out)  # noqa: E731

_MATRIX = ("--quant", "q4_k_m", "--imatrix")
_BUDGET = ("--target-bpw", "7", "--no-check", "--dry-run", "--sensitivity")
IMATRIX: Command = lambda model, out: ("convert", model, *_MATRIX, model / "mine.gguf", "-o", out)  # noqa: E731
SHOWN: Command = lambda model, out: ("imatrix", "--show-statistics", model / "mine.gguf")  # noqa: E731
MERGED: Command = lambda model, out: ("imatrix", model, "--merge", model / "mine.gguf", "-o", out)  # noqa: E731
BUDGET: Command = lambda model, out: ("convert", model, *_BUDGET, model / "mine.json")  # noqa: E731

QUANTIZED: dict[str, tuple[quantized_folders.Make, dict[str, Any]]] = {
    "gptq": (
        quantized_folders.gptq(order=True),
        {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True, "sym": True},
    ),
    "awq": (
        quantized_folders.awq(64),
        {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"},
    ),
    "nf4": (
        quantized_folders.four_bits(nested=True),
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    ),
    "fp8": (quantized_folders.fp8((128, 128)), {"quant_method": "fp8", "weight_block_size": [128, 128]}),
}
_SETTINGS = ("config.json", "generation_config.json")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")
_READ: Sequence[Command] = (INSPECT, TENSORS, TO_GGUF, TO_MLX, MEMORY)

KINDS = {
    "config": Kind(_once(small_model), _SETTINGS, (*_READ,)),
    "tokenizer": Kind(_once(small_model), _TOKENIZER, (INSPECT, TO_GGUF, TO_MLX)),
    "weights": Kind(_once(small_model), (".safetensors",), (*_READ,)),
    "gguf": Kind(_once(_converted(), "*.gguf"), (".gguf",), (*_READ,)),
    "mlx": Kind(_once(_converted("--to", "mlx")), ("config.json", ".safetensors"), (*_READ,)),
    "compressed": Kind(_once(_converted("--to", "safetensors")), ("config.json", ".safetensors"), (*_READ,)),
    "gemma4": Kind(
        _once(lambda folder: gemma4.write(folder, gemma4.EFFECTIVE)),
        (*_SETTINGS, ".safetensors"),
        (INSPECT, TENSORS, MEMORY),
    ),
    "adapter": Kind(
        _once(_adapter, "adapter"), ("adapter_config.json", "adapter_model.safetensors"), (INSPECT, TO_GGUF, MEMORY)
    ),
    "artifact": Kind(
        _once(_converted()), ("gemmaq.json", "SHA256SUMS", "README.md", "Modelfile", "params"), (VERIFY, INSPECT)
    ),
    **{
        name: Kind(
            _once(_quantized(make, **settings)), ("config.json", ".safetensors"), (INSPECT, TENSORS, TO_GGUF, TO_MLX)
        )
        for name, (make, settings) in QUANTIZED.items()
    },
    "imatrix": Kind(_once(_with_imatrix), ("mine.gguf",), (IMATRIX, SHOWN, MERGED)),
    "sensitivity": Kind(_once(_with_sensitivities), ("mine.json",), (BUDGET,)),
    "added": Kind(_once(_with_added_tokens), ("tokenizer.json", "added_tokens.json"), (INSPECT, TO_GGUF, TO_MLX)),
    "mmproj": Kind(_once(_seeing, "[!m]*.gguf"), (".gguf",), (INSPECT, TENSORS, TO_GGUF, MEMORY)),
    "drafter": Kind(_once(_drafter, "drafter"), ("config.json", ".safetensors"), (INSPECT, TO_GGUF, MEMORY)),
    "recipe": Kind(_once(_with_recipe), (".toml",), (RECIPE,)),
}
