"""An artifact against its source, and against others: bytes derived again, and how far weights are from each other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damage import SMALL, edit_json, poison, small_model
from gemmaq.models.gemma3.names import EMBEDDING, HEAD, shapes
from inprocess import run
from kinds import KINDS, folders
from records import edit_record, recorded


def report(artifact: Path, against: Path, code: int = 0, *options: object) -> list[dict[str, Any]]:
    """The JSON entry of each artifact."""
    done = run("verify", artifact, "--against", against, "--json", *options, code=code)
    said = json.loads(done.stdout)
    assert said["ok"] is (code == 0) and said["against"] == str(against)
    found: list[dict[str, Any]] = said["artifacts"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_source_gives_every_byte(kind: str, sources: dict[str, Path], made: dict[str, Path]) -> None:
    for entry in report(made[kind], sources[kind]):
        assert entry["problems"] == entry["notes"] == []
        said = recorded(Path(entry["path"]))
        assert [t["name"] for t in entry["tensors"]] == [t["name"] for t in said["tensors"]]
        assert all(t["equal"] and t["differing"] == 0 for t in entry["tensors"])
        errors = {t["name"]: t["error"] for t in entry["tensors"]}
        for tensor in said["tensors"]:
            most = {"q4_0": 0.15, "affine4": 0.15, "q8_0": 0.01, "f16": 1e-3, "bf16": 0, "f32": 1e-7}[tensor["type"]]
            assert errors[tensor["name"]] <= most, tensor
        kinds = [k["kind"] for k in entry["kinds"]]
        assert kinds[:7] == ["q_proj", "k_proj", "v_proj", "o_proj", "gate", "up", "down"]
        assert ("vision" in kinds) == (kind in ("mmproj", "seeing mlx", "seeing bf16"))
        assert sum(k["tensors"] for k in entry["kinds"]) == sum(k["equal"] for k in entry["kinds"]) == len(errors)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mmproj" and "seeing" not in kind])
def test_another_source_is_refused_naming_tensors(kind: str, other: Path, made: dict[str, Path]) -> None:
    for entry in report(made[kind], other, 8):
        matrices = [t for t in entry["tensors"] if t["kind"] != "norm"]
        assert not any(t["equal"] for t in matrices) and all(t["differing"] for t in matrices)
        named = " ".join(entry["problems"])
        assert all(t["name"] in named for t in matrices)
        assert all(k["error"] > 1 for k in entry["kinds"] if k["kind"] not in ("norm", "embedding"))
    done = run("verify", made[kind], "--against", other, code=8)
    assert "codes differ" in done.stdout or "weights differ" in done.stdout


def test_one_weight_of_the_source_is_seen(source: Path, made: dict[str, Path], tmp_path: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    changed = Path(shutil.copytree(source, tmp_path / source.name))
    poison(changed, name, 0x4000)  # 2.0
    for kind in ("gguf", "compressed-tensors", "bf16"):
        (entry,) = report(made[kind], changed, 8)
        (bad,) = (t for t in entry["tensors"] if not t["equal"])
        assert bad["kind"] == "down" and 1 <= bad["differing"] <= 32
        problem, source_file = entry["problems"]
        assert bad["name"] in problem and source_file.endswith(": model.safetensors")


def test_a_changed_code_is_seen_though_everything_else_fits(
    source: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    """A list and a gemmaq.json of the changed file: nothing but the source tells."""
    from gemmaq.artifact.digests import of_file, of_files
    from gemmaq.files import sums

    artifact = Path(shutil.copytree(made["mlx"], tmp_path / "copy"))
    path = artifact / "model.safetensors"
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    begin, _ = header["model.layers.0.self_attn.v_proj.weight"]["data_offsets"]
    content[start + begin + 5] ^= 0x10
    scales, _ = header["model.layers.0.mlp.up_proj.scales"]["data_offsets"]
    content[start + scales] ^= 0x01
    path.write_bytes(content)
    edit_record(artifact, lambda said: said["files"][0].update(sha256=of_file(path)))
    files = {path.name: path for path in artifact.iterdir() if path.name != sums.NAME}
    (artifact / sums.NAME).write_bytes(sums.text(of_files(files)))
    run("verify", artifact, "-q")
    (entry,) = report(artifact, source, 8)
    names = {t["name"]: t for t in entry["tensors"] if not t["equal"]}
    assert names["model.layers.0.self_attn.v_proj.weight"]["differing"] == 1
    assert any("1 of 2,048 codes differ" in problem for problem in entry["problems"]), entry["problems"]
    assert "model.layers.0.mlp.up_proj.weight" in names and len(names) == 2


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda folder: edit_json(folder / "config.json", lambda c: c.update(rope_theta=5e5)), "header is not what"),
        (lambda folder: (folder / "generation_config.json").write_text('{"top_k": 7}'), "bytes, gemmaq writes"),
    ],
)
def test_what_is_beside_the_tensors_is_compared_too(
    change: Any, word: str, source: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(source, tmp_path / source.name))
    change(changed)
    (entry,) = report(made["gguf"], changed, 8)
    assert all(t["equal"] for t in entry["tensors"])
    assert any(word in problem for problem in entry["problems"]), entry["problems"]


def test_what_another_version_wrote_beside_the_tensors_is_a_note(
    source: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    from gemmaq.artifact.digests import of_files
    from gemmaq.files import sums

    artifact = Path(shutil.copytree(made["mlx"], tmp_path / "copy"))
    edit_json(artifact / "config.json", lambda config: config.update(comment="of old"))
    edit_record(artifact, lambda said: said.update(gemmaq="0.0.1"))
    files = {path.name: path for path in artifact.iterdir() if path.name != sums.NAME}
    (artifact / sums.NAME).write_bytes(sums.text(of_files(files)))
    (entry,) = report(artifact, source)
    note, *more = entry["notes"]
    assert note.startswith("config.json has") and "written by gemmaq 0.0.1" in note
    assert [text.partition(" ")[0] for text in more] == ["README.md"]  # it has the digests of other files
    assert note in run("verify", artifact, "--against", source).stderr


def test_the_name_of_the_source_does_not_matter(source: Path, made: dict[str, Path], tmp_path: Path) -> None:
    renamed = shutil.copytree(source, tmp_path / "download")
    for kind in ("gguf", "bf16"):
        assert all(entry["problems"] == [] for entry in report(made[kind], renamed))


def test_threads_do_not_show(source: Path, made: dict[str, Path], tmp_path: Path) -> None:
    large = small_model(tmp_path / "gemma-3-large", replace(SMALL, vocab_size=20_000))
    run("convert", large, "-q", "-o", tmp_path / "out")
    one, four = (report(tmp_path / "out", large, 0, "--threads", threads) for threads in (1, 4))
    assert one == four


def test_what_is_of_others_is_told_its_error(source: Path, made: dict[str, Path], other: Path, tmp_path: Path) -> None:
    """Errors alone, whatever the container, and no verdict on the bytes."""
    (known,) = report(made["mlx"], source)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for path in made["mlx"].iterdir():
        if path.name not in ("gemmaq.json", "SHA256SUMS"):
            shutil.copy(path, foreign)
    (entry,) = report(foreign, source)
    assert {t["name"]: t["error"] for t in entry["tensors"]} == {t["name"]: t["error"] for t in known["tensors"]}
    assert all(t["equal"] is None and t["differing"] is None for t in entry["tensors"])
    assert all(k["equal"] is None for k in entry["kinds"])
    (far,) = report(foreign, other)
    assert all(t["error"] > 1 for t in far["tensors"] if t["kind"] == "q_proj")
    run("convert", source, "-q", "--quant", "f16", "-o", tmp_path / "gguf")
    file = next((tmp_path / "gguf").glob("*.gguf")).rename(tmp_path / "alone.gguf")
    (half,) = report(file, source)
    assert all(t["error"] < 1e-3 for t in half["tensors"]) and len(half["tensors"]) == len(known["tensors"])
    assert "error" in run("verify", file, "--against", source).stdout


def test_a_foreign_projector_is_told_its_error(seeing: Path, made: dict[str, Path], tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for path in made["mmproj"].glob("*.gguf"):
        shutil.copy(path, foreign)
    (entry,) = report(foreign, seeing)
    seen = [t for t in entry["tensors"] if t["kind"] == "vision"]
    assert len(seen) == 7 + 16 * 2 and all(t["error"] < 1e-3 for t in seen)
    (back,) = report(made["seeing mlx"], seeing)
    tables = {t["name"].removeprefix("language_model.") for t in back["tensors"] if t["kind"] == "embedding"}
    assert tables == {EMBEDDING, HEAD}


def test_a_source_of_another_shape_is_refused(made: dict[str, Path], tmp_path: Path) -> None:
    longer = small_model(tmp_path / "gemma-3-tiny", replace(SMALL, vocab_size=384))
    (entry,) = report(made["mlx"], longer, 8)
    assert any("embed_tokens.weight is not there as" in problem for problem in entry["problems"])
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for path in made["mlx"].iterdir():
        if path.name not in ("gemmaq.json", "SHA256SUMS"):
            shutil.copy(path, foreign)
    (entry,) = report(foreign, longer, 8)
    assert any(EMBEDDING in problem and "has the shape" in problem for problem in entry["problems"])


def test_errors_are_those_of_numpy(source: Path, made: dict[str, Path]) -> None:
    """The relative RMS error, computed here from the file by the gguf package's own decoder."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    from damage import stored
    from gemmaq.models.gemma3.names import to_gguf

    (entry,) = report(made["gguf"], source)
    errors = {t["name"]: t["error"] for t in entry["tensors"]}
    found = {t.name: t for path in made["gguf"].glob("*.gguf") for t in GGUFReader(path).tensors}
    for name, shape in shapes(SMALL):
        if len(shape) == 2:
            weights = (stored(source, name).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
            tensor = found[to_gguf(name)]
            distance = dequantize(tensor.data, tensor.tensor_type).reshape(shape) - weights
            wanted = np.sqrt(np.square(distance).sum() / np.square(weights).sum())
            assert errors[to_gguf(name)] == pytest.approx(wanted, rel=1e-5)


def test_the_table_names_kinds_and_worst(source: Path, made: dict[str, Path]) -> None:
    said = run("verify", made["gguf"], "--against", source).stdout
    for word in ("q_proj", "down", "embedding", "norm", "worst tensors", "Q4_0", "2 of 2", "%"):
        assert word in said
    assert "tensors are what gemmaq makes of the source" in said
    assert len(folders(made["several"])) == run("verify", made["several"], "--against", source).stdout.count("worst t")
    assert run("verify", made["gguf"], "--against", source, "-q").stdout == ""


@pytest.mark.parametrize("against", ["absent", "./absent"])
def test_a_source_that_is_not_there(against: str, made: dict[str, Path]) -> None:
    run("verify", made["gguf"], "--against", against, code=5)


def test_a_vision_side_that_the_source_lacks_is_told(seeing: Path, made: dict[str, Path], tmp_path: Path) -> None:
    blind = tmp_path / "blind"
    run("convert", seeing, "--mmproj", "none", "--to", "safetensors", "--quant", "bf16", "-q", "-o", blind)
    for kind in ("mmproj", "seeing bf16"):
        (entry,) = report(made[kind], blind, 8)
        surplus = [problem for problem in entry["problems"] if "is not made of" in problem]
        assert len(surplus) >= 7 + 16 * 2
