"""MLX and compressed-tensors folders of Gemma 4 with towers as sources again: towers arrive bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from gemma4_towers import KINDS
from inprocess import run
from oracles import read_gguf

Folders = dict[str, Path]


@pytest.fixture(scope="module")
def converted(gemma4_releases: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Kind -> folders gguf, mlx and safetensors by one command."""
    root = tmp_path_factory.mktemp("converted")
    for kind, folder in gemma4_releases.items():
        to = [word for name in ("gguf", "mlx", "safetensors") for word in ("--to", name)]
        run("convert", folder, *to, "--quant", "q4_0", "--mmproj", "bf16", "-o", root / kind)
    return {kind: root / kind for kind in KINDS}


def towers(folder: Path) -> dict[str, Any]:
    """The tensors of the towers in a folder by the names of MLX."""
    arrays = load_file(folder / "model.safetensors")
    return {name.removeprefix("model."): array for name, array in arrays.items() if "language_model." not in name}


def mmproj(folder: Path) -> dict[str, tuple[int, list[int], bytes]]:
    (path,) = folder.glob("mmproj-*.gguf")
    return read_gguf(path)[1]


@pytest.mark.parametrize("start", ["mlx", "safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_towers_pass_through_every_other_container(converted: Folders, tmp_path: Path, kind: str, start: str) -> None:
    other = "safetensors" if start == "mlx" else "mlx"
    to = ("--to", "gguf", "--to", other, "--quant", "auto", "--mmproj", "bf16")
    run("convert", converted[kind] / start, *to, "-o", tmp_path / "out")
    assert mmproj(tmp_path / "out/gguf") == mmproj(converted[kind] / "gguf")
    ours, direct = towers(tmp_path / "out" / other), towers(converted[kind] / other)
    assert ours.keys() == direct.keys() and all(ours[name].equal(array) for name, array in direct.items())
    configs = [
        json.loads((folder / other / "config.json").read_text()) for folder in (tmp_path / "out", converted[kind])
    ]
    for key in ("architectures", "model_type", "vision_config", "audio_config", "image_token_id"):
        assert configs[0][key] == configs[1][key], key
    names = [folder / other / "processor_config.json" for folder in (tmp_path / "out", converted[kind])]
    assert names[0].read_bytes() == names[1].read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_gguf_with_its_mmproj_becomes_an_mlx_folder(converted: Folders, tmp_path: Path, kind: str) -> None:
    (model,) = (path for path in (converted[kind] / "gguf").glob("*.gguf") if not path.name.startswith("mmproj-"))
    run("convert", model, "--to", "mlx", "--quant", "auto", "-o", tmp_path / "out")
    ours, direct = towers(tmp_path / "out"), towers(converted[kind] / "mlx")
    assert ours.keys() == direct.keys()
    assert [name for name, array in direct.items() if not ours[name].equal(array)] == []


def test_a_quantized_matrix_of_a_tower_is_read(converted: Folders, tmp_path: Path) -> None:
    """As mlx-vlm's own converter makes one."""
    import torch

    folder = shutil.copytree(converted["unified"] / "mlx", tmp_path / "gemma-4-unified")
    arrays, module = load_file(folder / "model.safetensors"), "embed_audio.embedding_projection"
    random = np.random.default_rng(0)
    codes = random.integers(0, 16, (256, 640))
    scales, biases = (torch.from_numpy(random.standard_normal((256, 10))).bfloat16() for _ in range(2))
    words = (codes.reshape(256, 80, 8).astype(np.uint32) << np.arange(0, 32, 4, dtype=np.uint32)).sum(
        -1, dtype=np.uint32
    )
    arrays |= {f"{module}.weight": torch.from_numpy(words), f"{module}.scales": scales, f"{module}.biases": biases}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "mlx"})
    (folder / "model.safetensors.index.json").unlink()
    run("convert", folder, "--to", "safetensors", "--quant", "f32", "-o", tmp_path / "out")
    wide = [part.float().numpy().repeat(64, 1) for part in (scales, biases)]
    expected = codes.astype(np.float32) * wide[0] + wide[1]
    np.testing.assert_allclose(towers(tmp_path / "out")[f"{module}.weight"], expected, rtol=1e-6, atol=1e-7)
