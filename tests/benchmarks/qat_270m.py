"""The real 270M: BF16, plain Q4_0, GPTQ, QAT, and QAT from GPTQ, side by side through the real converter.

    python tests/benchmarks/qat_270m.py WORK_FOLDER [--minutes 20] [--seeds 0 1 2] [--tokens 4096]

The source is quantized, so it is dithered first, and the dithered model is what everything is compared with. Trained
and calibrated on the language's documentation and the standard library's docstrings, split by document; measured by
`gemmaq evaluate` on documents held out, and on the licences of Debian, a domain never trained on. Finished parts are
kept in WORK_FOLDER, and a training that was broken off is resumed. Prints a table, Markdown.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LICENCES = Path("/usr/share/common-licenses")
_HELD_OUT = 8
"""Of so many documents one is held out."""


def docstrings() -> Iterator[str]:
    """Those of a module of the standard library, a document each."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted([*library.glob("*.py"), *library.glob("*/*.py")]):
        if {"site-packages", "test", "tests", "pydoc_data", "idlelib"} & set(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))]
        found = [text for node in nodes if (text := ast.get_docstring(node)) and len(text) > 80]
        if sum(map(len, found)) > 400:
            yield "\n\n".join(found)


def texts(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Files to train on, held-out files, and files of another domain, as far as there are any."""
    from pydoc_data.topics import topics

    folder.mkdir(parents=True, exist_ok=True)
    train, held = [], []
    for name, documents in (("topics", [topics[key] for key in sorted(topics)]), ("docstrings", list(docstrings()))):
        for part, files in (("train", train), ("held-out", held)):
            chosen = [d for at, d in enumerate(documents) if (at % _HELD_OUT == 3) == (part == "held-out")]
            files.append(_write(folder / f"{name}-{part}.jsonl", chosen))
    licences = [p.read_text("latin-1") for p in sorted(_LICENCES.glob("*")) if p.is_file() and not p.is_symlink()]
    return train, held, [_write(folder / "licences.jsonl", licences)] if licences else []


def _write(path: Path, documents: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), "utf-8")
    return path


def gemmaq(*arguments: object) -> str:
    command = [sys.executable, "-m", "gemmaq", *map(str, arguments)]
    print("$", *command[2:], file=sys.stderr, flush=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def given(option: str, files: list[Path]) -> list[object]:
    return [word for file in files for word in (option, file)]


def train(work: Path, name: str, source: Path, options: list[object]) -> tuple[Path, float]:
    """A training that is done, goes on, or begins; the folder and the minutes it took this time."""
    folder, began = work / name, time.monotonic()
    if not folder.exists():
        resume = ["--resume"] if (work / f"{name}.work").exists() else []
        gemmaq("qat", source, *options, "-o", folder, *resume)
    return folder, (time.monotonic() - began) / 60


def converted(work: Path, name: str, source: Path, *options: object) -> Path:
    """The GGUF file of a model."""
    folder = work / f"{name}-gguf"
    if not folder.exists():
        gemmaq("convert", source, "--to", "gguf", "-o", folder, *options)
    return next(folder.glob("*.gguf"))


def measured(reference: Path, models: dict[str, Path], files: list[Path], tokens: int) -> dict[str, Any]:
    out = gemmaq(
        "evaluate", *models.values(), "--reference", reference, *given("--text", files), "--tokens", tokens, "--json"
    )
    found = json.loads(out)
    return {"BF16": found["reference"], **dict(zip(models, found["models"], strict=True))}


def rows(found: dict[str, Any]) -> Iterator[str]:
    yield "| | perplexity | KL | top-1 | perplexity drop less by | KL less by |"
    yield "|---|---|---|---|---|---|"
    base, plain = found["BF16"]["perplexity"], found["Q4_0"]
    yield f"| BF16 | {base:.2f} | 0 | 100 % | | |"
    for name, row in list(found.items())[1:]:
        drop = 1 - (row["perplexity"] - base) / (plain["perplexity"] - base)
        less = 1 - row["kl"]["mean"] / plain["kl"]["mean"]
        end = "| | |" if row is plain else f"| {drop:.0%} | {less:.0%} |"
        yield f"| {name} | {row['perplexity']:.2f} | {row['kl']['mean']:.4f} | {row['top1']:.1%} {end}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--qat", nargs=argparse.REMAINDER, default=[], help="what follows goes to gemmaq qat")
    arguments = parser.parse_args()
    work: Path = arguments.folder
    learned, held, apart = texts(work / "text")
    source = work / "gemma-3-270m-dithered"
    if not source.exists():
        from gemmaq.models.samples import SAMPLE
        from gemmaq.qat.dither import dithered_folder
        from gemmaq.sources.open import open_source

        dithered_folder(open_source(SAMPLE.source), source, seed=0)
    models = {"Q4_0": converted(work, "plain", source, "--method", "nearest", "--portable")}
    calibration = given("--text", learned)
    models["GPTQ"] = converted(work, "gptq", source, "--method", "gptq", "--portable", *calibration)
    for seed in arguments.seeds:
        options = [*calibration, *given("--held-out", held), "--minutes", arguments.minutes, "--seed", seed]
        for name, start in (("QAT", []), ("QAT from GPTQ", ["--start", models["GPTQ"]])):
            slug = f"{name.lower().replace(' ', '-')}-{seed}"
            folder, minutes = train(work, slug, source, [*options, *start, *arguments.qat])
            record = json.loads((folder / "qat.json").read_text())
            print(f"{name}, seed {seed}: {record['settings']['steps']} steps, {minutes:.1f} minutes", file=sys.stderr)
            models[f"{name}, seed {seed}"] = converted(work, slug, folder)
    for title, files in (("Held-out documents", held), ("Another domain: licences", apart)):
        if files:
            print(f"\n{title}\n")
            print("\n".join(rows(measured(source, models, files, arguments.tokens))))


if __name__ == "__main__":
    main()
