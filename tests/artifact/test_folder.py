"""Where the models of an artifact are, and which files are none of its own."""

from __future__ import annotations

from pathlib import Path

from gemmaq.artifact.folder import has_model, is_hidden, is_left_behind, models_in


def test_a_model_in_the_folder_or_in_a_subfolder_for_each_container(tmp_path: Path) -> None:
    assert models_in(tmp_path) == []
    for part in ("gguf", "mlx", "other"):
        (tmp_path / part).mkdir()
    (tmp_path / "gguf/a-Q4_0.gguf").touch()
    (tmp_path / "mlx/config.json").touch()
    (tmp_path / "other/config.json").touch()
    assert models_in(tmp_path) == [tmp_path / "gguf", tmp_path / "mlx"]
    (tmp_path / "config.json").touch()
    assert models_in(tmp_path) == [tmp_path]


def test_an_mmproj_file_alone_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "mmproj-a-F16.gguf").touch()
    assert not has_model(tmp_path)


def test_files_of_git_and_of_the_tools_of_the_hub(tmp_path: Path) -> None:
    for name in (".git/config", ".gitattributes", ".cache/huggingface/x.lock"):
        assert is_left_behind(name) and is_hidden(tmp_path / name, tmp_path)
    assert not is_left_behind("model.safetensors") and not is_left_behind("a/.git/config")
    assert not is_hidden(tmp_path / "model.safetensors", tmp_path)
