"""Folders may have any name: commands read them, and what they write is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from damage import small_model
from inprocess import run

NAMES = ("my model (v2)", "模型", "a{b}", "{0} {{x}} %s", "it's $HOME `x`", "[bold]a|b[/]", "*a*\\_b_", "a\nb", "-x")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("container", ["gguf", "mlx"])
def test_a_folder_of_any_name_is_converted_and_verified(name: str, container: str, tmp_path: Path) -> None:
    model, out = small_model(tmp_path / name), tmp_path / f"{name}-out"
    run("inspect", model)
    run("convert", model, "--to", container, "--method", "nearest", "-o", out)
    assert all(set(path.name) <= set(map(chr, range(33, 127))) for path in out.iterdir())
    run("verify", out, "--against", model)
    run("inspect", next(out.glob("*.gguf")) if container == "gguf" else out)
    run("estimate-vram", out)
