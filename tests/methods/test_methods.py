"""Methods as data: what each writes, and that a new one is one module and one entry."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gemmaq.encodings import ENCODINGS, Encoding, Kind, Quantized, codec
from gemmaq.errors import UsageError
from gemmaq.methods import METHODS, Choice, Method, Needs, calibrated, check
from inprocess import refused, run
from oracles import read_gguf
from records import recorded

AFFINE = {f"affine{bits}{group}" for bits in (2, 3, 4, 5, 6, 8) for group in ("", "-g64", "-g128")}
SMALL = {"q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "int4-g64", "int4-g128"} | AFFINE
ROWS = {"int4-channel", "int8-channel"}

CORRECTED = (Kind.LINEAR, Kind.MINIMA, Kind.CODEBOOK, Kind.SUPER)


def test_every_method_says_what_it_writes() -> None:
    assert set(METHODS["nearest"].encodings) == set(ENCODINGS) - {"iq2_xs", "iq2_xxs"}
    assert METHODS["lattice"].encodings == ("q4_0",)
    weighed = {name for name, encoding in ENCODINGS.items() if encoding.weighted}
    assert weighed >= {"iq4_nl", "iq4_xs", "iq3_s", "iq2_xs", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"}
    assert set(METHODS["importance"].encodings) == SMALL | ROWS | weighed
    assert set(METHODS["gptq"].encodings) == SMALL | ROWS | {n for n in weighed if ENCODINGS[n].kind in CORRECTED}
    assert calibrated() == ("importance", "gptq")


def test_entries_are_complete() -> None:
    for method in METHODS.values():
        assert method.title and "\n" not in method.title
        assert method.fallback is None or METHODS[method.fallback].fallback is None
        assert (method.module is None) == (method.needs is Needs.HESSIAN)


def test_names_are_checked() -> None:
    assert (check("GPTQ"), check("Auto")) == ("gptq", "auto")
    with pytest.raises(UsageError, match="unknown method 'awq'") as caught:
        check("awq")
    assert caught.value.hint == "known: auto, nearest, lattice, importance, gptq"


def add(monkeypatch: pytest.MonkeyPatch, fallback: str | None) -> None:
    """Register a method for types around zero whose codes are all even."""

    def quantize(x: np.ndarray, encoding: Encoding, choice: Choice) -> Quantized:
        values = codec(encoding).nearest(x)
        return Quantized(values.codes & 0xFE, values.scales)

    module = ModuleType("gemmaq.methods.even")
    module.__dict__["quantize"] = quantize
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = Method(
        "even", "even codes alone", lambda e: e.kind is Kind.LINEAR, module=module.__name__, fallback=fallback
    )
    monkeypatch.setitem(METHODS, "even", entry)


def test_a_new_method_is_one_module_and_one_entry(monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path) -> None:
    add(monkeypatch, "nearest")
    options = ("--method", "even", "--quant", "q4_0", "--embedding", "q4_1")
    run("convert", tiny, *options, "-q", "-o", tmp_path / "out")
    tensors = read_gguf(tmp_path / "out/gemma-3-tiny-Q4_0.gguf")[1]
    matrices = [raw for kind, _, raw in tensors.values() if kind == ENCODINGS["q4_0"].ggml_type]
    assert matrices
    for raw in matrices:
        values = codec(ENCODINGS["q4_0"]).read(np.frombuffer(raw, np.uint8).reshape(1, -1))
        assert not (values.codes & 1).any()
    record = recorded(tmp_path / "out")
    methods = {tensor["name"]: tensor.get("method") for tensor in record["tensors"]}
    assert set(methods.values()) == {None, "even", "nearest"}
    assert methods["token_embd.weight"] == "nearest"
    run("verify", tmp_path / "out", "--against", tiny, "-q")


def test_a_method_without_fallback_refuses_what_it_does_not_write(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    add(monkeypatch, None)
    arguments = ("convert", tiny, "--method", "even", "--quant", "q4_1", "-o", tmp_path / "out")
    refused(3, ("method even cannot write Q4_1", "even writes "), *arguments, under=tmp_path)
