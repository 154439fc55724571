"""`gemmaq convert` with calibrated methods, `gemmaq imatrix`, and `gemmaq verify` deriving their codes again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damage import SMALL, contained, header_of, poison, safetensors_bytes, small_model, tree
from gemmaq.calibration import imatrix
from gemmaq.checkpoint.rows import read_rows, values_of
from gemmaq.files import gguf_reader
from gemmaq.files.span import FileSpan, Reader
from gemmaq.inference.decoder import Decoder
from gemmaq.inference.documents import read, shipped
from gemmaq.models.gemma3.config import pattern
from gemmaq.models.gemma3.names import EMBEDDING, FINAL_NORM
from gemmaq.sources.open import open_source
from inprocess import refused, run, run_any
from oracles import need
from records import recorded
from synthetic import bf16

METHODS = ("gptq", "importance")
CONTAINERS = ("gguf", "mlx", "safetensors")
EVERYWHERE = tuple(word for name in CONTAINERS for word in ("--to", name))
SHORT = ("--calibration-context", 64, "--calibration-tokens", 640)
MATRIX = {"file": "gemma-3-tiny.imatrix.gguf", "datasets": ["letters.txt"], "entries": 14, "chunks": 10, "size": 0}


@pytest.fixture(scope="module", autouse=True)
def _torch(require: Callable[[bool, str], None]) -> None:
    need(require, "torch", "transformers")


def letters(seed: int, count: int) -> str:
    random = np.random.default_rng(seed)
    return "".join(chr(97 + at) for at in np.minimum(random.geometric(0.12, count) - 1, 25))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers whose inputs are correlated, and large in some columns and small in others, as in real models."""
    folder = small_model(tmp_path_factory.mktemp("source") / "gemma-3-tiny")
    path, random = folder / "model.safetensors", np.random.default_rng(1)
    header, data = header_of(path)
    content = bytearray(data)
    for name, entry in header.items():
        rows, columns = (*entry["shape"], 1)[:2]
        if name == EMBEDDING:
            mixed = random.standard_normal((rows, 6)) @ random.standard_normal((6, columns)) / 6**0.5
            values = 0.06 * (mixed + 0.3 * random.standard_normal((rows, columns)))
        elif columns > 1:
            values = 0.1 * random.standard_normal((rows, columns))
        elif "input_layernorm" in name or "pre_feedforward" in name:
            values = np.exp(1.5 * random.standard_normal(rows)) - 1
        else:
            continue
        begin, end = entry["data_offsets"]
        content[begin:end] = bf16(values).tobytes()
    path.write_bytes(safetensors_bytes(header, bytes(content)))
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("some-private-folder") / "letters.txt"
    path.write_text(letters(0, 2000))
    return path


@pytest.fixture(scope="module")
def matrix(model: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("imatrix") / "gemma-3-tiny.imatrix.gguf"
    run("imatrix", model, "-o", path, "--text", text, *SHORT, "-q")
    return path


@pytest.fixture(scope="module")
def made(model: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Method -> artifacts for all containers; not to be changed."""
    root = tmp_path_factory.mktemp("made")
    for method in METHODS:
        options = ("--method", method, "--text", text, *SHORT, "--threads", 2)
        run("convert", model, *options, *EVERYWHERE, "-q", "-o", root / method)
    return {method: root / method for method in METHODS}


def said_of(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = recorded(folder)
    return said


def compared(artifact: Path, source: Path, *options: object, code: int = 0) -> list[dict[str, Any]]:
    done = run("verify", artifact, "--against", source, "--json", *options, code=code)
    found: list[dict[str, Any]] = json.loads(done.stdout)["artifacts"]
    return found


# What is made


@pytest.mark.parametrize("method", METHODS)
def test_all_containers_hold_the_same_codes(method, made):
    held = [open_source(str(made[method] / name)).tensors for name in CONTAINERS]
    assert len(held[0]) == 28
    for name, tensor in held[0].items():
        if name == EMBEDDING or tensor.encoding.is_float:
            continue
        with Reader() as reader:
            found = [values_of(t[name], read_rows(t[name], 0, tensor.rows, reader, bytearray())) for t in held]
        for other in found[1:]:
            np.testing.assert_array_equal(other.codes, found[0].codes)
            np.testing.assert_array_equal(other.scales, found[0].scales)


@pytest.mark.parametrize("method", METHODS)
def test_sizes_are_those_of_the_dry_run_and_of_nearest(method, model, text, made, out):
    """But for the keys about an importance matrix."""
    for options in (("--method", method, "--text", text, *SHORT), ("--method", "nearest")):
        done = run("convert", model, *options, *EVERYWHERE, "--dry-run", "--json", "--force", "-o", made[method])
        artifacts = json.loads(done.stdout)["artifacts"]
        assert [Path(artifact["path"]) for artifact in artifacts] == [made[method] / name for name in CONTAINERS]
        for artifact in artifacts:
            sizes = {name: len(content) for name, content in contained(Path(artifact["path"])).items()}
            foretold = {file["path"]: file["bytes"] for file in artifact["files"]}
            if "nearest" in options and method == "importance" and artifact["container"] == "gguf":
                assert all(0 < sizes[name] - size < 400 for name, size in foretold.items())
            else:
                assert foretold.items() <= sizes.items()
    assert not out.exists()


@pytest.mark.parametrize("method", METHODS)
def test_any_number_of_threads_gives_the_same_bytes(method, model, text, made, out):
    options = ("--method", method, "--text", text, *SHORT)
    run("convert", model, *options, *EVERYWHERE, "-q", "-o", out, "--threads", 1)
    assert tree(out) == tree(made[method])


@pytest.mark.parametrize("method", METHODS)
def test_gemmaq_json_says_what_codes_were_calibrated_on(method, text, made):
    for container in CONTAINERS:
        said = said_of(made[method] / container)
        assert said["recipe"]["calibration"] == {
            "texts": ["letters.txt"],
            "digest": read([text]).digest,
            "tokens": 640,
            "context": 64,
            "damping": 0.01,
            "order": "importance",
            "sweeps": 0,
            "used": 640,
            "matrix": MATRIX if method == "importance" else None,
        }
        methods = {t["name"]: t["method"] for t in said["tensors"]}
        assert sum(found == method for found in methods.values()) == 14
        assert {found for name, found in methods.items() if "embd" in name or "embed" in name} <= {"nearest", None}
    for content in tree(made[method]).values():
        assert content is None or (b"private-folder" not in content and str(text.parent).encode() not in content)


def test_what_is_shown_names_text_and_memory(model, text, out):
    done = run("convert", model, "--method", "gptq", "--text", text, *SHORT, "-o", out, "--dry-run")
    assert "up to 640 tokens of letters.txt, 64 at a time" in done.stderr and "of memory" in done.stderr
    assert str(text.parent) not in done.stderr + done.stdout
    report = json.loads(run("convert", model, "--method", "gptq", "--text", text, *SHORT, "-o", out, "--json").stdout)
    assert report["artifacts"] and out.is_dir()


def test_without_text_the_one_that_comes_along_is_taken(model, out):
    run("convert", model, "--method", "importance", "--calibration-tokens", 2048, "-q", "-o", out)
    known = said_of(out)["recipe"]["calibration"]
    assert (known["texts"], known["digest"]) == (list(shipped().names), shipped().digest)
    assert (known["tokens"], known["context"]) == (2048, 512)
    (entry,) = compared(out, model)  # it is at hand here too
    assert entry["notes"] == [] and all(t["equal"] for t in entry["tensors"])


def test_better_methods_are_nearer_to_the_model(model, tmp_path):
    for name, seed in (("calibration.txt", 1), ("held-out.txt", 2)):
        (tmp_path / name).write_text(letters(seed, 5000))
    methods = ("nearest", "importance", "gptq")
    for method in methods:
        options = ("--text", tmp_path / "calibration.txt", "--calibration-context", 64) if method != "nearest" else ()
        run("convert", model, "--method", method, *options, "--embedding", "bf16", "-q", "-o", tmp_path / method)
    found = run(
        "evaluate", *(tmp_path / method for method in methods), "--reference", model, "--context", 64, "--no-cache",
        "--text", tmp_path / "held-out.txt", "--json",
    )  # fmt: skip
    nearest, importance, gptq = (entry["kl"]["mean"] for entry in json.loads(found.stdout)["models"])
    assert gptq < 0.5 * importance and importance < 0.8 * nearest


def test_a_recipe_file_names_methods_by_tensor(model, text, out, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'to = ["gguf"]\nquant = "q4_0"\nmethod = "nearest"\n'
        '[[rules]]\nmatch = "*.down_proj.weight"\nmethod = "gptq"\n'
        '[[rules]]\nmatch = "*.v_proj.weight"\ntype = "q5_1"\nmethod = "importance"\n'
    )
    run("convert", model, "--recipe", recipe, "--text", text, *SHORT, "-q", "-o", out)
    kinds = {
        (t["name"].split(".", 2)[-1], t["type"], t["method"]) for t in said_of(out)["tensors"] if "blk" in t["name"]
    }
    assert {("ffn_down.weight", "q4_0", "gptq"), ("attn_v.weight", "q5_1", "importance")} <= kinds
    assert ("attn_q.weight", "q4_0", "nearest") in kinds
    (entry,) = compared(out, model, "--text", text)
    assert entry["notes"] == [] and all(t["equal"] for t in entry["tensors"])
    (entry,) = compared(out, model)
    assert sum(t["equal"] is None for t in entry["tensors"]) == 4 and "4 tensors" in entry["notes"][0]
    refused(2, ("--text", "gptq"), "convert", model, "--text", text, "-o", out, under=tmp_path)


def test_other_settings_give_other_codes(model, text, made, out, tmp_path):
    usual = contained(made["gptq"] / "gguf")
    for options in (
        ("--damping", 0.5),
        ("--order", "columns"),
        ("--sweeps", 2),
        ("--calibration-tokens", 128),
        ("--text", text),
    ):
        short = SHORT if options[0] not in SHORT else SHORT[:2]
        words = (*short, "--text", text, *options, *EVERYWHERE, "-q", "--force")
        run("convert", model, "--method", "gptq", *words, "-o", out)
        assert contained(out / "gguf") != usual
        for entry in compared(out, model, *(("--text", text) * (2 if options[0] == "--text" else 1))):
            assert entry["notes"] == [] and all(t["equal"] for t in entry["tensors"])


# verify


@pytest.mark.parametrize("method", METHODS)
def test_codes_are_derived_again_from_the_text(method, model, text, made):
    for entry in compared(made[method], model, "--text", text):
        assert entry["problems"] == entry["notes"] == []
        assert all(t["equal"] for t in entry["tensors"]) and len(entry["tensors"]) == 28
    assert (
        "all 28 tensors are what gemmaq makes" in run("verify", made[method], "--against", model, "--text", text).stdout
    )


@pytest.mark.parametrize("method", METHODS)
def test_without_the_text_codes_are_left_out_and_it_is_said(method, model, made):
    for entry in compared(made[method], model):
        assert entry["problems"] == []
        assert sum(t["equal"] is None for t in entry["tensors"]) == 14
        assert all(t["error"] < 0.3 for t in entry["tensors"])
        (note,) = entry["notes"]
        assert "14 tensors were calibrated on letters.txt" in note and "--text" in note
    done = run("verify", made[method], "--against", model)
    assert "14 of 28 tensors are what gemmaq makes" in done.stdout and "letters.txt" in done.stderr


@pytest.mark.parametrize("name", ["letters.txt", "calibration.jsonl"])
def test_a_text_of_the_same_name_is_told_apart(name, model, made, tmp_path):
    other = tmp_path / name
    other.write_text(json.dumps({"text": letters(9, 2000)}))
    words = ("was not calibrated on", name, "it was calibrated on letters.txt with SHA-256")
    refused(3, words, "verify", made["gptq"], "--against", model, "--text", other, under=tmp_path)


def test_a_text_named_like_ours_is_not_taken_for_it(model, out, tmp_path):
    (tmp_path / "calibration.jsonl").write_text(json.dumps({"text": letters(9, 2000)}))
    run("convert", model, "--method", "gptq", "--text", tmp_path / "calibration.jsonl", *SHORT, "-q", "-o", out)
    (entry,) = compared(out, model)
    assert "14 tensors" in entry["notes"][0]


@pytest.mark.parametrize("method", METHODS)
def test_a_changed_code_is_seen(method, model, text, made, tmp_path):
    artifact = Path(shutil.copytree(made[method] / "mlx", tmp_path / "mlx"))
    path = artifact / "model.safetensors"
    header, data = header_of(path)
    begin, _ = header["model.layers.1.self_attn.q_proj.weight"]["data_offsets"]
    path.write_bytes(safetensors_bytes(header, data[:begin] + bytes([data[begin] ^ 1]) + data[begin + 1 :]))
    (entry,) = compared(artifact, model, "--text", text, code=8)
    (bad,) = (t for t in entry["tensors"] if not t["equal"])
    assert bad["name"] == "model.layers.1.self_attn.q_proj.weight" and bad["differing"] == 1


def test_a_weighed_gguf_names_its_matrix_as_llama_quantize_does(model, text, matrix, made, out, tmp_path):
    def about(folder: Path) -> dict[str, Any]:
        (path,) = folder.glob("*.gguf")
        keys = gguf_reader.parse(FileSpan.of(path)).keys
        return {key: value for key, value in keys.items() if "quantize" in key}

    named = {f"quantize.imatrix.{key}": MATRIX[name] for key, name in (("file", "file"), ("entries_count", "entries"))}
    named |= {"quantize.imatrix.dataset": "letters.txt", "quantize.imatrix.chunks_count": 10}
    assert about(made["importance"] / "gguf") == {"general.quantized_by": "gemmaq"} | named
    assert about(made["gptq"] / "gguf") == {"general.quantized_by": "gemmaq"}
    for number, types in enumerate((("--quant", "q8_0"), ("--quant", "bf16"))):
        again = tmp_path / str(number)
        run("convert", made["importance"] / "gguf", *types, "-q", "-o", again)
        assert about(again) == ({"general.quantized_by": "gemmaq"} if "q8_0" in types else {})
    moved = Path(shutil.copy(matrix, tmp_path / "other name"))
    run("convert", model, "--method", "importance", "--imatrix", moved, "-q", "-o", out)
    assert about(out)["quantize.imatrix.file"] == "other name"
    (entry,) = compared(out, model, "--imatrix", matrix)
    assert entry["notes"] == []


def test_what_a_gguf_says_of_its_matrix_is_derived_again(model, text, made, tmp_path):
    artifact = Path(shutil.copytree(made["importance"] / "gguf", tmp_path / "gguf"))
    (path,), record = artifact.glob("*.gguf"), artifact / "gemmaq.json"
    key = b"quantize.imatrix.chunks_count" + (4).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(key + b"\x0a", key + b"\x0b"))
    record.write_text(record.read_text().replace('"chunks": 10', '"chunks": 11'))
    done = run("verify", artifact, "--against", model, "--text", text, code=8)
    assert "its header is not what gemmaq writes" in done.stdout


def test_another_source_is_seen(text, made, tmp_path):
    other = small_model(tmp_path / "gemma-3-tiny", seed=1)
    (entry,) = compared(made["gptq"] / "gguf", other, "--text", text, code=8)
    assert not any(t["equal"] for t in entry["tensors"] if t["kind"] != "norm")


def test_verify_refuses_what_serves_nothing(model, text, matrix, made, out, tmp_path):
    run("convert", model, "-q", "-o", out)
    words = ("was not calibrated on anything",)
    refused(2, words, "verify", out, "--against", model, "--text", text, under=tmp_path)
    both = ("--text", text, "--imatrix", matrix)
    refused(2, ("exclude each other",), "verify", made["gptq"], "--against", model, *both, under=tmp_path)
    for flag, value in (("--text", text), ("--imatrix", matrix)):
        refused(2, (flag, "--against"), "verify", made["gptq"], flag, value, under=tmp_path)
    refused(3, ("not calibrated on",), "verify", made["gptq"], "--against", model, "--imatrix", matrix, under=tmp_path)


def test_a_calibration_that_cannot_be_is_not_believed(model, made, tmp_path):
    artifact = Path(shutil.copytree(made["gptq"] / "gguf", tmp_path / "gguf"))
    good = (artifact / "gemmaq.json").read_text()
    for before, after in (
        ('"context": 64', '"context": 0'),
        ('"tokens": 640', '"tokens": "x"'),
        ('["letters.txt"]', "[7]"),
    ):
        assert before in good
        (artifact / "gemmaq.json").write_text(good.replace(before, after))
        assert "gemmaq.json is not what gemmaq writes" in run("verify", artifact, "--against", model, code=8).stdout


# Importance matrices


def test_an_imatrix_gives_the_bytes_of_its_text(model, matrix, made, out):
    run("convert", model, "--method", "importance", "--imatrix", matrix, *EVERYWHERE, "-q", "-o", out)
    assert contained(out) == contained(made["importance"])
    known = said_of(out / "gguf")["recipe"]["calibration"]
    assert known["texts"] == [] and len(known["digest"]) == 64
    assert (known["used"], known["matrix"]) == (640, MATRIX)
    for entry in compared(out, model, "--imatrix", matrix):
        assert entry["notes"] == [] and all(t["equal"] for t in entry["tensors"])
    assert all("--imatrix" in entry["notes"][0] for entry in compared(out, model))


def test_an_imatrix_of_another_model_is_refused(model, matrix, text, out, tmp_path):
    small_model(tmp_path / "deeper", replace(SMALL, num_hidden_layers=3, layer_pattern=pattern(3, 6)))
    small_model(tmp_path / "wider", replace(SMALL, intermediate_size=128))
    for name in ("deeper", "wider"):
        words = ("another model", "model.layers.")
        options = ("--method", "importance", "--imatrix", matrix, "-o", out)
        refused(3, words, "convert", tmp_path / name, *options, under=tmp_path)
    options = ("--method", "importance", "--imatrix", text, "-o", out)
    refused(3, ("not a usable importance matrix",), "convert", model, *options, under=tmp_path)
    refused(5, ("absent",), "convert", model, *options[:3], tmp_path / "absent", "-o", out, under=tmp_path)


def test_imatrix_says_what_it_did(model, text, tmp_path):
    path = tmp_path / "imatrix.gguf"
    words = ("imatrix", model, "-o", path, "--text", text, *SHORT)
    dry = run(*words, "--dry-run")
    assert not path.exists() and "10 sequences of 64 tokens from letters.txt" in dry.stderr and "dry run" in dry.stderr
    told = json.loads(run(*words, "--dry-run", "--json").stdout)
    assert not path.exists() and "matrices" not in told
    assert (told["texts"], told["sequences"], told["tokens"]) == (["letters.txt"], 10, 640)
    said = json.loads(run(*words, "--json").stdout)
    assert {**said, **told} == said
    assert (said["matrices"], said["bytes"]) == (14, path.stat().st_size)
    before = path.read_bytes()
    for more in ((), ("--dry-run",)):
        refused(7, ("exists", "--force"), *words, *more, under=tmp_path)
    quiet = run(*words, "-q", "--force", "--threads", 1)
    assert (quiet.stdout, quiet.stderr) == (f"{path}\n", "")
    assert path.read_bytes() == before
    assert (imatrix.read(path).chunks, imatrix.read(path).datasets) == (10, ("letters.txt",))
    for wrong in (tmp_path, tmp_path / "absent/imatrix.gguf"):
        refused(7, ("cannot be written",), *words[:3], wrong, *words[4:], "--force", under=tmp_path)


# What is refused


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--method", "nearest", "--text", "TEXT"), 2, ("--text", "importance and gptq")),
        (("--text", "TEXT"), 2, ("--text", "importance and gptq")),
        (("--imatrix", "MATRIX"), 2, ("--imatrix is for method importance",)),
        (("--calibration-context", 64), 2, ("--calibration-context", "importance and gptq")),
        (("--order", "columns"), 2, ("--order is for method gptq only",)),
        (("--sweeps", 2), 2, ("--sweeps is for method gptq only",)),
        (("--method", "importance", "--sweeps", 2), 2, ("--sweeps is for method gptq only",)),
        (("--method", "gptq", "--imatrix", "MATRIX"), 2, ("--imatrix is for method importance", "--text")),
        (("--method", "importance", "--imatrix", "MATRIX", "--text", "TEXT"), 2, ("--imatrix", "--text")),
        (("--method", "importance", "--imatrix", "MATRIX", "--calibration-tokens", 64), 2, ("--calibration-tokens",)),
        (("--method", "importance", "--damping", 0.1), 2, ("--damping", "gptq")),
        (("--method", "importance", "--order", "columns"), 2, ("--order", "gptq")),
        (("--method", "gptq", "--damping", 0), 2, ("--damping",)),
        (("--method", "gptq", "--damping", 1.5), 2, ("--damping",)),
        (("--method", "gptq", "--damping", "nan"), 2, ("--damping",)),
        (("--method", "gptq", "--order", "random"), 2, ("random", "columns")),
        (("--method", "gptq", "--calibration-context", 8), 2, ("--calibration-context",)),
        (("--method", "gptq", "--device", "nope"), 2, ("nope",)),
        (("--method", "gptq", "--text", "absent.txt"), 5, ("absent.txt",)),
        (("--method", "gptq", "--text", "EMPTY"), 3, ("no text",)),
        (("--method", "gptq", "--text", "TINY"), 3, ("fewer than 512 tokens", "shorter sequences")),
        (("--method", "importance", "--text", "TINY"), 3, ("fewer than 512 tokens",)),
        (("--method", "gptq", "--calibration-context", 4096), 3, ("4096 tokens is longer than the model's 2048",)),
    ],
)
def test_what_cannot_be_is_told(options, code, words, text, matrix, out, tmp_path):
    source = tmp_path / "source/gemma-3-tiny"
    small_model(source, replace(SMALL, hidden_size=256, intermediate_size=256))  # what K types need
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "tiny.txt").write_text("too little")
    files = {"TEXT": text, "MATRIX": matrix, "EMPTY": tmp_path / "empty.txt", "TINY": tmp_path / "tiny.txt"}
    given = [files.get(word, word) for word in options]
    refused(code, words, "convert", source, *given, "-o", out, under=tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_an_existing_output_is_refused_before_any_work(method, model, text, out, tmp_path, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("work has begun")

    out.mkdir()
    for step in ("_imatrix", "_solve"):
        monkeypatch.setattr(f"gemmaq.calibration.complete.{step}", never)
    options = ("--method", method, "--text", text, "-o", out)
    refused(7, ("exists", "--force"), "convert", model, *options, under=tmp_path)
    refused(7, ("which is read",), "convert", model, *options[:4], "-o", model, "--force", under=model.parent)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80])
@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight", FINAL_NORM]
)
def test_nan_and_infinite_weights_are_refused_naming_the_tensor(name, bits, method, text, out, tmp_path):
    source = small_model(tmp_path / "source/gemma-3-tiny")
    poison(source, name, bits)
    options = ("--method", method, "--text", text, *SHORT, "-o", out)
    refused(3, (name, "NaN or infinite"), "convert", source, *options, under=tmp_path)


@pytest.mark.parametrize("quant", ["q4_0", "q4_1", "q8_0"])
def test_weights_too_large_for_the_type_are_refused_naming_the_tensor(quant, text, out, tmp_path):
    source, name = small_model(tmp_path / "source/gemma-3-tiny"), "model.layers.0.self_attn.k_proj.weight"
    poison(source, name, 0x4D18)  # 1.6e8
    options = ("--method", "gptq", "--quant", quant, "--text", text, *SHORT, "-o", out)
    done = refused(3, (name, quant.upper(), "too large", "bf16"), "convert", source, *options, under=tmp_path)
    assert ".partial" not in done.stderr


def test_what_codes_are_calibrated_on_is_not_replaced(model, text, matrix, out, tmp_path):
    run("convert", model, "-q", "-o", out)
    for path, flag in ((matrix, "--imatrix"), (text, "--text")):
        inside = Path(shutil.copy(path, out / Path(path).name))
        words = (f"holds {inside.name}, which is read",)
        flags = ("--method", "importance", flag, inside, "-o", out, "--force")
        (out / "SHA256SUMS").unlink(missing_ok=True)
        done = run("convert", model, *flags, code=7)
        assert inside.exists() and (words[0] in done.stderr or inside.name in done.stderr)


@pytest.mark.parametrize("command", ["gptq", "importance", "imatrix"])
def test_an_interrupted_calibration_goes_on_by_the_same_command(
    model: Path, text: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["imatrix", model] if command == "imatrix" else ["convert", model, "--method", command]
    words = [*words, "--text", text, *SHORT, "-q", "-o"]
    run(*words, tmp_path / "whole")
    loaded, usual = [], Decoder.layer

    def layer(net: Decoder, index: int) -> Any:
        if len(loaded) == 1:
            loaded.append(-1)
            raise KeyboardInterrupt
        loaded.append(index)
        return usual(net, index)

    monkeypatch.setattr(Decoder, "layer", layer)
    assert run_any(*words, tmp_path / "out", "--resume").code == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.work", "whole"]
    run(*words, tmp_path / "out", "--resume")
    assert loaded == [0, -1, 1], "the first layer is not computed again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    assert _contents(tmp_path / "out") == _contents(tmp_path / "whole")


def _contents(path: Path) -> Any:
    return tree(path) if path.is_dir() else path.read_bytes()


def test_resume_without_a_calibration_on_text_is_refused(model: Path, text: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out", "--resume")
    run("imatrix", model, "--text", text, *SHORT, "-q", "-o", tmp_path / "imatrix.gguf")
    matrix = ("--imatrix", tmp_path / "imatrix.gguf", "--method", "importance")
    refused(2, ("--resume", "nothing is calibrated on text"), "convert", model, *out, under=tmp_path)
    refused(2, ("--resume", "nothing is calibrated on text"), "convert", model, *matrix, *out, under=tmp_path)
    refused(2, ("--resume", "files are only merged"), "imatrix", "--merge", matrix[1], *out, under=tmp_path)


@pytest.mark.parametrize("command", [("convert", "--method", "importance"), ("imatrix",)])
def test_a_folder_of_the_users_is_not_what_a_run_keeps(
    command: tuple[str, ...], model: Path, text: Path, tmp_path: Path
) -> None:
    name, *method = command
    words = (name, model, *method, "--text", text, *SHORT, "-q", "-o", tmp_path / "out", "--resume")
    (tmp_path / "out.work/gptq").mkdir(parents=True)
    (tmp_path / "out.work/thesis.txt").write_text("years of work")
    refused(7, ("out.work", "holds gptq", "move it away"), *words, under=tmp_path)
    (tmp_path / "out.work").rename(tmp_path / "mine")
    (tmp_path / "out.work").symlink_to(tmp_path / "mine")
    refused(7, ("out.work", "in the way"), *words, under=tmp_path)


def test_a_run_killed_when_its_output_was_there_is_finished_by_the_same_command(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("convert", model, "--method", "gptq", "--text", text, *SHORT, "-q", "-o", tmp_path / "out", "--resume")
    with monkeypatch.context() as killed:
        killed.setattr("gemmaq.calibration.resume._finish", lambda folder: None)
        run(*words)
    made = tree(tmp_path / "out")
    assert (tmp_path / "out.work").is_dir()
    run(*words)
    assert tree(tmp_path) == {f"out/{name}": content for name, content in made.items()} | {"out": None}
    run(*words, code=7)
