"""What lies beside the weights of an artifact: the list of sums, gemmaq.json, the card; the same in every run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from damage import contained, edit_json, tree
from gemmaq import __version__
from gemmaq.artifact import sums
from inprocess import run
from kinds import KINDS, folders


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "gemmaq.json").read_text())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_write_the_same_bytes(
    kind: str, sources: dict[str, Path], made: dict[str, Path], tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(sources[kind], tmp_path / "elsewhere" / sources[kind].name))
    for number, threads in enumerate((1, 4)):
        run("convert", moved, "-q", *KINDS[kind], "--threads", threads, "-o", tmp_path / str(number))
        assert tree(tmp_path / str(number)) == tree(made[kind])
    said = b"".join(
        content for name, content in tree(made[kind]).items() if content and name.endswith((".json", ".md"))
    )
    for secret in (str(made[kind].parents[1]), str(tmp_path)):
        assert secret.encode() not in said


@pytest.mark.parametrize("kind", KINDS)
def test_sha256sum_reads_the_list_and_it_lists_everything(kind: str, made: dict[str, Path]) -> None:
    for folder in folders(made[kind]):
        command = ["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        names = [line[66:] for line in (folder / "SHA256SUMS").read_text().splitlines()]
        assert names == sorted({path.name for path in folder.iterdir()} - {"SHA256SUMS"})


@pytest.mark.parametrize("kind", KINDS)
def test_gemmaq_json_tells_of_source_recipe_files_and_tensors(
    kind: str, sources: dict[str, Path], made: dict[str, Path]
) -> None:
    source = sources[kind]
    for folder in folders(made[kind]):
        said = document(folder)
        assert (said["schema"], said["gemmaq"]) == ("gemmaq.artifact/1", __version__)
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
        assert said["container"] in said["recipe"]["to"]
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
    """A projector that is not the model's is passed over with a warning that says where it lies."""
    folder = tmp_path / "here"
    folder.mkdir()
    for path in made["gguf"].glob("*.gguf"):
        shutil.copy(path, folder)
    shutil.copy(next(made["gguf"].glob("*.gguf")), folder / "mmproj-odd.gguf")
    run("convert", folder, "-q", "--quant", "auto", "-o", tmp_path / "out")
    warnings = document(tmp_path / "out")["warnings"]
    assert any(warning.startswith("mmproj-odd.gguf lies beside") for warning in warnings), warnings
    assert str(tmp_path) not in (tmp_path / "out/gemmaq.json").read_text()


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (
            "gguf",
            ["llama-server -m gemma-3-tiny-Q4_0-00001-of-00002.gguf", "ollama create gemma-3-tiny-q4_0 -f Modelfile"],
        ),
        ("mlx", ["mlx_lm.chat --model ."]),
        ("bf16", ["vllm serve ."]),
        ("seeing mlx", ["mlx_lm.chat --model .", "mlx_vlm.chat --model ."]),
        (
            "mmproj",
            [
                "llama-server -m gemma-3-4b-it-qat-Q8_0.gguf --mmproj mmproj-gemma-3-4b-it-qat-F16.gguf",
                "ollama create gemma-3-4b-it-qat-q8_0 -f Modelfile",
            ],
        ),
    ],
)
def test_the_card_says_how_to_run_the_files_here(kind: str, lines: list[str], made: dict[str, Path]) -> None:
    (folder,) = folders(made[kind])
    card = (folder / "README.md").read_text()
    block = re.search(r"```sh\n(.+?)\n```", card, re.DOTALL)
    assert block is not None and block[1].splitlines() == lines
    digests = sums.read(folder)
    for name in {path.name for path in folder.iterdir()} - {"README.md", "SHA256SUMS"}:
        assert f"`{name}`" in card and digests[name][:16] in card
        assert (folder / name).exists()


def test_what_the_card_says_of_the_files_is_not_said_of_what_is_made_of_them(
    made: dict[str, Path], tmp_path: Path
) -> None:
    """A model made of an artifact is not one of its tags, and has the source's licence and language."""
    from oracles import read_gguf

    middle = Path(shutil.copytree(made["bf16"], tmp_path / "gemma-3-tiny"))
    card = middle / "README.md"
    card.write_text(card.read_text().replace("license: gemma\n", "license: other\nlanguage: [de]\n"))
    run("convert", middle, "-q", "-o", tmp_path / "gguf")
    keys = read_gguf(next((tmp_path / "gguf").glob("*.gguf")))[0]
    assert "general.tags" not in keys and "de" in str(keys["general.languages"])
    assert "language:\n- de\n" in (tmp_path / "gguf/README.md").read_text()


def test_the_report_has_the_digests_of_the_list(source: Path, tmp_path: Path) -> None:
    said = json.loads(run("convert", source, "--to", "mlx", "--json", "-o", tmp_path / "out").stdout)
    listed = sums.read(tmp_path / "out")
    for file in said["artifacts"][0]["files"]:
        content = (tmp_path / "out" / file["path"]).read_bytes()
        assert file["sha256"] == listed[file["path"]] == hashlib.sha256(content).hexdigest()


def test_an_artifact_may_be_replaced(source: Path, tmp_path: Path) -> None:
    run("convert", source, "-q", "-o", tmp_path / "out")
    run("convert", source, "-q", "-o", tmp_path / "out", "--quant", "q8_0", "--force")
    assert run("verify", tmp_path / "out", "-q").stdout == ""


def test_a_source_that_changes_its_config_has_other_digests(source: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(source, tmp_path / source.name))
    edit_json(changed / "config.json", lambda config: config.update(comment="mine"))
    for number, folder in enumerate((source, changed)):
        run("convert", folder, "-q", "-o", tmp_path / str(number))
    assert contained(tmp_path / "0") == contained(tmp_path / "1")
    assert document(tmp_path / "0")["tensors"] == document(tmp_path / "1")["tensors"]
    assert document(tmp_path / "0")["source"] != document(tmp_path / "1")["source"]
