"""`gemmaq evaluate` as a user runs it, on tiny models of any format."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

import inprocess
from fake_hub import FakeHub
from gemmaq.errors import UsageError
from gemmaq.inference import documents
from oracles import need
from synthetic import TINY, write_checkpoint

MARKS = ["<table>", "</table>", "<tr>", "<td>", "<h1>", "<h2>", "<code>", "<em>", "<b>", "</b>", "\n", "\n\n"]
"""Texts of tokens that a cut vocabulary has."""


@pytest.fixture(scope="module", autouse=True)
def _torch(require):
    need(require, "torch", "transformers")


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("GEMMAQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/evaluate"


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("".join(random.Random(2).choices(MARKS, k=800)))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny) -> dict[str, Path]:
    """The tiny model in every format."""
    folder = tmp_path_factory.mktemp("made")
    inprocess.run("convert", tiny, "--to", "gguf", "--quant", "bf16", "-o", folder / "exact")
    for container in ("gguf", "mlx", "safetensors"):
        inprocess.run("convert", tiny, "--to", container, "--quant", "q4_0", "--portable", "-o", folder / container)
    return {
        "exact": folder / "exact/gemma-3-tiny-BF16.gguf",
        "gguf": folder / "gguf/gemma-3-tiny-Q4_0.gguf",
        "mlx": folder / "mlx",
        "safetensors": folder / "safetensors",
    }


def run(models, reference, text, *options, code=0):
    small = () if "--context" in options else ("--context", "32")
    return inprocess.run("evaluate", *models, "--reference", reference, "--text", text, *small, *options, code=code)


def test_json_is_what_scripts_rely_on(tiny, text, made):
    models = [made[name] for name in ("exact", "gguf", "mlx", "safetensors")]
    done = run(models, tiny, text, "--json")
    found = json.loads(done.stdout)
    assert done.stderr == ""
    assert found["schema"] == "gemmaq.evaluate/1"
    assert found["tokens"] > 100
    assert found["tokens"] % 15 == 0
    assert found["reference"]["model"] == str(tiny)
    assert found["reference"]["bytes"] == sum(path.stat().st_size for path in tiny.glob("*.safetensors"))
    assert found["reference"]["perplexity"] > 1
    assert [entry["model"] for entry in found["models"]] == [str(model) for model in models]
    for entry in found["models"]:
        assert set(entry) >= {"model", "bytes", "perplexity", "perplexity_stderr", "kl", "top1"}
        assert set(entry["kl"]) == {"mean", "stderr", "median", "p99", "p999", "max"} and "passed" not in entry
        assert entry["kl"]["median"] <= entry["kl"]["p99"] <= entry["kl"]["p999"] <= entry["kl"]["max"]
        assert abs(entry["delta_p"]["mean"]) <= entry["delta_p"]["rms"]
    exact, *others = found["models"]
    assert exact["bytes"] == made["exact"].stat().st_size
    assert {*exact["kl"].values()} == {*exact["delta_p"].values()} == {0}
    assert exact["top1"] == 1
    assert exact["perplexity"] == found["reference"]["perplexity"]
    assert all(entry["kl"]["mean"] > 0 for entry in others)
    bits = [entry["bits_per_weight"] for entry in found["models"]]
    assert bits[0] > bits[1]


def test_the_same_codes_cost_the_same_in_every_container(tiny, text, made):
    """The body is the same; embeddings are each container's own."""
    found = json.loads(run([made["gguf"], made["mlx"]], tiny, text, "--json").stdout)["models"]
    assert found[0]["perplexity"] == pytest.approx(found[1]["perplexity"], rel=1e-4)


def test_the_table_and_the_quiet_lines(tiny, text, made):
    done = run([made["exact"], made["gguf"]], tiny, text)
    assert "gemma-3-tiny (reference)" in done.stdout
    assert "gemma-3-tiny-Q4_0" in done.stdout
    assert re.search(r"BF16 .* ± .* 0 +0 +100\.00 %", done.stdout)
    assert str(tiny) in done.stderr
    quiet = run([made["exact"], made["gguf"]], tiny, text, "-q")
    lines = [line.split("\t") for line in quiet.stdout.splitlines()]
    assert quiet.stderr == ""
    assert len(lines) == 2
    assert float(lines[0][1]) == 0
    assert all(math.isfinite(float(value)) for line in lines for value in line)


def test_a_limit_that_is_missed_ends_with_code_8(tiny, text, made):
    models = [made["exact"], made["gguf"]]
    run(models, tiny, text, "--max-kl", "9", "--min-top1", "1%")
    done = run(models, tiny, text, "--max-kl", "1e-9", "--min-top1", "100%", "--json", code=8)
    assert [entry["passed"] for entry in json.loads(done.stdout)["models"]] == [True, False]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "1 of 2 models missed a limit" in line and str(made["gguf"]) in line
    assert "98% or 0.98" in run(models, tiny, text, "--min-top1", "98", code=2).stderr


def test_the_report(tiny, text, made, tmp_path):
    page = tmp_path / "report.html"
    done = run([made["exact"], made["mlx"]], tiny, text, "--report", page)
    assert f"wrote {page}" in done.stderr
    content = page.read_text()
    assert content.startswith("<!doctype html>")
    assert "All weights are the reference&#x27;s." in content or "All weights are the reference's." in content
    assert str(tmp_path) not in content
    shown = run([made["mlx"]], tiny, text, "--report", page, code=7)
    assert "exists" in shown.stderr
    assert page.read_text() == content
    run([made["mlx"]], tiny, text, "--report", page, "--force", "-q")
    assert page.read_text() != content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "report.html"]
    assert "is a folder" in run([made["mlx"]], tiny, text, "--report", tmp_path, "--force", code=7).stderr
    assert "does not exist" in run([made["mlx"]], tiny, text, "--report", tmp_path / "a/b.html", code=7).stderr


@pytest.mark.slow
def test_a_dry_run_computes_and_writes_nothing(tiny, text, made, tmp_path, kept):
    page = tmp_path / "report.html"
    done = run([made["gguf"]], tiny, text, "--dry-run", "--report", page)
    assert "tokens scored" in done.stdout
    assert "nothing was computed" in done.stderr
    found = json.loads(run([made["gguf"]], tiny, text, "--dry-run", "--json").stdout)
    assert found["models"] == [{"model": str(made["gguf"])}]
    assert found["tokens"] == json.loads(run([made["gguf"]], tiny, text, "--json", "--no-cache").stdout)["tokens"]
    assert not page.exists()
    assert not kept.exists()


@pytest.mark.slow
def test_the_reference_is_computed_once(tiny, text, made, kept):
    first = run([made["gguf"]], tiny, text, "--json")
    (entry,) = kept.iterdir()
    assert run([made["gguf"]], tiny, text, "--json").stdout == first.stdout
    assert str(tiny) not in run([made["gguf"]], tiny, text).stderr
    assert list(kept.iterdir()) == [entry]
    assert str(tiny) in run([made["gguf"]], tiny, text, "--no-cache").stderr
    run([made["gguf"]], tiny, text, "--json", "--context", "64")
    assert len(list(kept.iterdir())) == 2


@pytest.mark.slow
def test_repositories(tiny, text, gemmaq, tmp_path, kept):
    """Fetched first; a dry run reads their headers alone."""
    with FakeHub(tmp_path / "hub") as hub:
        hub.add("google/gemma-3-tiny", tiny)
        env = {**hub.env(tmp_path / "home"), "GEMMAQ_CACHE": str(kept.parent)}
        arguments = ["evaluate", "google/gemma-3-tiny", "--reference", "google/gemma-3-tiny", "--text", text]
        arguments += ["--context", "32", "--json"]
        planned = json.loads(gemmaq(*arguments, "--dry-run", env=env).stdout)
        assert not list((tmp_path / "home").rglob("*.safetensors"))
        found = json.loads(gemmaq(*arguments, env=env).stdout)
    assert planned["tokens"] == found["tokens"]
    assert found["models"][0]["kl"]["mean"] == 0
    assert found["models"][0]["bytes"] == found["reference"]["bytes"]


def test_kinds_are_scored_apart_and_together(tiny, text, made, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "_FOLDER", tmp_path)  # texts of pieces that the cut vocabulary has
    for number, kind in enumerate(documents.KINDS):
        words = "".join(random.Random(100 + number).choices(MARKS, k=800))
        (tmp_path / f"{kind}-held-out-1.jsonl").write_text(json.dumps({"text": words}))
    page, asked = tmp_path / "report.html", ("--kind", "tools", "--kind", "chat,long", "--tokens", "120")
    found = json.loads(run([made["gguf"]], tiny, text, *asked, "--json", "--report", page).stdout)
    (model,) = found["models"]
    assert list(model["kinds"]) == ["text", "chat", "long", "tools"]
    tokens = [kind["tokens"] for kind in model["kinds"].values()]
    assert tokens == [30] * 4 and found["tokens"] == 120
    mean = sum(kind["kl"]["mean"] for kind in model["kinds"].values()) / 4
    assert mean == pytest.approx(model["kl"]["mean"]) and len({k["kl"]["mean"] for k in model["kinds"].values()}) == 4
    assert "Mean KL by kind of text" in page.read_text()
    done = inprocess.run("evaluate", made["gguf"], "--reference", tiny, "--context", "32", "--tokens", "90")
    assert "mean KL, by kind of text" in done.stdout and "non-latin" in done.stdout


def test_types_of_the_kv_cache_against_the_model_itself(tiny, text, made, kept):
    small = ("--text", text, "--context", "32", "--tokens", "60")
    kinds = [word for kind in ("f16", "q8_0", "Q4_0", "f16, q4_0") for word in ("--kv-type", kind)]
    found = json.loads(inprocess.run("evaluate", made["gguf"], *kinds, *small, "--json").stdout)
    assert found["reference"]["model"] == str(made["gguf"]) and "kv_type" not in found["reference"]
    kls = {entry["kv_type"]: entry["kl"]["mean"] for entry in found["models"]}
    assert list(kls) == ["f16", "q8_0", "q4_0", "f16,q4_0"]
    assert max(abs(kls["f16"]), abs(kls["q8_0"])) < kls["f16,q4_0"] / 2  # all small: f32 itself errs by 1e-9
    assert kls["f16,q4_0"] < kls["q4_0"]
    (entry,) = kept.iterdir()
    plain = json.loads(run([made["gguf"]], made["gguf"], text, "--tokens", "60", "--json").stdout)
    assert plain["models"][0]["kl"]["mean"] == 0 and "kv_type" not in plain["models"][0]
    assert list(kept.iterdir()) == [entry]


def test_types_of_the_kv_cache_of_every_model(tiny, text, made, tmp_path):
    page, models = tmp_path / "report.html", [made["exact"], made["gguf"]]
    limits = ("--max-kl", "1e-9", "--kv-type", "q4_0", "--kv-type", "f32", "--tokens", "60")
    done = run(models, tiny, text, *limits, "--report", page, code=8)
    assert "gemma-3-tiny-BF16, q4_0 cache" in done.stdout and "gemma-3-tiny-Q4_0, f32 cache" in done.stdout
    assert "3 of 4 models missed a limit" in done.stderr and f"{made['exact']}, q4_0 cache: mean KL" in done.stderr
    content = page.read_text()
    assert "named cache" in content and content.count("<h3>") == 2
    planned = run(models, tiny, text, *limits, "--dry-run")
    assert "2 models with a KV cache in q4_0 or f32 against" in planned.stdout


def test_types_of_the_kv_cache_that_cannot_be(tiny, text, made, tmp_path):
    model = made["gguf"]
    assert "has no KV cache of type 'q6_k'" in run([model], tiny, text, "--kv-type", "q6_k", code=2).stderr
    assert "twice" in run([model], tiny, text, "--kv-type", "f16", "--kv-type", "f16,f16", code=2).stderr
    assert "--record is about" in run([model], tiny, text, "--kv-type", "f16", "--record", code=2).stderr
    told = inprocess.run("evaluate", model, made["exact"], "--text", text, "--kv-type", "q8_0", code=2).stderr
    assert "--reference is missing" in told
    odd = write_checkpoint(tmp_path / "odd", replace(TINY, head_dim=48), tokenizer=tiny)
    told = run([odd], odd, text, "--kv-type", "q8_0", "--dry-run", code=2).stderr
    assert "heads of 48 numbers" in told and "choose f16" in told


def test_a_narrow_terminal_cuts_no_number_off(tiny, text, made):
    done = run([made["gguf"]], tiny, text, "-q")
    perplexity = float(done.stdout.split("\t")[0])
    with patch("rich.console.Console.width", 80):
        table = run([made["gguf"]], tiny, text).stdout
    assert f"{perplexity:.3f} ±" in table
    assert "…" not in table


def test_tokens_limits_what_is_scored(tiny, text, made):
    found = json.loads(run([made["gguf"]], tiny, text, "--tokens", "50", "--json").stdout)
    assert found["tokens"] == 45


def test_what_is_asked_for_wrongly(tiny, text, made):
    model = made["gguf"]
    assert "--reference is missing" in inprocess.run("evaluate", model, "--text", text, code=2).stderr
    told = inprocess.run("evaluate", model, "--reference", tiny, "--kind", "prose,verse", code=2).stderr
    assert "unknown kind of text 'verse'" in told and "non-latin" in told
    inprocess.run("evaluate", "--reference", tiny, "--text", text, code=2)
    assert "even number" in run([model], tiny, text, "--context", "33", code=2).stderr
    assert "even number" in run([model], tiny, text, "--context", "8", code=2).stderr
    assert "ends at 2048" in run([model], tiny, text, "--context", "4096", code=2).stderr
    assert "less than one chunk" in run([model], tiny, text, "--tokens", "3", code=2).stderr
    assert "unknown device 'tpu'" in run([model], tiny, text, "--device", "tpu", code=2).stderr


def test_texts_that_cannot_be_used(tiny, made, tmp_path):
    empty, short = tmp_path / "empty.txt", tmp_path / "short.txt"
    empty.write_text(" \n")
    short.write_text("<table>" * 20)
    assert "no text" in run([made["gguf"]], tiny, empty, code=3).stderr
    assert "not even one chunk" in run([made["gguf"]], tiny, short, code=3).stderr
    assert "does not exist" in run([made["gguf"]], tiny, tmp_path / "none.txt", code=5).stderr


def test_models_that_cannot_be_used(tiny, text, made, tmp_path):
    run([tmp_path / "none"], tiny, text, code=5)
    wider = write_checkpoint(tmp_path / "wider", replace(TINY, intermediate_size=128), tokenizer=tiny)
    assert "another model" in run([wider], tiny, text, code=3).stderr
    fewer = write_checkpoint(tmp_path / "fewer", replace(TINY, vocab_size=288), tokenizer=tiny)
    assert "cannot be compared" in run([fewer], tiny, text, code=3).stderr
    cut = tmp_path / "cut.gguf"
    shutil.copy(made["gguf"], cut)
    with cut.open("r+b") as file:
        file.truncate(cut.stat().st_size - 5000)
    run([cut], tiny, text, code=3)


def test_weights_that_are_not_finite(tiny, text, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "gemma-3-nan"
    shutil.copytree(tiny, folder)
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        if "model.layers.3.mlp.up_proj.weight" in tensors:
            tensors["model.layers.3.mlp.up_proj.weight"][0, 0] = torch.nan
            save_file(tensors, path)
    assert "model.layers.3.mlp.up_proj.weight" in run([folder], tiny, text, code=3).stderr


def test_without_torch_it_says_what_to_install(tiny, text, made, monkeypatch):
    import importlib.util

    from gemmaq.inference import device as forward

    find = importlib.util.find_spec
    monkeypatch.setattr(forward, "find_spec", lambda name: None if name == "torch" else find(name))
    done = run([made["gguf"]], tiny, text, code=UsageError.exit_code)
    assert "evaluate needs torch" in done.stderr
    assert "pip install torch" in done.stderr
