"""From container to container and back: codes survive, scales wherever the container can hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from damage import contained
from gemmaq.models.gemma3.names import to_gguf
from inprocess import run
from oracles import read_gguf

BLOCK_BYTES = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q8_0": 34}
SCALE_BYTES = {"q4_0": 2, "q4_1": 4, "q5_0": 2, "q8_0": 2}
EMBEDDING = "token_embd.weight"
MATRICES = 126
"""Matrices in the layers of the 270M."""


def convert(source: Path, out: Path, *options: object) -> Path:
    """The result of a conversion: the folder, or the one GGUF file in it."""
    run("convert", source, "-o", out, *options)
    files = list(out.glob("*.gguf"))
    assert len(files) < 2
    return files[0] if files else out


def report(source: Path, out: Path, *options: object) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run("convert", source, "-o", out, "--json", *options).stdout)
    return result


def tensors(file: Path) -> dict[str, tuple[int, bytes]]:
    """Tensor -> type and bytes."""
    return {name: (kind, data) for name, (kind, _, data) in read_gguf(file)[1].items()}


def unequal(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    assert list(a) == list(b)
    return [name for name in a if a[name] != b[name]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["portable", "ordinary"])
def test_the_270m_goes_round_and_comes_home(
    kind: str, sample_q4_0: Path, sample_portable: Path, tmp_path: Path
) -> None:
    start = sample_portable if kind == "portable" else sample_q4_0
    first = report(start, tmp_path / "mlx", "--to", "mlx")["artifacts"][0]
    gguf = convert(tmp_path / "mlx", tmp_path / "back")
    before, between = tensors(start), tensors(gguf)
    assert len(before) == 236
    rounded = [] if kind == "portable" else [EMBEDDING]
    assert unequal(before, between) == rounded
    exact = {"exact": MATRICES + 1} if kind == "portable" else {"exact": MATRICES, "rounded": 1}
    assert first["outcomes"] == {**exact, "float": 109}
    assert [entry["tensor"] for entry in first["rounded"]] == ["model.embed_tokens.weight"] * len(rounded)
    assert all(0 < entry["rounded"] < entry["scales"] == 262144 * 640 // 32 for entry in first["rounded"])
    if kind == "portable":
        second = report(gguf, tmp_path / "ct", "--to", "safetensors")["artifacts"][0]
        assert second["outcomes"] == {"exact": MATRICES, "float": 110} and second["rounded"] == []
        assert unequal(before, tensors(convert(tmp_path / "ct", tmp_path / "home"))) == [EMBEDDING]


def codes(kind: str, data: bytes) -> np.ndarray:
    """The code bytes of blocks, without their scales."""
    return np.frombuffer(data, np.uint8).reshape(-1, BLOCK_BYTES[kind])[:, SCALE_BYTES[kind] :]


def scales(kind: str, data: bytes) -> np.ndarray:
    raw = np.frombuffer(data, np.uint8).reshape(-1, BLOCK_BYTES[kind])[:, : SCALE_BYTES[kind]]
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float64)


@pytest.mark.parametrize("kind", BLOCK_BYTES)
def test_mlx_keeps_codes_and_with_fp16_scales_every_bit(kind: str, tiny: Path, tmp_path: Path) -> None:
    # codes of Q4_1 become MLX's own type, which has no name in GGUF: going home, the type is to be said
    type_of = ("--quant", kind if kind == "q4_1" else "auto", "--embedding", kind)
    start = convert(tiny, tmp_path / "gguf", "--quant", kind, "--embedding", kind)
    rough = convert(convert(start, tmp_path / "mlx", "--to", "mlx", "--quant", "auto"), tmp_path / "back", *type_of)
    fine = convert(
        convert(start, tmp_path / "f16", "--to", "mlx", "--quant", "auto", "--scales", "f16"),
        tmp_path / "fine",
        *type_of,
    )
    before, between, after = (tensors(file) for file in (start, rough, fine))
    assert unequal(before, after) == []
    changed = unequal(before, between)
    assert (len(changed) == 0) == (kind in ("q4_0", "q5_0"))  # their scales are powers of two away from a weight
    for name in changed:
        assert before[name][0] == between[name][0]
        old, new = before[name][1], between[name][1]
        np.testing.assert_array_equal(codes(kind, old), codes(kind, new), err_msg=name)
        np.testing.assert_allclose(scales(kind, new), scales(kind, old), rtol=2**-8, atol=2**-24, err_msg=name)


@pytest.mark.parametrize("kind", ["q4_0", "q8_0"])
def test_fp16_scales_make_compressed_tensors_exact(kind: str, tiny: Path, tmp_path: Path) -> None:
    start = convert(tiny, tmp_path / "gguf", "--quant", kind, "--embedding", "bf16")
    result = report(start, tmp_path / "ct", "--to", "safetensors", "--quant", "auto", "--scales", "f16")["artifacts"][0]
    assert result["rounded"] == [] and result["outcomes"]["exact"] == 50
    home = convert(tmp_path / "ct", tmp_path / "home", "--quant", "auto", "--embedding", "bf16")
    assert unequal(tensors(start), tensors(home)) == []


def test_rounded_scales_are_counted_and_warned_of(tiny: Path, tmp_path: Path) -> None:
    start = convert(tiny, tmp_path / "gguf", "--quant", "q8_0")
    result = report(start, tmp_path / "mlx", "--to", "mlx", "--quant", "auto")["artifacts"][0]
    assert result["outcomes"] == {"rounded": 50, "float": 43}
    back = tensors(convert(tmp_path / "mlx", tmp_path / "back", "--quant", "auto"))
    before = tensors(start)
    assert len(result["rounded"]) == 50
    for entry in result["rounded"]:
        name = to_gguf(entry["tensor"])
        old, new = scales("q8_0", before[name][1]), scales("q8_0", back[name][1])
        assert (entry["scales"], entry["rounded"]) == (old.size, int((old != new).sum())), entry
    message = run("convert", start, "--to", "mlx", "--quant", "auto", "-o", tmp_path / "again").stderr
    assert "scales of 50 tensors had to be rounded" in message and "--scales f16" in message
    quiet = run("convert", start, "--to", "mlx", "--quant", "auto", "--scales", "f16", "-o", tmp_path / "fine").stderr
    assert "had to be rounded" not in quiet


@pytest.mark.parametrize(
    "options", [("--quant", "q4_0"), ("--quant", "q8_0"), ("--recipe", "everywhere")], ids=" ".join
)
def test_several_containers_hold_what_each_holds_alone(options: tuple[str, ...], tiny: Path, tmp_path: Path) -> None:
    containers = ("gguf", "mlx", "safetensors")
    together = report(tiny, tmp_path / "all", *(part for name in containers for part in ("--to", name)), *options)
    assert [artifact["container"] for artifact in together["artifacts"]] == list(containers)
    for name in containers:
        run("convert", tiny, "--portable", "--to", name, *options, "-o", tmp_path / name)
        alone = contained(tmp_path / name)
        assert contained(tmp_path / "all" / name) == alone
        assert any(path.endswith((".gguf", ".safetensors")) for path in alone)


def test_one_run_gives_one_model(tiny: Path, tmp_path: Path) -> None:
    """The MLX and the compressed-tensors folder hold the weights of the GGUF file of the same run."""
    run("convert", tiny, "--recipe", "everywhere", "-o", tmp_path / "all")
    file = next((tmp_path / "all/gguf").glob("*.gguf"))
    for name in ("mlx", "safetensors"):
        home = convert(tmp_path / "all" / name, tmp_path / f"from {name}")
        assert unequal(tensors(file), tensors(home)) == ([] if name == "mlx" else [EMBEDDING])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--to", "mlx", "--quant", "q6_k"), ("mlx cannot hold Q6_K", "affineN", "q8_0")),
        (("--to", "mlx", "--quant", "q4_k_m"), ("mlx cannot hold Q4_K_M", "affineN", "q8_0")),
        (("--to", "safetensors", "--quant", "q5_k"), ("safetensors cannot hold Q5_K", "q4_0")),
        (("--to", "safetensors", "--embedding", "q4_k"), ("cannot hold Q4_K for the embedding", "bf16")),
        (("--to", "mlx", "--quant", "q5_1"), ("mlx cannot hold Q5_1", "q5_0")),
        (("--to", "mlx", "--embedding", "f16"), ("mlx cannot hold F16 for the embedding", "bf16")),
        (("--to", "safetensors", "--quant", "q4_1"), ("safetensors cannot hold Q4_1", "q4_0")),
        (("--to", "safetensors", "--quant", "affine4"), ("safetensors cannot hold AFFINE4", "q4_0")),
        (("--to", "safetensors", "--embedding", "q8_0"), ("cannot hold Q8_0 for the embedding", "bf16")),
        (("--to", "gguf", "--quant", "affine8"), ("gguf cannot hold AFFINE8", "q8_0")),
        (("--to", "gguf", "--to", "mlx", "--quant", "q6_k"), ("mlx cannot hold Q6_K", "q8_0")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) and value[0] == "--to" else "",
)
def test_what_a_container_cannot_hold_is_refused_before_writing(
    options: tuple[str, ...], words: tuple[str, ...], tiny: Path, tmp_path: Path
) -> None:
    message = run("convert", tiny, *options, "-o", tmp_path / "deep/out", code=3).stderr
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []
