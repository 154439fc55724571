"""Types chosen by hand: --tensor-type and --like."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import gemma4
import gemma4_tokenizer
from damage import SMALL, small_model
from gemmaq.models.gemma3.config import pattern
from inprocess import refused, run
from records import recorded


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "gemma-3-small")


def types(folder: Path) -> dict[str, str]:
    """Type of every tensor of an artifact that is no vector."""
    (record,) = [recorded(folder)]
    return {tensor["name"]: tensor["type"] for tensor in record["tensors"] if len(tensor["shape"]) > 1}


def test_tensors_get_the_type_of_the_first_pattern_that_their_name_has(model: Path, tmp_path: Path) -> None:
    by_hand = ("--tensor-type", "blk\\.0\\.attn_[qk]=Q5_0", "--tensor-type", "attn=q8_0", "--tensor-type", "EMBD=q4_1")
    run("convert", model, "--embedding", "f16", *by_hand, "-q", "-o", tmp_path / "out")
    for name, kind in types(tmp_path / "out").items():
        first = {"blk.0.attn_q.weight": "q5_0", "blk.0.attn_k.weight": "q5_0", "token_embd.weight": "q4_1"}
        assert kind == first.get(name, "q8_0" if "attn" in name else "q4_0")
    (rule, *_) = recorded(tmp_path / "out")["recipe"]["rules"]
    assert rule == {"regex": "blk\\.0\\.attn_[qk]", "type": "q5_0", "method": None}
    run("verify", tmp_path / "out", "--against", model, "-q")


def test_names_are_those_of_gguf_in_every_container(model: Path, tmp_path: Path) -> None:
    run("convert", model, "--tensor-type", "ffn_(?=up)=q8_0", "--to", "gguf,mlx", "-q", "-o", tmp_path / "out")
    for container, up in (("gguf", "ffn_up"), ("mlx", "up_proj")):
        found = {name for name, kind in types(tmp_path / "out" / container).items() if kind == "q8_0"}
        assert {name for name in found if "embed" not in name and "embd" not in name} == {
            name for name in types(tmp_path / "out" / container) if up in name
        }
        run("verify", tmp_path / "out" / container, "--against", model, "-q")


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("attn_v", 2, ("'attn_v' is not REGEX=TYPE",)),
        ("=q8_0", 2, ("'=q8_0' is not REGEX=TYPE",)),
        ("attn_v=", 2, ("'attn_v=' is not REGEX=TYPE",)),
        ("attn_(=q8_0", 2, ("'attn_(' is not a regular expression",)),
        ("attn_v=q9_0", 2, ("unknown type 'q9_0'", "q8_0")),
        ("attn_v=q4_k_m", 2, ("Q4_K_M is a mixture", "q4_k")),
        ("attn_w=q8_0", 2, ("'attn_w' is in the name of no tensor", "blk.1.")),
        ("attn_q_norm=q8_0", 2, ("'attn_q_norm' is in the name of no tensor",)),
        ("attn_v=q6_k", 3, ("cannot be Q6_K", "no multiple of 256")),
        ("attn_v=affine4", 3, ("cannot be AFFINE4 here",)),
    ],
)
def test_a_mistake_is_told(model: Path, tmp_path: Path, value: str, code: int, words: tuple[str, ...]) -> None:
    refused(code, words, "convert", model, "--tensor-type", value, "-o", tmp_path / "out", under=tmp_path)


@pytest.fixture(scope="module")
def pattern_file(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a type of its own for every kind of tensor."""
    out = tmp_path_factory.mktemp("like")
    by_hand = [f"{name}={kind}" for name, kind in (("attn_v", "q8_0"), ("ffn_down", "q5_1"), ("token", "q5_0"))]
    run("convert", model, "--quant", "q4_1", *(w for v in by_hand for w in ("--tensor-type", v)), "-q", "-o", out / "x")
    return next((out / "x").glob("*.gguf"))


def test_a_pattern_given_twice_is_a_mistake(model: Path, tmp_path: Path) -> None:
    twice = ("--tensor-type", "attn_v=q8_0", "--tensor-type", "attn_v=q4_1")
    refused(2, ("--tensor-type has 'attn_v' twice",), "convert", model, *twice, "-o", tmp_path / "out", under=tmp_path)


def test_a_mixture_is_no_type_of_an_embedding(model: Path, tmp_path: Path) -> None:
    asked = ("convert", model, "--embedding", "q4_k_m", "-o", tmp_path / "out")
    refused(2, ("Q4_K_M is a mixture", "q4_k"), *asked, under=tmp_path)


def test_the_types_of_another_file_are_taken_over(model: Path, pattern_file: Path, tmp_path: Path) -> None:
    done = run("convert", model, "--like", pattern_file, "-o", tmp_path / "out")
    assert f"note: types are those of {pattern_file.name}" in done.stderr
    (made,) = (tmp_path / "out").glob("*.gguf")
    assert made.name == pattern_file.name and made.read_bytes() == pattern_file.read_bytes()
    record = recorded(tmp_path / "out")
    assert set(record["recipe"]["like"]) == {"q4_1", "q5_1", "q8_0", "q5_0"} and record["recipe"]["quant"] == "q4_1"
    assert f"types are those of {pattern_file.name}" in record["warnings"]
    told = run("verify", tmp_path / "out", "--against", model).stderr
    assert "not compared" in told and pattern_file.name in told


def test_other_choices_come_before_another_files_types(model: Path, pattern_file: Path, tmp_path: Path) -> None:
    more = ("--tensor-type", "attn_v=q5_1", "--embedding", "q8_0")
    run("convert", model, "--like", pattern_file, *more, "-q", "-o", tmp_path / "out")
    found = types(tmp_path / "out")
    assert (found["blk.0.attn_v.weight"], found["token_embd.weight"]) == ("q5_1", "q8_0")
    assert (found["blk.0.ffn_down.weight"], found["blk.0.ffn_up.weight"]) == ("q5_1", "q4_1")


def test_like_and_quant_exclude_each_other_but_for_the_environment(
    model: Path, pattern_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("convert", model, "--like", pattern_file, "--quant", "q8_0", "-o", tmp_path / "out")
    refused(2, ("--like takes the types of", "--quant names another"), *both, under=tmp_path)
    monkeypatch.setenv("GEMMAQ_QUANT", "q5_1")
    refused(2, ("--quant names another",), *both, under=tmp_path)
    told = json.loads(run("convert", model, "--like", pattern_file, "--dry-run", "--json").stdout)
    assert told["artifacts"][0]["tensors"]["q4_1"] > 0


def test_differences_from_the_other_model_are_told(pattern_file: Path, tmp_path: Path) -> None:
    deeper = replace(SMALL, num_hidden_layers=3, layer_pattern=pattern(3, 6), vocab_size=SMALL.vocab_size + 32)
    source = small_model(tmp_path / "gemma-3-deeper", deeper)
    said = run("convert", source, "--like", pattern_file, "--dry-run").stderr
    assert f"{pattern_file.name} lacks 7 tensors (model.layers.2." in said and "as in Q4_1" in said
    assert f"{pattern_file.name} has another number of rows in 1 tensor (model.embed_tokens.weight)" in said
    run("convert", source, "--quant", "q8_0", "-q", "-o", tmp_path / "deep")
    said = run("convert", pattern_file, "--like", tmp_path / "deep", "--quiet", "--dry-run").stderr
    assert "deep has 7 tensors (model.layers.2." in said and "besides" in said


def test_a_model_with_other_rows_or_of_another_kind_is_refused(pattern_file: Path, tmp_path: Path) -> None:
    wider = small_model(tmp_path / "gemma-3-wider", replace(SMALL, hidden_size=2 * SMALL.hidden_size))
    like = ("--like", pattern_file, "--dry-run")
    refused(3, ("rows of", "weights", "same size"), "convert", wider, *like, under=tmp_path)
    other = gemma4.write(tmp_path / "gemma-4-other", gemma4.DENSE)
    refused(3, ("is Gemma 3, and", "Gemma 4"), "convert", gemma4_tokenizer.write(other), *like, under=tmp_path)
    refused(5, ("does not exist",), "convert", wider, "--like", tmp_path / "none.gguf", "--dry-run", under=tmp_path)
