"""Recipes: the shipped ones say the truth, files are checked, and flags come before all else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemmaq import containers
from gemmaq.encodings import ENCODINGS, listed
from gemmaq.errors import UsageError
from gemmaq.models.families import size_by_name as by_name
from gemmaq.models.gemma3.names import EMBEDDING
from gemmaq.models.gemma3.sizes import SIZES
from gemmaq.models.gemma4 import sizes as gemma4
from gemmaq.models.size import Size
from gemmaq.planning.mixtures import MIXTURES
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.recipe import TYPES, Recipe, Rule, folder, load, of
from gemmaq.planning.request import Request
from gemmaq.vram.weights import checkpoint_of
from inprocess import run

SHIPPED = sorted(path.stem for path in folder().glob("*.toml"))
QAT = [name for name in SHIPPED if name.endswith("-qat")]
HEADER = 6_530_000
"""Bytes of a GGUF file before its tensors, nearly all of them the tokenizer; a little more for more layers."""


def plan_of(name: str, size: str, container: str = "gguf") -> Plan:
    """What a shipped recipe makes of a published size."""
    file = load(name)
    published = by_name(size)
    assert published is not None and file.quant
    recipe = of(file.quant[0], embedding=file.embedding, method=file.method or "auto", rules=file.rules)
    text = replace(checkpoint_of(published), towers={})
    return make_plan(text, Request(recipe, (container,), mmproj=None), containers.writer(container).FORMAT)


def planned(source: Path, *options: object) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run("convert", source, "--dry-run", "--json", *options).stdout)
    return result


def types(source: Path, *options: object) -> dict[str, int]:
    """Type -> tensors, as planned for the first container."""
    result: dict[str, int] = planned(source, *options)["artifacts"][0]["tensors"]
    return result


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_known_in_any_case(name: str) -> None:
    for spelling in (name, name.upper(), name.title()):
        recipe = of(spelling)
        assert recipe.label == name.upper() and recipe.mixture == MIXTURES.get(name)
        assert recipe.body == (MIXTURES[name].body if name in MIXTURES else ENCODINGS[name])
        assert (recipe.embedding, recipe.method, recipe.rules, recipe.keep) == (None, "auto", (), False)
    if name in ENCODINGS:
        assert of("Auto", embedding=name.upper(), method="NEAREST") == Recipe(
            ENCODINGS["q4_0"], ENCODINGS[name], "nearest", keep=True
        )


def test_an_unknown_type_is_told_those_that_are_near_or_else_all() -> None:
    with pytest.raises(UsageError, match="'q4_k_l'") as caught:
        of("q4_k_l")
    assert "q4_k_m" in str(caught.value.hint)
    with pytest.raises(UsageError, match="'xyz'") as caught:
        of("xyz")
    assert all(name in str(caught.value.hint) for name in listed([*ENCODINGS, *MIXTURES]))
    with pytest.raises(
        UsageError, match="Q4_K_M is a mixture"
    ) as caught:  # an embedding is one matrix and cannot be mixed
        of("q4_0", embedding="q4_k_m")
    assert "q4_k_m" not in str(caught.value.hint)
    with pytest.raises(UsageError, match="'best'"):
        of("q4_0", method="best")


def test_rules_come_before_a_mixture() -> None:
    published = by_name("4b")
    assert published is not None
    recipe = of("q4_k_m", rules=(Rule("*.v_proj.weight", ENCODINGS["q8_0"], None),))
    plan = make_plan(
        checkpoint_of(published), Request(recipe, ("gguf",), mmproj=None), containers.writer("gguf").FORMAT
    )
    assert plan.label == "Q4_K_M" and plan.body == ENCODINGS["q4_k"]
    widened = 4 + 5 + 8  # of 34 layers: the first and the last eighth, and every third between
    matrices = {"q8_0": 34, "q6_k": 1 + widened, "q4_k": 34 * 6 - widened}
    assert {kind: count for kind, count in plan.counts.items() if kind != "f32"} == matrices


def test_there_are_recipes() -> None:
    assert {"best-quality", "everywhere", "smallest"} <= set(SHIPPED)
    assert sorted(QAT) == sorted(f"{size.name}-qat".lower() for size in (*SIZES, *gemma4.SIZES))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_loads_and_plans(name: str, tiny: Path) -> None:
    file = load(name)
    assert len(file.description) > 40 and "\n" not in file.description.strip()
    done = planned(tiny, "--recipe", name, *(("--embedding", "q8_0") if file.embedding == "q6_k" else ()))
    assert [(artifact["container"], artifact["type"].lower()) for artifact in done["artifacts"]] == [
        (container, kind) for kind in file.quant for container in file.to
    ]
    assert done["method"] == file.method
    for size in (*SIZES, *gemma4.SIZES):
        meant = name == f"{size.name}-qat".lower()
        if meant or name not in QAT:
            plans = [plan_of(name, size.name, container) for container in file.to]
            assert not meant or all(plan.warnings == () for plan in plans)


def figures(description: str) -> dict[str, str]:
    """Size -> GB, as a description of several sizes has them."""
    return {size: gb for gb, size in re.findall(r"(\d+\.\d+)(?: GB)? for (\d+[MB])", description)}


@pytest.mark.parametrize("name", ["best-quality", "smallest"])
def test_the_sizes_told_are_those_of_the_files(name: str) -> None:
    told = figures(load(name).description)
    assert list(told) == [size.label for size in SIZES]
    assert told == {size: f"{(plan_of(name, size).tensor_bytes + HEADER) / 1e9:.2f}" for size in told}


@pytest.mark.parametrize("name", [name for name in QAT if name.startswith("gemma-3-")])
def test_the_size_told_of_a_qat_recipe_is_that_of_the_file(name: str) -> None:
    (told,) = re.findall(r"(\d+\.\d+) GB", load(name).description)
    size = name.removeprefix("gemma-3-").removesuffix("-qat")
    assert size.upper() in load(name).description
    assert told == f"{(plan_of(name, size).tensor_bytes + HEADER) / 1e9:.2f}"


def test_the_header_is_as_large_as_these_tests_say(sample_q4_0: Path) -> None:
    plan = plan_of("gemma-3-270m-qat", "270m")
    assert abs(sample_q4_0.stat().st_size - plan.tensor_bytes - HEADER) < 30_000


def test_best_quality_gives_the_values_more_bits() -> None:
    kinds = {t.source.name: t.encoding.name for t in plan_of("best-quality", "4b").tensors if len(t.source.shape) == 2}
    wide = {name for name, kind in kinds.items() if kind == "q8_0"}
    assert wide == {EMBEDDING} | {f"model.layers.{layer}.self_attn.v_proj.weight" for layer in range(34)}
    assert set(kinds.values()) == {"q6_k", "q8_0"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('quantt = "q4_0"', ("'quantt'", "did you mean quant?")),
        ('embeding = "q8_0"', ("'embeding'", "did you mean embedding?")),
        ('[[rules]]\nmatch = "*"\ntypes = "q8_0"', ("[[rules]]", "'types'", "did you mean type?")),
        ('[[rules]]\ntype = "q8_0"', ("no match", 'match = "')),
        ('[[rules]]\nmatch = "*"\nregex = "."', ("both match and regex", "two rules")),
        ('[[rules]]\nregex = "blk.("', ("'blk.('", "not a regular expression")),
        ('[[rules]]\nregex = "attn_x"\ntype = "q8_0"', ("'attn_x'", "blk.6.ffn_down.weight")),
        ('[[rules]]\nmatch = "*"\ntype = "q3_0"', ("q3_0", "q4_0")),
        ('[[rules]]\nmatch = "*"\nmethod = "best"', ("'best'", "nearest")),
        ("rules = 3", ("[[rules]]",)),
        ("quant = 4", ("quant must be a text or a list of texts",)),
        ('quant = "q4_9"', ("q4_9", "q4_0")),
        ('method = "gptqq"', ("gptqq", "nearest")),
        ('to = ["onnx"]', ("onnx", "gguf")),
        ("to = 5", ("to",)),
        ("quant = ", ("not valid TOML",)),
    ],
)
def test_a_mistake_in_a_recipe_is_a_usage_error(text: str, words: tuple[str, ...], tiny: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "mine.toml", text)
    message = run("convert", tiny, "--recipe", recipe, "-o", tmp_path / "out", code=2).stderr
    assert all(word in message for word in words), message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "near"),
    [("smalest", "smallest"), ("best_quality", "best-quality"), ("gemma-3-4b-qta", "gemma-3-4b-qat")],
)
def test_an_unknown_recipe_is_not_found_and_a_near_one_named(name: str, near: str, tiny: Path, tmp_path: Path) -> None:
    message = run("convert", tiny, "--recipe", name, "-o", tmp_path / "out", code=5).stderr
    assert name in message and near in message


def test_a_name_like_no_other_gets_the_whole_list(tiny: Path, tmp_path: Path) -> None:
    for name in ("zzz", str(tmp_path / "none.toml")):
        message = run("convert", tiny, "--recipe", name, "-o", tmp_path / "out", code=5).stderr
        assert all(shipped in message.replace("\n", " ") for shipped in SHIPPED), message


def test_flag_before_environment_before_recipe_before_default(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write(tmp_path / "mine.toml", 'quant = "q5_1"\nembedding = "q5_1"\nmethod = "nearest"\nto = "gguf"')
    assert types(tiny)["q4_0"] == 49
    assert types(tiny, "--recipe", recipe) == {"q5_1": 50, "f32": 43}
    monkeypatch.setenv("GEMMAQ_QUANT", "q5_0")
    assert types(tiny)["q5_0"] == 49
    assert types(tiny, "--recipe", recipe) == {"q5_0": 49, "q5_1": 1, "f32": 43}
    assert types(tiny, "--recipe", recipe, "--quant", "q4_1") == {"q4_1": 49, "q5_1": 1, "f32": 43}
    monkeypatch.setenv("GEMMAQ_EMBEDDING", "bf16")
    assert types(tiny, "--recipe", recipe) == {"q5_0": 49, "bf16": 1, "f32": 43}
    assert types(tiny, "--recipe", recipe, "--embedding", "f16") == {"q5_0": 49, "f16": 1, "f32": 43}
    assert planned(tiny)["method"] == "auto"
    assert planned(tiny, "--recipe", recipe)["method"] == "nearest"
    monkeypatch.setenv("GEMMAQ_METHOD", "lattice")
    assert planned(tiny, "--recipe", recipe)["method"] == "lattice"
    assert planned(tiny, "--recipe", recipe, "--method", "auto")["method"] == "auto"
    monkeypatch.setenv("GEMMAQ_RECIPE", str(recipe))
    assert planned(tiny)["artifacts"][0]["tensors"] == {"q5_0": 49, "bf16": 1, "f32": 43}
    containers_of = [artifact["container"] for artifact in planned(tiny, "--to", "mlx,gguf")["artifacts"]]
    assert containers_of == ["mlx", "gguf"]


def test_of_the_rules_the_first_that_matches_counts(tiny: Path, tmp_path: Path) -> None:
    recipe = write(
        tmp_path / "rules.toml",
        """
        quant = "q4_0"
        embedding = "q8_0"
        [[rules]]
        match = "model.layers.0.*"
        type = "bf16"
        [[rules]]
        match = "*.v_proj.weight"
        type = "q5_0"
        method = "nearest"
        [[rules]]
        match = "*.[01].self_attn.*"
        type = "q8_0"
        [[rules]]
        match = "*.embed_tokens.*"
        type = "f16"
        """,
    )
    run("convert", tiny, "--recipe", recipe, "-o", tmp_path / "out")
    (made,) = (tmp_path / "out").glob("*.gguf")
    listed = json.loads(run("inspect", made, "--tensors", "--json").stdout)["tensors"]
    kinds = {t["name"]: t["type"] for t in listed if len(t["shape"]) == 2}

    def expected(name: str) -> str:
        if name == EMBEDDING:
            return "f16"
        if name.startswith("model.layers.0."):
            return "bf16"
        if name.endswith("v_proj.weight"):
            return "q5_0"
        return "q8_0" if name.startswith("model.layers.1.self_attn.") else "q4_0"

    assert kinds == {name: expected(name) for name in kinds} and len(kinds) == 50
    rules = load(str(recipe)).rules
    assert Recipe(ENCODINGS["q4_0"], rules=rules).method_for("model.layers.0.self_attn.v_proj.weight") == "nearest"
    assert Recipe(ENCODINGS["q4_0"], rules=rules).method_for("model.layers.0.self_attn.k_proj.weight") == "auto"


def test_a_rule_that_a_container_cannot_hold_is_refused_by_tensor(tiny: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "rules.toml", '[[rules]]\nmatch = "*.k_proj.*"\ntype = "q6_k"')
    message = run("convert", tiny, "--recipe", recipe, "-o", tmp_path / "out", code=3).stderr
    assert "layers.0.self_attn.k_proj" in message and "q8_0" in message
    message = run("convert", tiny, "--to", "mlx", "--recipe", recipe, "-o", tmp_path / "out", code=3).stderr
    assert "layers.0.self_attn.k_proj" in message and "affineN" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", gemma4.SIZES, ids=lambda size: size.label)
def test_the_recipes_of_gemma_4_tell_the_sizes_of_the_files_with_and_without_tables_on_the_grid(size: Size) -> None:
    told = re.findall(r"(\d+\.\d+) GB", load(f"{size.name}-qat".lower()).description)
    header = 15_821_792
    expected = []
    for table in (None, "q4_0"):
        recipe = of("q4_0", embedding=table, ple_type=table, method="nearest")
        plan = make_plan(checkpoint_of(size), Request(recipe, ("gguf",)), containers.writer("gguf").FORMAT)
        expected.append(f"{(plan.tensor_bytes + header) / 1e9:.2f}")
    assert told == expected
