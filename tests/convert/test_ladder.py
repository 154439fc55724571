"""Several types of one model in one run: the files are those of single runs, and lie in one artifact."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path

import pytest

from gemmaq.artifact import provenance
from gemmaq.convert import ladder
from gemmaq.errors import UsageError
from gemmaq.files import sums
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from inprocess import run

TYPES = ("q4_0", "q8_0", "q5_1")


@pytest.fixture(scope="module")
def rungs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder of GGUF files."""
    out = tmp_path_factory.mktemp("ladder") / "out"
    run("convert", tiny, "--quant", "q4_0,q8_0", "--quant", "Q5_1", "-o", out)
    return out


def test_every_file_is_that_of_a_single_run(rungs: Path, tiny: Path, tmp_path: Path) -> None:
    names = {f"gemma-3-tiny-{name.upper()}.gguf" for name in TYPES}
    assert {path.name for path in rungs.glob("*.gguf")} == names
    for name in TYPES:
        run("convert", tiny, "--quant", name, "-o", tmp_path / name)
        file = f"gemma-3-tiny-{name.upper()}.gguf"
        assert filecmp.cmp(rungs / file, tmp_path / name / file, shallow=False)


def test_one_record_list_and_card_for_all(rungs: Path) -> None:
    records = provenance.read(rungs)
    assert [record.label for record in records] == ["Q4_0", "Q8_0", "Q5_1"]
    listed = sums.read(rungs)
    assert listed is not None
    for record in records:
        (file,) = record.files
        assert listed[file.path] == file.sha256 and record.label in file.path
        assert f"`{file.path}`" in (rungs / "README.md").read_text()
    assert listed.keys() == {path.name for path in rungs.iterdir()} - {sums.NAME}


def test_verify_looks_at_every_model(rungs: Path, tiny: Path) -> None:
    said = json.loads(run("verify", rungs, "--against", tiny, "--json").stdout)
    assert said["ok"] and [Path(entry["path"]).name for entry in said["artifacts"]] == [
        f"gemma-3-tiny-{name.upper()}.gguf" for name in TYPES
    ]
    assert all(tensor["equal"] for entry in said["artifacts"] for tensor in entry["tensors"])


def test_a_changed_byte_of_one_model_is_found(rungs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(rungs, tmp_path / "copy"))
    path = copy / "gemma-3-tiny-Q8_0.gguf"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    said = run("verify", copy, code=8).stdout
    assert f"{path.name} is not what SHA256SUMS says" in said
    assert f"{path}: the file is what SHA256SUMS says" not in said
    assert f"{copy / 'gemma-3-tiny-Q4_0.gguf'}: 4 files are what SHA256SUMS says" in said


def test_a_missing_model_is_one_problem_with_and_without_source(rungs: Path, tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(rungs, tmp_path / "copy"))
    (copy / "gemma-3-tiny-Q8_0.gguf").unlink()
    for more in ((), ("--against", tiny)):
        said = run("verify", copy, *more, "-q", code=8)
        assert said.stdout == "gemma-3-tiny-Q8_0.gguf is missing\n"


def test_types_of_folders_have_folders_of_their_own(tiny: Path, tmp_path: Path) -> None:
    done = run("convert", tiny, "--to", "gguf,mlx", "--quant", "q4_0,q4_k_m,affine8", "-o", tmp_path / "out")
    assert "Q4_K_M goes to gguf only: mlx cannot hold it" in done.stderr
    assert "AFFINE8 goes to mlx only: gguf cannot hold it" in done.stderr
    assert {path.name for path in (tmp_path / "out/gguf").glob("*.gguf")} == {
        "gemma-3-tiny-Q4_0.gguf", "gemma-3-tiny-Q4_K_M.gguf"
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "out/mlx").iterdir()} == {"q4_0", "affine8"}
    said = json.loads(run("verify", tmp_path / "out", "--against", tiny, "--json").stdout)
    assert said["ok"] and len(said["artifacts"]) == 4
    run("convert", tiny, "--to", "mlx", "--quant", "q4_0,affine8", "-o", tmp_path / "two")
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"q4_0", "affine8"}
    assert json.loads(run("verify", tmp_path / "two", "--json").stdout)["ok"]


def test_a_recipe_may_name_several_types(tiny: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "several.toml"
    recipe.write_text('quant = ["q4_0", "q8_0"]')
    said = json.loads(run("convert", tiny, "--recipe", recipe, "--dry-run", "--json").stdout)
    assert [entry["type"] for entry in said["artifacts"]] == ["Q4_0", "Q8_0"]
    assert {entry["path"] for entry in said["artifacts"]} == {"gemma-3-tiny-gguf"}


@pytest.mark.parametrize(
    ("quant", "to", "words"),
    [
        (("q4_0", "q4_0"), ("gguf",), "--quant has Q4_0 twice"),
        (("q4_0", "affine4"), ("gguf",), "gguf cannot hold AFFINE4"),
        (("q4_0", "q4_k_m"), ("gguf", "safetensors"), None),
        (("q4_k_m", "q6_k"), ("gguf", "mlx"), "mlx holds none of Q4_K_M, Q6_K"),
    ],
)
def test_types_and_containers_that_do_not_fit_together(
    quant: tuple[str, ...], to: tuple[str, ...], words: str | None
) -> None:
    recipes = [of(name) for name in quant]
    if words is None:
        assert [request.to for request in ladder.requests(Request(recipes[0], to), recipes)] == [to, ("gguf",)]
        return
    with pytest.raises(UsageError, match=words):
        ladder.requests(Request(recipes[0], to), recipes)


def test_a_container_given_twice_is_an_error(tiny: Path) -> None:
    assert "--to has gguf twice" in run("convert", tiny, "--to", "gguf", "--to", "GGUF", code=2).stderr


@pytest.mark.parametrize("quant", [",", "", "q4_0,,q8_0", "q4_0,"])
def test_an_empty_value_is_an_error(quant: str, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "has an empty value" in run("convert", tiny, "--quant", quant, "-o", out, code=2).stderr
    assert "has an empty value" in run("convert", tiny, "--to", quant, "-o", out, code=2).stderr


def test_auto_and_the_type_that_it_stands_for_are_the_same(tiny: Path, tmp_path: Path) -> None:
    done = run("convert", tiny, "--quant", "auto,q4_0", "-o", tmp_path / "out", code=2)
    assert "--quant auto is Q4_0 here" in done.stderr and not (tmp_path / "out").exists()


def test_every_model_is_told_with_its_type_whichever_container_is_first(tiny: Path) -> None:
    said = run("convert", tiny, "--quant", "q4_0,q8_0", "--to", "mlx,gguf", "--dry-run").stderr
    for title in ("mlx Q4_0: ", "mlx Q8_0: ", "gguf Q4_0: ", "gguf Q8_0: "):
        assert title in said


def test_sentences_name_the_types_that_they_are_about_unless_these_are_all() -> None:
    told = [("Q4_0", ["a", "b"]), ("Q8_0", ["a"]), ("Q6_K", ["a", "b", "c"]), ("Q6_K", ["c"])]
    assert ladder.by_type(told) == ["a", "Q4_0, Q6_K: b", "Q6_K: c"]
    assert ladder.by_type([("Q4_0", ["a"]), ("Q4_0", ["b"])]) == ["a", "b"], "two containers"


def test_one_model_of_several_is_verified_by_its_file(rungs: Path, tiny: Path) -> None:
    done = run("verify", rungs / "gemma-3-tiny-Q8_0.gguf", "--against", tiny)
    assert "gemma-3-tiny-Q8_0.gguf: the file is what SHA256SUMS says" in done.stdout and "Q4_0" not in done.stdout


def test_memory_of_every_model_of_a_folder(rungs: Path) -> None:
    said = json.loads(run("estimate-vram", rungs, "--context", "256", "--json").stdout)
    assert [entry["quant"] for entry in said["estimates"]] == sorted(name for name in TYPES)


def test_of_several_models_one_is_installed(rungs: Path, tmp_path: Path) -> None:
    flags = ("--runtime", "lmstudio", "--dest", tmp_path / "models")
    assert "holds 3 models" in run("install", rungs, *flags, code=3).stderr
    run("install", rungs / "gemma-3-tiny-Q8_0.gguf", *flags)
    assert [path.name for path in (tmp_path / "models").rglob("*.gguf")] == ["gemma-3-tiny-Q8_0.gguf"]


def test_a_truncated_model_is_told_once(rungs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(rungs, copy)
    path = copy / "gemma-3-tiny-Q8_0.gguf"
    path.write_bytes(path.read_bytes()[:-4096])
    said = run("verify", copy, code=8).stdout
    assert said.count("is truncated") == 1 and said.count("is not what SHA256SUMS says") == 1


def test_a_type_that_no_container_holds_is_told_which_would(tiny: Path) -> None:
    said = run("convert", tiny, "--quant", "q4_0,affine4", code=2).stderr
    assert "gguf cannot hold AFFINE4" in said and "add --to mlx" in said
