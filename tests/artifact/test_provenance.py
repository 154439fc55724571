"""gemmaq.json: source, recipe, files, and the outcome of every tensor."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from damage import contained, edit_json
from gemmaq import __version__
from gemmaq.artifact import provenance
from gemmaq.convert.run import Conversion, Options, prepare
from gemmaq.convert.run import run as convert
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError
from gemmaq.files import sums
from gemmaq.planning.mixtures import MIXTURES
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Budget, Calibration, Matrix, Refinement, Request
from gemmaq.planning.rules import Rule, regex
from gemmaq.sources.open import open_source
from inprocess import run
from kinds import KINDS, folders
from records import recorded

MATRIX = Matrix("some.imatrix.gguf", ("a.txt", "b.txt"), 7, 3, 99)


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = recorded(folder)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_gemmaq_json_tells_of_source_recipe_files_and_tensors(
    kind: str, sources: dict[str, Path], made: dict[str, Path]
) -> None:
    source = sources[kind]
    for folder in folders(made[kind]):
        said = document(folder)
        whole = json.loads((folder / "gemmaq.json").read_text())
        assert (whole["schema"], said["gemmaq"]) == ("gemmaq.artifact/2", __version__)
        about = said["source"]
        assert (about["name"], about["repo"], about["revision"]) == (source.name, None, None)
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.iterdir()}
        assert {file["path"]: file["sha256"] for file in about["files"]} == digests
        weights = [name for name in contained(folder) if name.endswith((".gguf", ".safetensors"))]
        assert sorted(file["path"] for file in said["files"]) == weights
        for file in said["files"]:
            assert file["bytes"] == (folder / file["path"]).stat().st_size
            assert file["sha256"] == sums.read(folder)[file["path"]]
        options = KINDS[kind]
        quant = options[options.index("--quant") + 1] if "--quant" in options else "q4_0"
        asked = {"quant": quant, "embedding": None, "method": "auto", "rules": [], "portable": False}
        assert {key: said["recipe"][key] for key in asked} == asked
        assert whole["container"] in said["recipe"]["to"]
        for tensor in said["tensors"]:
            assert set(tensor) == {"name", "shape", "type", "method", "how", "rounded"}
            assert (tensor["method"] == "nearest") == (tensor["how"] == "quantized")


def test_codes_taken_over_are_told(made: dict[str, Path], tmp_path: Path) -> None:
    start = next(made["gguf"].glob("*.gguf"))
    run("convert", start, "--to", "mlx", "--quant", "auto", "-q", "-o", tmp_path / "out")
    said = document(tmp_path / "out")
    tensors = {tensor["name"]: tensor for tensor in said["tensors"]}
    assert tensors["model.layers.0.self_attn.q_proj.weight"]["how"] == "exact"
    assert tensors["model.embed_tokens.weight"]["how"] == "rounded"
    assert tensors["model.embed_tokens.weight"]["rounded"] > 0
    assert said["source"]["format"] == "gguf" and said["method"] == []
    assert [file["path"] for file in said["source"]["files"]] == sorted(p.name for p in start.parent.glob("*.gguf"))


def test_a_recipe_is_recorded_with_its_rules(source: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('quant = "q5_0"\nmethod = "nearest"\n[[rules]]\nmatch = "*.k_proj.*"\ntype = "q8_0"\n')
    run("convert", source, "--recipe", recipe, "--embedding", "f16", "--portable", "-q", "-o", tmp_path / "out")
    asked = document(tmp_path / "out")["recipe"]
    assert (asked["quant"], asked["embedding"], asked["method"], asked["portable"]) == ("q5_0", "f16", "nearest", True)
    assert asked["rules"] == [{"match": "*.k_proj.*", "type": "q8_0", "method": None}]
    run("verify", tmp_path / "out", "--against", source, "-q")


def test_a_note_tells_no_path(made: dict[str, Path], tmp_path: Path) -> None:
    """A projector that is not the model's is passed over with a note that says where it lies."""
    folder = tmp_path / "here"
    folder.mkdir()
    for path in made["gguf"].glob("*.gguf"):
        shutil.copy(path, folder)
    shutil.copy(next(made["gguf"].glob("*.gguf")), folder / "mmproj-odd.gguf")
    run("convert", folder, "-q", "--quant", "auto", "-o", tmp_path / "out")
    warnings = document(tmp_path / "out")["warnings"]
    assert any(warning.startswith("mmproj-odd.gguf is passed over") for warning in warnings), warnings
    assert str(tmp_path) not in (tmp_path / "out/gemmaq.json").read_text()


def test_a_source_that_changes_its_config_has_other_digests(source: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(source, tmp_path / source.name))
    edit_json(changed / "config.json", lambda config: config.update(comment="mine"))
    for number, folder in enumerate((source, changed)):
        run("convert", folder, "-q", "-o", tmp_path / str(number))
    assert contained(tmp_path / "0") == contained(tmp_path / "1")
    assert document(tmp_path / "0")["tensors"] == document(tmp_path / "1")["tensors"]
    assert document(tmp_path / "0")["source"] != document(tmp_path / "1")["source"]


def test_every_field_of_a_request_comes_back_from_gemmaq_json(sources: dict[str, Path], tmp_path: Path) -> None:
    """A field that is forgotten there would make `verify --against` derive other bytes."""
    rules = (Rule("*.layers.0.*", ENCODINGS["q8_0"], "nearest"), regex("attn_[kv]", ENCODINGS["q5_0"]))
    like = {"model.layers.1.mlp.up_proj.weight": ENCODINGS["q4_0"]}
    request = Request(
        recipe=replace(of("q4_0", embedding="q8_0", method="nearest", rules=rules), like=like, name="4.60bpw"),
        to=("gguf", "mlx"),
        portable=True,
        scales="f16",
        mmproj=None,
        draft=True,
        shard_bytes=123_456,
        calibration=Calibration(
            ("a.txt",),
            "0" * 64,
            tokens=99,
            context=33,
            damping=0.5,
            order="columns",
            sweeps=3,
            used=66,
            matrix=MATRIX,
            refine=Refinement(1.5, 20, 15, 0.25, 0.125),
        ),
        budget=Budget("4.6 bits per weight", "1" * 64, 0.25, "Q4_0", 0.5),
    )
    usual = Request(of("q5_0"), ("mlx",))
    same = [field.name for field in fields(Request) if getattr(request, field.name) == getattr(usual, field.name)]
    assert same == ["dense_heads"], f"give these fields a value of their own above: {same}"  # only where models embed
    conversion = Conversion(open_source(str(sources["gguf"])), (request,), tmp_path / "out")
    convert(conversion, prepare(conversion).plans, Options(threads=1))
    for container in request.to:
        (record,) = provenance.read(tmp_path / "out" / container)
        assert record.request == request


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: said.pop("container"), "'container' is missing or unknown"),
        (lambda said: said.update(models=[]), "no models"),
        (lambda said: said["models"][0].pop("recipe"), "'recipe' is missing or unknown"),
        (lambda said: said["models"][0]["tensors"][0].update(type="q9_9"), "'q9_9' is missing or unknown"),
        (lambda said: said["models"][0].update(type="Q4_0 `rm`"), "is no type"),
        (lambda said: said["models"][0]["files"][0].update(bytes=-1), "-1"),
        (lambda said: said["models"][0]["files"][0].update(path="../secret.gguf"), "outside the folder"),
        (lambda said: said["models"][0]["files"][0].update(path="/etc/secret.gguf"), "outside the folder"),
    ],
)
def test_an_odd_record_is_refused_in_plain_words(
    change: Callable[[dict[str, Any]], object], words: str, made: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made["gguf"], tmp_path / "copy"))
    edit_json(folder / provenance.NAME, change)
    with pytest.raises(InputError, match="is not what gemmaq writes") as refused:
        provenance.read(folder)
    assert words in str(refused.value) and "Error" not in str(refused.value) and refused.value.hint


def test_every_type_has_a_name_that_a_record_may_have(made: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made["gguf"], tmp_path / "copy"))
    for choice in (*ENCODINGS.values(), *MIXTURES.values()):
        edit_json(folder / provenance.NAME, lambda said, label=choice.label: said["models"][0].update(type=label))
        assert provenance.read(folder)[0].label == choice.label
