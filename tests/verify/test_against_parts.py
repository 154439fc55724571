"""Towers, drafters and experts of Gemma 4 against their sources: every bit counts, and every part is named."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gemma4_drafter
import gemma4_towers
from damage import header_of, safetensors_bytes, sealed_anew
from inprocess import run

WAYS: dict[str, tuple[str, ...]] = {
    "gguf": ("--to", "gguf"),
    "gguf q8_0": ("--to", "gguf", "--mmproj", "q8_0"),
    "mlx": ("--to", "mlx"),
    "compressed-tensors": ("--to", "safetensors", "--max-shard-size", "3m"),
}
HELD = {"effective": ("gguf", "mlx", "compressed-tensors"), "experts": ("gguf q8_0", "mlx", "compressed-tensors")}
"""Ways of each kind whose bits are flipped: E2B's has audio, softplus and centroids, 26B's has experts."""
CASES = [(kind, way) for kind, ways in HELD.items() for way in ways]
FLIPS, AT_A_TIME = 36, 12
"""Bits flipped in each artifact, and how many in one comparison."""


@dataclass(frozen=True)
class Pair:
    """A model with towers, and its drafter."""

    model: Path
    drafter: Path


Made = Mapping[tuple[str, str], Path]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    root = tmp_path_factory.mktemp("parts")
    return {
        kind: Pair(
            gemma4_towers.write(root / f"gemma-4-{kind}-it", gemma4_towers.KINDS[kind]),
            gemma4_drafter.write(root / f"gemma-4-{kind}-it-assistant", gemma4_drafter.DRAFTERS[kind]),
        )
        for kind in HELD
    }


@pytest.fixture(scope="module")
def made(pairs: dict[str, Pair], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Artifacts; not to be changed for good."""
    root = tmp_path_factory.mktemp("made")
    found = {}
    for kind, way in CASES:
        found[kind, way] = root / f"{kind} {way}"
        run("convert", pairs[kind].model, *WAYS[way], *drafted(pairs[kind], way), "-q", "-o", found[kind, way])
    return found


def drafted(pair: Pair, way: str) -> tuple[object, ...]:
    return ("--draft", pair.drafter) if way.startswith("gguf") else ()


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Callable[..., Path]:
    """A copy of an artifact, to be spoilt; without gemmaq.json and SHA256SUMS if that is asked for."""

    def copy(kind: str, way: str, *, bare: bool = False) -> Path:
        artifact = Path(shutil.copytree(made[kind, way], tmp_path / "copy"))
        for name in ("gemmaq.json", "SHA256SUMS") if bare else ():
            (artifact / name).unlink()
        return artifact

    return copy


def entry(artifact: Path, *options: object, code: int = 0) -> dict[str, Any]:
    """The JSON entry of an artifact."""
    (found,) = json.loads(run("verify", artifact, "--json", *options, code=code).stdout)["artifacts"]
    return dict(found)


def arrays(artifact: Path) -> Iterator[tuple[str, Path, int, int]]:
    """Name, file, offset and bytes of every array, by readers of others; without those that headers determine."""
    from gguf import GGUFReader

    for path in artifact.glob("*.gguf"):
        prefix = "drafter." if path.name.startswith("mtp-") else ""
        for tensor in GGUFReader(path).tensors:
            yield prefix + tensor.name, path, tensor.data_offset, tensor.n_bytes
    for path in artifact.glob("*.safetensors"):
        header, data = header_of(path)
        start = path.stat().st_size - len(data)
        for name, value in header.items():
            if name != "__metadata__":
                begin, end = value["data_offsets"]
                yield name, path, start + begin, end - begin


def tensor_of(array: str) -> str:
    """The tensor that reports name for an array of it."""
    stem = re.sub(r"(?<=\.)(weight_packed|weight_scale|scales|biases)$", "weight", array)
    stem = re.sub(r"experts\.(switch_glu|\d+)\.(gate|up)_proj\.weight$", "experts.gate_up_proj", stem)
    return re.sub(r"experts\.(switch_glu|\d+)\.down_proj\.weight$", "experts.down_proj", stem)


def part_of(tensor: str) -> str:
    if tensor.startswith("drafter."):
        return "drafter"
    if re.match(r"(v|a|mm)\.|(model\.)?(vision|audio|embed_vision|embed_audio)", tensor):
        return "towers"
    return "experts" if "experts." in tensor or "_exps" in tensor else "text"


GENERATED = re.compile(r"rope_freqs\.weight$|weight_shape$")
"""Arrays whose content follows from the header."""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("kind", "way"), CASES)
def test_flipped_bits_are_found_and_named(pairs: dict[str, Pair], made: Made, kind: str, way: str) -> None:
    """With digests of the flipped files: only the source tells. Several are flipped at a time, in as many tensors:
    just these are named.
    """
    artifact, seeded = made[kind, way], random.Random(f"{kind} {way}")
    parts: dict[str, list[tuple[str, Path, int, int]]] = defaultdict(list)
    for array in arrays(artifact):
        if not GENERATED.search(array[0]):
            parts[part_of(tensor_of(array[0]))].append(array)
    wanted = {"text", "towers"} | ({"drafter"} if way.startswith("gguf") else set())
    assert parts.keys() == wanted | ({"experts"} if kind == "experts" else set())
    for _ in range(FLIPS // AT_A_TIME):
        flipped: dict[str, tuple[str, Path, int, int]] = {}
        for found in parts.values():
            count = len(flipped) + AT_A_TIME // len(parts)
            for array in seeded.sample(found, len(found)):
                if len(flipped) < count:
                    flipped.setdefault(tensor_of(array[0]), array)
        before = {path: path.read_bytes() for path in artifact.iterdir()}
        for _, path, offset, size in flipped.values():
            content = bytearray(path.read_bytes())
            content[offset + seeded.randrange(size)] ^= 1 << seeded.randrange(8)
            path.write_bytes(content)
        sealed_anew(artifact)
        problems = entry(artifact, "--against", pairs[kind].model, *drafted(pairs[kind], way), code=8)["problems"]
        for path, good in before.items():
            path.write_bytes(good)
        named = re.findall(r"tensor (\S+) is not what gemmaq makes of ", "\n".join(problems))
        assert {*named} == flipped.keys() and len(named) == AT_A_TIME
    found = entry(artifact, "--against", pairs[kind].model, *drafted(pairs[kind], way))
    assert found["problems"] == found["notes"] == []


def change(path: Path, at: int, bits: int = 1) -> None:
    """Flip bits of a byte."""
    content = bytearray(path.read_bytes())
    content[at] ^= bits
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "way", "name"),
    [
        ("effective", "gguf", "rope_freqs.weight"),
        ("effective", "gguf", "drafter.rope_freqs.weight"),
        ("experts", "compressed-tensors", "model.language_model.layers.0.experts.3.up_proj.weight_shape"),
    ],
)
def test_generated_arrays_are_named(
    pairs: dict[str, Pair], copied: Callable[..., Path], kind: str, way: str, name: str
) -> None:
    artifact = copied(kind, way)
    (array,) = (array for array in arrays(artifact) if array[0] == name)
    change(array[1], array[2] + 2)
    sealed_anew(artifact)
    problems = entry(artifact, "--against", pairs[kind].model, *drafted(pairs[kind], way), code=8)["problems"]
    assert problems[0] == f"{array[1].name}: tensor {name} is not what gemmaq writes"
    assert [problem.split()[0] for problem in problems[1:]] == ["README.md"]  # it has the digest of the file as it was


def test_bytes_that_fill_up_gguf_files_are_compared(pairs: dict[str, Pair], copied: Callable[..., Path]) -> None:
    """Behind a tensor in the middle, and behind the last."""
    artifact = copied("effective", "gguf")
    (path,) = artifact.glob("mmproj-*")
    found = sorted((offset, offset + size, name) for name, file, offset, size in arrays(artifact) if file == path)
    padded = [(end, name) for _, end, name in found if end % 32]
    assert len(padded) > 2
    for at, name in (padded[1], padded[-1]):
        change(path, at + 1)
        sealed_anew(artifact)
        against = ("--against", pairs["effective"].model, *drafted(pairs["effective"], "gguf"))
        problem, card = entry(artifact, *against, code=8)["problems"]
        assert card.startswith("README.md is not")
        assert problem == f"{path.name}: the bytes behind tensor {name} are not zero"
        change(path, at + 1)


@pytest.mark.parametrize("piece", ["mmproj", "mtp"])
def test_a_piece_of_another_model_of_the_same_size_is_found(
    pairs: dict[str, Pair], copied: Callable[..., Path], tmp_path: Path, piece: str
) -> None:
    """It fits, so that only digests or the source tell."""
    artifact, pair = copied("effective", "gguf"), pairs["effective"]
    kind, drafter = gemma4_towers.KINDS["effective"], gemma4_drafter.DRAFTERS["effective"]
    others = Pair(
        gemma4_towers.write(tmp_path / pair.model.name, kind, dict(gemma4_towers.weights(kind, seed=5))),
        gemma4_drafter.write(tmp_path / pair.drafter.name, drafter, dict(gemma4_drafter.weights(drafter.config, 5))),
    )
    run("convert", others.model, "--draft", others.drafter, "-q", "-o", tmp_path / "other")
    (path,) = artifact.glob(f"{piece}-*")
    shutil.copy(tmp_path / "other" / path.name, path)
    assert any(path.name in problem and "was changed" in problem for problem in entry(artifact, code=8)["problems"])
    sealed_anew(artifact)
    assert entry(artifact)["problems"] == []
    against = ("--against", pair.model, "--draft", pair.drafter)
    named = re.findall(r"tensor (\S+) is not", "\n".join(entry(artifact, *against, code=8)["problems"]))
    wanted = "towers" if piece == "mmproj" else "drafter"
    assert {part_of(name) for name in named} == {wanted}
    matrices = [name for name in named if "_proj" in name or "blk" in name]
    assert len(matrices) > 20
    if piece == "mtp":
        unchecked = entry(artifact, "--against", pair.model)
        assert unchecked["problems"] == [] and "--draft SOURCE" in unchecked["notes"][0]


def test_pieces_of_another_size_do_not_fit(pairs: dict[str, Pair], made: Made, copied: Callable[..., Path]) -> None:
    artifact = copied("experts", "gguf q8_0")
    for piece, named in (("mmproj", "tensor v.patch_embd.weight is F16"), ("mtp", "mtp-gemma-4-experts-it")):
        (path,) = artifact.glob(f"{piece}-*")
        good = path.read_bytes()
        shutil.copy(next(made["effective", "gguf"].glob(f"{piece}-*")), path)
        sealed_anew(artifact)
        assert any(named in problem for problem in entry(artifact, code=8)["problems"])
        path.write_bytes(good)


def test_a_tensor_of_a_tower_that_is_missing_or_of_another_shape(
    pairs: dict[str, Pair], copied: Callable[..., Path]
) -> None:
    artifact = copied("effective", "mlx")
    against = ("--against", pairs["effective"].model)
    (path,) = artifact.glob("*.safetensors")
    good, (header, data) = path.read_bytes(), header_of(path)
    clip = next(name for name in header if "audio_tower" in name and name.endswith("output_min"))
    path.write_bytes(safetensors_bytes({name: value for name, value in header.items() if name != clip}, data))
    sealed_anew(artifact)
    for options in ((), against):
        problems = entry(artifact, *options, code=8)["problems"]
        assert any(clip in problem for problem in problems), problems
    path.write_bytes(good)
    table = "vision_tower.patch_embedder.position_embedding_table"
    header[table]["shape"] = [header[table]["shape"][at] for at in (1, 0, 2)]
    path.write_bytes(safetensors_bytes(header, data))
    sealed_anew(artifact)
    assert any(table in problem for problem in entry(artifact, code=8)["problems"])


@pytest.mark.parametrize(
    ("way", "name", "word"),
    [
        ("mlx", "processor_config.json", "image_seq_length"),
        ("compressed-tensors", "processor_config.json", "image_seq_length"),
        ("mlx", "config.json", "model_type"),
        ("gguf", "Modelfile", "PARAMETER"),
        ("gguf", "params", "temperature"),
    ],
)
def test_files_beside_the_weights_are_compared(
    pairs: dict[str, Pair], copied: Callable[..., Path], way: str, name: str, word: str
) -> None:
    artifact = copied("effective", way)
    path = artifact / name
    path.write_text(path.read_text().replace(word, word.swapcase(), 1))
    sealed_anew(artifact)
    found = entry(artifact, "--against", pairs["effective"].model, *drafted(pairs["effective"], way), code=8)
    assert f"{name}: it is not what gemmaq writes" in found["problems"]


def test_gguf_files_without_a_record_are_told_their_errors(
    pairs: dict[str, Pair], copied: Callable[..., Path], tmp_path: Path
) -> None:
    """Under names of others: towers in the source's own numbers, the drafter if its source is given."""
    artifact, pair = copied("effective", "gguf", bare=True), pairs["effective"]
    next(artifact.glob("mmproj-*")).rename(artifact / "mmproj-BF16.gguf")
    found = entry(artifact, "--against", pair.model, "--draft", pair.drafter)
    errors = {kind["kind"]: (kind["tensors"], kind["error"]) for kind in found["kinds"]}
    assert found["problems"] == found["notes"] == []
    for part in ("vision", "audio"):
        assert errors[part][0] > 20 and errors[part][1] < 1e-3
    assert errors["drafter"][0] > 30 and errors["drafter"][1] < 0.2
    scales = [tensor for tensor in found["tensors"] if "per_dim_scale" in tensor["name"]]
    assert len(scales) == 2 and all(tensor["error"] < 1e-3 for tensor in scales)
    alone = entry(artifact, "--against", pair.model)
    assert "--draft SOURCE" in alone["notes"][0] and "drafter" not in {kind["kind"] for kind in alone["kinds"]}
    next(artifact.glob("mmproj-*")).unlink()
    next(artifact.glob("mtp-*")).unlink()
    (note,) = entry(artifact, "--against", pair.model)["notes"]
    assert "no towers" in note
    assert "no drafter" in run("verify", artifact, "--against", pair.model, "--draft", pair.drafter, code=2).stderr


@pytest.mark.parametrize("way", ["mlx", "compressed-tensors"])
def test_folders_without_a_record_are_told_their_errors(
    pairs: dict[str, Pair], copied: Callable[..., Path], way: str
) -> None:
    found = entry(copied("effective", way, bare=True), "--against", pairs["effective"].model)
    assert found["problems"] == found["notes"] == []
    assert all(kind["error"] == 0 for kind in found["kinds"] if kind["kind"] in ("vision", "audio"))


def test_the_table_has_rows_for_every_part(pairs: dict[str, Pair], made: Made) -> None:
    """Errors too small for the table are told apart from none."""
    pair = pairs["effective"]
    said = run("verify", made["effective", "gguf"], "--against", pair.model, "--draft", pair.drafter).stdout
    rows = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert "< 0.001 %" in rows["vision"] and "F16" in rows["vision"] and "F16" in rows["audio"]
    assert "0.000 %" in rows["norm"] and "Q4_0" in rows["drafter"]


def test_a_drafter_alone_is_compared(pairs: dict[str, Pair], tmp_path: Path) -> None:
    drafter = pairs["effective"].drafter
    run("convert", drafter, "-q", "-o", tmp_path / "alone")
    found = entry(tmp_path / "alone", "--against", drafter)
    assert found["problems"] == found["notes"] == [] and len(found["tensors"]) > 30
    (path,) = (tmp_path / "alone").glob("*.gguf")
    name, _, offset, _ = next(array for array in arrays(tmp_path / "alone") if "nextn.pre_proj" in array[0])
    change(path, offset)
    sealed_anew(tmp_path / "alone")
    problem, card = entry(tmp_path / "alone", "--against", drafter, code=8)["problems"]
    assert card.startswith("README.md is not")
    assert problem.startswith(f"tensor {name.removeprefix('drafter.')} is not what")
