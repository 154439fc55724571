"""GGUF files of drafters: against llama.cpp's converter and llama-quantize, on QAT's grid, and back as a source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gemma4_drafter
from conversions import conversions
from gemma4_drafter import DRAFTERS
from gemmaq.checkpoint.rows import weights
from gemmaq.encodings import by_ggml_type
from gemmaq.files.span import Reader
from gemmaq.models.gemma4_drafter.names import EMBEDDING, POST, PRE, place
from gemmaq.sources.open import open_source
from grids import trained_for_q4_0
from inprocess import run
from oracles import llama_quantize, need_ggml, read_gguf
from reference import convert_gemma4, need_converter

Require = Callable[[bool, str], None]

OURS_ONLY = {"general.license", "general.license.link"}
NAMED_OTHERWISE = {"general.name", "general.size_label", "general.basename", "general.finetune"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Hugging Face folder of every kind."""
    root = tmp_path_factory.mktemp("drafters")
    return {
        kind: gemma4_drafter.write(root / f"gemma-4-{kind}-it-assistant", drafter) for kind, drafter in DRAFTERS.items()
    }


@pytest.fixture(scope="module")
def converted(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The GGUF file of a kind in a type."""
    convert = conversions(folders, tmp_path_factory.mktemp("made"), "--quant")
    return lambda *options: next(convert(*options).glob("*.gguf"))


def kinds_of(path: Path) -> dict[str, str]:
    """Type of every tensor."""
    return {name: by_ggml_type(kind).name for name, (kind, _, _) in read_gguf(path)[1].items()}  # type: ignore[union-attr]


def test_a_file_goes_by_the_name_of_the_target(converted: Callable[..., Path]) -> None:
    path = converted("dense", "q4_0")
    assert path.name == "mtp-gemma-4-dense-it-Q4_0.gguf"
    assert {file.name for file in path.parent.iterdir()} == {path.name, "README.md", "SHA256SUMS", "gemmaq.json"}
    keys = read_gguf(path)[0]
    assert keys["general.name"][1] == "Gemma 4 Dense It Assistant"
    assert keys["gemma4-assistant.embedding_length_out"][1] == 256


@pytest.mark.parametrize("quant", ["q4_0", "q8_0", "bf16"])
def test_projections_have_the_type_of_the_body(converted: Callable[..., Path], quant: str) -> None:
    kinds = kinds_of(converted("dense", quant))
    assert kinds["nextn.pre_projection.weight"] == kinds["nextn.post_projection.weight"] == quant
    assert kinds["blk.0.attn_q.weight"] == kinds["blk.3.ffn_down.weight"] == quant
    assert {kinds[name] for name in ("rope_freqs.weight", "blk.0.layer_output_scale.weight")} == {"f32"}


def test_centroids_are_left_out_and_that_is_said(folders: dict[str, Path], tmp_path: Path) -> None:
    """llama.cpp refuses files that have them."""
    said = run("convert", folders["effective"], "--dry-run", "-o", tmp_path / "out").stderr
    assert "the centroids are left out" in said and "vision" not in said
    assert "centroids" not in run("convert", folders["dense"], "--dry-run", "-o", tmp_path / "out").stderr


def test_a_file_is_a_source_again(converted: Callable[..., Path], tmp_path: Path) -> None:
    first = converted("effective", "bf16")
    run("convert", first, "--quant", "q4_0", "-q", "-o", tmp_path / "again")
    (again,) = (tmp_path / "again").glob("*.gguf")
    assert read_gguf(again)[1] == read_gguf(converted("effective", "q4_0"))[1]
    checkpoint = open_source(str(first))
    assert checkpoint.family.drafts and checkpoint.config == DRAFTERS["effective"].config
    assert json.loads(run("inspect", first, "--json").stdout)["architecture"] == checkpoint.family.name


def test_a_file_with_centroids_is_a_source_without_them(folders: dict[str, Path], tmp_path: Path) -> None:
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    run("convert", folders["effective"], "--quant", "bf16", "-q", "-o", tmp_path / "plain")
    (plain,) = (tmp_path / "plain").glob("*.gguf")
    reader = GGUFReader(plain)
    writer = GGUFWriter(tmp_path / "mtp-other.gguf", "gemma4-assistant")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            array = field.types[0] == GGUFValueType.ARRAY
            kinds = {"sub_type": field.types[-1]} if array else {}
            writer.add_key_value(field.name, field.contents(), field.types[0], **kinds)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.add_tensor("masked_embd_centroids.weight", np.zeros((16, 64), np.float16))
    writer.add_tensor("masked_embd_ordering", np.arange(512, dtype=np.int32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    run("convert", tmp_path / "mtp-other.gguf", "--quant", "bf16", "-q", "-o", tmp_path / "out")
    (made,) = (tmp_path / "out").glob("*.gguf")
    assert read_gguf(made)[1] == read_gguf(plain)[1]
    (note,) = open_source(str(tmp_path / "mtp-other.gguf")).notes
    assert "masked_embd_centroids.weight" in note


def test_a_drafter_of_a_qat_model_keeps_its_codes(tmp_path: Path) -> None:
    """The embedding and the projections lie on the grid, too."""
    drafter = DRAFTERS["dense"]
    made = {
        name: trained_for_q4_0(x) if place(name).role.is_quantizable else x
        for name, x in gemma4_drafter.weights(drafter.config)
    }
    source = gemma4_drafter.write(tmp_path / "gemma-4-dense-it-qat-q4_0-unquantized-assistant", drafter, made)
    report = json.loads(run("convert", source, "--quant", "q4_0", "--json", "-o", tmp_path / "out").stdout)
    assert {entry["verdict"] for entry in report["grid"]} == {"whole"} and len(report["grid"]) == 23
    (path,) = (tmp_path / "out").glob("*.gguf")
    assert path.name == "mtp-gemma-4-dense-it-qat-Q4_0.gguf"
    result = open_source(str(path))
    with Reader() as reader:
        for name in (EMBEDDING, PRE, POST, "model.layers.3.self_attn.q_proj.weight"):
            tensor = result.tensors[name]
            found = weights(tensor, 0, tensor.rows, reader)
            assert tensor.encoding.name == "q4_0" and np.allclose(found, made[name], rtol=2**-7, atol=0), name
    run("verify", tmp_path / "out", "--against", source)


@pytest.mark.parametrize(
    ("command", "flags", "code", "words"),
    [
        ("convert", ("--to", "mlx"), 2, "a Gemma 4 drafter is not written to mlx"),
        ("convert", ("--to", "safetensors", "--quant", "bf16"), 2, "is not written to safetensors"),
        ("convert", ("--method", "gptq"), 2, "runs beside its target alone"),
        ("convert", ("--method", "importance"), 2, "runs beside its target alone"),
        ("imatrix", (), 3, "runs beside its target alone"),
        ("evaluate", (), 3, "runs beside its target alone"),
        ("qat", (), 3, "runs beside its target alone"),
    ],
)
def test_what_runs_the_model_is_refused(
    folders: dict[str, Path], tmp_path: Path, command: str, flags: tuple[str, ...], code: int, words: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the other nation " * 400)
    source, more = folders["dense"], [*flags]
    if command != "convert" or "--method" in flags:
        more += ["--text", text]
    if command == "evaluate":
        more += ["--reference", source]
    else:
        more += ["-o", tmp_path / ("out.gguf" if command == "imatrix" else "out")]
    assert words in run(command, source, *more, code=code).stderr
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.gguf").exists()


@pytest.fixture(scope="module")
def theirs(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of llama.cpp's converter."""
    folder = tmp_path_factory.mktemp("theirs")
    jobs = [(folders[kind], quant, folder / f"{kind}-{quant}.gguf") for kind in DRAFTERS for quant in ("bf16", "f16")]
    convert_gemma4(jobs)
    return folder


@pytest.mark.slow
@pytest.mark.oracle
def test_keys_and_tensors_are_those_of_the_reference_converter(
    require: Require, converted: Callable[..., Path], request: pytest.FixtureRequest
) -> None:
    """It leaves out the centroids as well."""
    need_converter(require)
    files = list(request.getfixturevalue("theirs").iterdir())
    assert len(files) == 2 * len(DRAFTERS)
    for path in files:
        (our_keys, our_tensors), (keys, tensors) = read_gguf(converted(*path.stem.split("-"))), read_gguf(path)
        assert our_tensors == tensors
        for key in NAMED_OTHERWISE | OURS_ONLY:
            our_keys.pop(key, None)
            keys.pop(key, None)
        assert our_keys == keys


@pytest.mark.oracle
@pytest.mark.parametrize("quant", ["q4_0", "q8_0", "q4_k_m"])
@pytest.mark.parametrize("kind", ["dense", "effective", "unified"])
def test_every_byte_is_that_of_llama_quantize(
    require: Require, converted: Callable[..., Path], tmp_path: Path, kind: str, quant: str
) -> None:
    need_ggml(require)
    theirs = tmp_path / "theirs.gguf"
    llama_quantize(converted(kind, "bf16"), theirs, quant)
    assert kinds_of(converted(kind, quant)) == kinds_of(theirs)
    assert read_gguf(converted(kind, quant))[1] == read_gguf(theirs)[1]
