"""Options of a budget: what they mean, and which of them contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.budget.goal import Bits, FileBytes, Fit
from gemmaq.cli import system
from gemmaq.cli.budget import Flags, basis, wanted
from gemmaq.errors import UsageError
from gemmaq.planning.recipe import of
from inprocess import refused


def test_sizes_bits_and_cards_are_goals() -> None:
    def goal(flags: Flags, *to: str) -> object:
        found = wanted(flags, quant=None, like=None, to=to)
        assert found is not None
        return found.goal

    assert goal(Flags(size="8.5G")) == FileBytes(8_500_000_000)
    assert goal(Flags(size="4GiB"), "mlx") == FileBytes(4 << 30)
    assert goal(Flags(bits="4.6")) == Bits(4.6)
    fit = goal(Flags(cards=["RTX 4070"], context=16384, kv_type="q8_0,q4_0", parallel=2))
    assert isinstance(fit, Fit) and (fit.engine.name, fit.cards[0].name) == ("llama.cpp", "RTX 4070")
    assert (fit.load.context, fit.load.kv_types, fit.load.parallel) == (16384, ("q8_0", "q4_0"), 2)
    of_mlx = goal(Flags(cards=["m4 max 64gb"]), "mlx")
    assert isinstance(of_mlx, Fit) and (of_mlx.engine.name, of_mlx.load.context) == ("mlx", 8192)
    by_engine = wanted(Flags(cards=["4090"], engine="vllm"), quant=None, like=None, to=())
    assert by_engine is not None and by_engine.container == "safetensors"
    assert wanted(Flags(), quant=["q4_0"], like=None, to=("gguf", "mlx")) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--target-bpw", "4.6", "--target-size", "1G"), ("--target-size and --target-bpw",)),
        (("--target-bpw", "4.6", "--fit", "4070"), ("--target-bpw and --fit",)),
        (("--target-bpw", "4.6", "--quant", "q4_0"), ("--target-bpw", "--quant")),
        (("--target-bpw", "4.6", "--like", "x.gguf"), ("--target-bpw", "--like")),
        (("--target-bpw", "4.6", "--to", "gguf,mlx"), ("one container",)),
        (("--target-bpw", "4.6", "--target-bpw", "4.7"), ("given 2 times",)),
        (("--target-bpw", "four"), ("'four'", "4.6")),
        (("--target-bpw", "99"), ("'99'",)),
        (("--target-size", "much"), ("'much' is not a size",)),
        (("--target-bpw", "4.6", "--context", "8192"), ("--context is for --fit",)),
        (("--target-bpw", "4.6", "--engine", "mlx"), ("--engine is for --fit",)),
        (("--target-size", "1G", "--offload"), ("--offload is for --fit",)),
        (("--fit", "4070", "--offload", "--ram", "lots"), ("--ram 'lots' is not a size",)),
        (("--fit", "4070", "--ram", "8G"), ("--ram is for --offload",)),
        (("--kv-type", "q8_0"), ("--kv-type is for a budget", "--fit")),
        (("--sensitivity", "x.json"), ("--sensitivity is for a budget", "--target-bpw")),
        (("--no-check",), ("--check is for a budget",)),
        (("--fit", "4070", "--engine", "mlx", "--to", "gguf"), ("mlx-lm loads mlx, not gguf",)),
        (("--fit", "no such card"), ("unknown card",)),
        (("--target-bpw", "4.6", "--sensitivity", "nowhere.json"), ("does not exist",)),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: tuple[str, ...], words: tuple[str, ...], small: Path, tmp_path: Path
) -> None:
    code = 5 if "nowhere.json" in options else 2
    refused(code, words, "convert", small, *options, "-o", tmp_path / "out", under=tmp_path)


def test_what_is_calibrated_is_read_even_if_only_sensitivities_need_it(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "a.txt").write_text("text")
    for method in ("auto", "gptq"):
        found = basis(of("q4_0", method=method), [tmp_path / "a.txt"], None, {"tokens": 99, "damping": None})
        assert found is not None and found.text is not None and found.calibration.tokens == 99
    with pytest.raises(UsageError, match="--imatrix is for method importance"):
        basis(of("q4_0"), None, tmp_path / "m.gguf", {})


def test_main_memory_is_that_of_this_machine_unless_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:

    def asked(*ram: str) -> int:
        flags = Flags(cards=["4070"], offload=True, ram=ram[0] if ram else None)
        found = wanted(flags, quant=None, like=None, to=())
        assert found is not None and isinstance(found.goal, Fit)
        return found.goal.offload

    assert asked("8G") == 8 * 10**9 and capsys.readouterr().err == ""
    total = system.memory()[0]
    assert total is not None and asked() == total * 3 // 4
    assert "three quarters of this machine's" in capsys.readouterr().err
