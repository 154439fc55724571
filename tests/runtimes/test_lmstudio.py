"""`gemmaq install --runtime lmstudio`: two levels, real files, one projector, all or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from artifacts import Sources, convert
from gemmaq.runtimes import lmstudio
from inprocess import Done, run
from records import edit_record


def install(folder: Path, *flags: object, code: int = 0) -> Done:
    return run("install", folder, "--runtime", "lmstudio", *flags, code=code)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, where LM Studio has run."""
    folder = tmp_path / "home"
    (folder / ".lmstudio" / "models").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def check_layout(models: Path) -> None:
    """LM Studio's rules: publisher/repo/file, no links to elsewhere, at most one projector, nothing half-done."""
    for path in models.rglob("*"):
        assert not path.is_symlink() and "partial" not in path.name
        assert len(path.relative_to(models).parts) == 3 or not path.is_file()
    for folder in models.glob("*/*"):
        assert sum("mmproj" in path.name for path in folder.iterdir()) <= 1
        containers = {path.suffix for path in folder.iterdir()} & {".gguf", ".safetensors"}
        assert len(containers) == 1
        assert ".gguf" in containers or (folder / "config.json").is_file()


def strip(folder: Path) -> Path:
    """An artifact as if it were someone else's."""
    for name in ("SHA256SUMS", "gemmaq.json"):
        (folder / name).unlink()
    return folder


def test_gguf(seeing: Path, home: Path) -> None:
    models = home / ".lmstudio" / "models"
    done = install(seeing)
    folder = models / "gemmaq" / "gemma-3-4b-it-qat-Q4_0-GGUF"
    assert done.stdout == f"{folder}\n"
    assert files(folder) == sorted(path.name for path in seeing.glob("*.gguf"))
    check_layout(models)
    for path in folder.iterdir():
        assert path.samefile(seeing / path.name)


def test_shards_and_quiet(split: Path, home: Path) -> None:
    assert install(split, "-q", "--name", "me/mine").stdout == f"{home}/.lmstudio/models/me/mine\n"
    assert files(home / ".lmstudio/models/me/mine") == sorted(path.name for path in split.glob("*.gguf"))


def test_mlx(mlx: Path, home: Path) -> None:
    install(mlx)
    folder = home / ".lmstudio/models/gemmaq/gemma-3-1b-it-Q4_0-MLX"
    assert files(folder) == files(mlx)
    assert "vision_config" not in json.loads((folder / "config.json").read_text())
    check_layout(home / ".lmstudio/models")


def test_mlx_with_eyes(sources: Sources, tmp_path: Path, home: Path) -> None:
    folder = convert(sources.seeing, tmp_path / "out", "--to", "mlx")
    install(folder, "--name", "me/eyes")
    installed = home / ".lmstudio/models/me/eyes"
    assert "vision_config" in json.loads((installed / "config.json").read_text())
    assert "preprocessor_config.json" in files(installed)


def test_a_vision_config_without_vision_weights(mlx: Path, tmp_path: Path, home: Path) -> None:
    """LM Studio goes by vision_config alone."""
    folder = strip(Path(shutil.copytree(mlx, tmp_path / "odd")))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vision_config": {"hidden_size": 64}}))
    assert "vision_config" in install(folder, code=3).stderr


def test_safetensors_are_refused(sources: Sources, tmp_path: Path, home: Path) -> None:
    for folder in (sources.chat, convert(sources.chat, tmp_path / "w4", "--to", "safetensors")):
        assert "gemmaq convert" in install(folder, code=3).stderr
    assert not files(home)


def test_a_second_projector_is_refused(seeing: Path, tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    for path in seeing.glob("*.gguf"):
        shutil.copy(path, folder)
    install(folder, "--name", "me/one")
    shutil.copy(next(seeing.glob("mmproj*")), folder / "mmproj-another-BF16.gguf")
    assert "2 mmproj files" in install(folder, code=8).stderr
    check_layout(home / ".lmstudio/models")


def test_a_projector_of_another_model_is_refused(chat: Path, seeing: Path, tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "swapped"
    folder.mkdir()
    shutil.copy(next(chat.glob("*.gguf")), folder)
    projector = folder / "mmproj-F16.gguf"
    whole = next(seeing.glob("mmproj*")).read_bytes()
    at = whole.index(b"clip.vision.projection_dim") + len(b"clip.vision.projection_dim") + 4
    projector.write_bytes(whole[:at] + (96).to_bytes(4, "little") + whole[at + 4 :])
    assert "mmproj" in install(folder, code=8).stderr


@pytest.mark.parametrize("refusal", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_copies_where_it_cannot_link(refusal: int, seeing: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", no_link)
    report = json.loads(install(seeing, "--json").stdout)
    assert {file["how"] for file in report["files"]} == {"copied"}
    for path in Path(report["path"]).iterdir():
        assert path.read_bytes() == (seeing / path.name).read_bytes() and not path.samefile(seeing / path.name)
    check_layout(home / ".lmstudio/models")


def test_a_full_disk_leaves_nothing(seeing: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "")

    def no_sync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "fsync", no_sync)
    assert "no space" in install(seeing, code=7).stderr
    assert not files(home)
    monkeypatch.setattr(lmstudio.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    install(seeing, code=7)
    assert not files(home)


def test_interrupted(seeing: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a scan would take for a model is there meanwhile, and nothing after it."""
    models, suffixes = home / ".lmstudio/models", []

    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "")

    def stop(_: int) -> None:
        suffixes.extend(path.suffix for path in models.rglob("*") if path.is_file())
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "fsync", stop)
    assert _interrupted(seeing) == 130 and suffixes == [".partial"] and not files(home)


def _interrupted(folder: Path) -> int:
    from unittest.mock import patch

    from gemmaq.cli.app import main

    with patch("sys.argv", ["gemmaq", "install", str(folder), "--runtime", "lmstudio", "-q"]):
        try:
            main()
        except SystemExit as ended:
            return int(str(ended.code))
    return 0


def test_nothing_is_overwritten(chat: Path, seeing: Path, home: Path) -> None:
    install(chat, "--name", "me/mine")
    folder = home / ".lmstudio/models/me/mine"
    before = files(folder)
    assert "--force" in install(chat, "--name", "me/mine", code=7).stderr
    assert "--force" in install(chat, "--name", "me/mine", "--dry-run", code=7).stderr
    install(seeing, "--name", "me/mine", "--force", code=7)
    assert files(folder) == before
    report = json.loads(install(chat, "--name", "me/mine", "--force", "--model-yaml", "--json").stdout)
    assert report["replaces"] is True and files(folder) == sorted([*before, "model.yaml"])
    install(chat, "--name", "me/mine", "--force")
    (folder / "another-Q8_0.gguf").write_bytes(b"")
    assert "another-Q8_0.gguf" in install(chat, "--name", "me/mine", "--force", code=7).stderr
    assert (folder / "another-Q8_0.gguf").exists()
    empty = home / ".lmstudio/models/me/empty"
    empty.mkdir()
    install(chat, "--name", "me/empty")
    assert files(empty) == before


def test_dry_run(seeing: Path, home: Path) -> None:
    done = install(seeing, "--dry-run")
    assert all(f"{path.name}  {path.stat().st_size:,} bytes" in done.stdout for path in seeing.glob("*.gguf"))
    report = json.loads(install(seeing, "--dry-run", "--json").stdout)
    assert (report["schema"], report["runtime"]) == ("gemmaq.install/1", "lmstudio")
    assert [file["bytes"] for file in report["files"]] and "how" not in report["files"][0]
    assert not files(home) and list((home / ".lmstudio/models").iterdir()) == []


def test_model_yaml(seeing: Path, chat: Path, mlx: Path, home: Path) -> None:
    text = json.loads(install(seeing, "--model-yaml", "--json").stdout)
    document = yaml.safe_load((Path(text["path"]) / "model.yaml").read_text())
    assert document == yaml.safe_load(text["model_yaml"])
    about = document["metadataOverrides"]
    assert (about["vision"], about["paramsStrings"], about["compatibilityTypes"]) == (True, ["4B"], ["gguf"])
    assert about["contextLengths"] == [2048] and about["minMemoryUsageBytes"] > sum(f["bytes"] for f in text["files"])
    assert document["model"] == "gemmaq/gemma-3-4b-it-qat-q4_0-gguf"
    assert document["base"][0]["key"] == "gemmaq/gemma-3-4b-it-qat-Q4_0-GGUF"
    sampling = {field["key"]: field["value"] for field in document["config"]["operation"]["fields"]}
    assert sampling["llm.prediction.temperature"] == 1 and sampling["llm.prediction.topKSampling"] == 64
    blind = json.loads(install(chat, "--model-yaml", "--json", "--dry-run").stdout)
    assert yaml.safe_load(blind["model_yaml"])["metadataOverrides"]["vision"] is False
    apple = json.loads(install(mlx, "--model-yaml", "--json").stdout)
    about = yaml.safe_load(apple["model_yaml"])["metadataOverrides"]
    assert (about["compatibilityTypes"], about["architectures"]) == (["safetensors"], ["gemma3_text"])


def test_the_entry_of_a_model_that_thinks(gemma4s: dict[str, Path], home: Path, tmp_path: Path) -> None:
    """In LM Studio's catalog, where its switch works, and never in place of somebody else's."""
    flags = ("--name", "me/gemma-4-E2B-it-GGUF", "--model-yaml")
    report = json.loads(install(gemma4s["small"], *flags, "--json").stdout)
    entry = home / ".lmstudio/hub/models/me/gemma-4-e2b-it/model.yaml"
    assert report["model_yaml_path"] == str(entry) and entry.read_text() == report["model_yaml"]
    assert files(Path(report["path"])) == [path.name for path in gemma4s["small"].glob("*.gguf")]
    assert "--force" in install(gemma4s["small"], *flags, code=7).stderr
    install(gemma4s["small"], *flags, "--force")
    (entry.parent / "manifest.json").write_text("{}")
    assert "manifest.json" in install(gemma4s["small"], *flags, "--force", code=7).stderr
    shutil.rmtree(report["path"])
    assert "manifest.json" in install(gemma4s["small"], *flags, "--force", code=7).stderr
    assert not files(home / ".lmstudio/models")
    install(gemma4s["small"], *flags, "--dest", tmp_path / "models")
    assert "model.yaml" in files(tmp_path / "models/me/gemma-4-E2B-it-GGUF")
    report = json.loads(install(gemma4s["large"], "--name", "me/plain", "--model-yaml", "--json").stdout)
    assert report["model_yaml_path"] == f"{report['path']}/model.yaml"


def test_a_drafter_stays_where_it_is(whole: Path, home: Path) -> None:
    """LM Studio would list it as a model that it cannot load; the projector is installed."""
    drafter = next(whole.glob("mtp-*")).name
    done = install(whole)
    assert f"{drafter} is not installed" in done.stderr
    folder = Path(done.stdout.strip())
    assert files(folder) == sorted(path.name for path in whole.glob("*.gguf") if path.name != drafter)
    assert any("mmproj" in name for name in files(folder))
    check_layout(home / ".lmstudio/models")
    yaml_text = json.loads(install(whole, "--force", "--model-yaml", "--json").stdout)["model_yaml"]
    assert yaml.safe_load(yaml_text)["metadataOverrides"]["vision"] is True


def test_where_the_models_are(home: Path, tmp_path: Path) -> None:
    """As `lms import` finds them: the pointer, the old home, the new one; the folder of settings.json."""
    assert lmstudio.models_folder() == home / ".lmstudio/models"
    old = home / ".cache/lm-studio"
    old.mkdir(parents=True)
    assert lmstudio.models_folder() == old / "models"
    (old / "settings.json").write_text("{")
    assert lmstudio.models_folder() == old / "models"
    (old / "settings.json").write_text(json.dumps({"downloadsFolder": str(tmp_path / "big disk")}))
    assert lmstudio.models_folder() == tmp_path / "big disk"
    pointed = tmp_path / "elsewhere"
    (home / ".lmstudio-home-pointer").write_text(f"{pointed}\n")
    assert lmstudio.models_folder() == tmp_path / "big disk"
    pointed.mkdir()
    assert lmstudio.models_folder() == pointed / "models"


def test_no_lm_studio(chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "--dest" in install(chat, code=5).stderr
    install(chat, "--dest", tmp_path / "new" / "models")
    check_layout(tmp_path / "new" / "models")


def test_publisher_of_the_source(chat: Path, tmp_path: Path, home: Path) -> None:
    folder = Path(shutil.copytree(chat, tmp_path / "out"))
    edit_record(folder, lambda said: said["source"].update(repo="google/gemma-3-1b-it"))
    sums = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    digest = hashlib.sha256((folder / "gemmaq.json").read_bytes()).hexdigest()
    new = [f"{digest}  gemmaq.json\n" if line.endswith("  gemmaq.json\n") else line for line in sums]
    (folder / "SHA256SUMS").write_text("".join(new))
    path = Path(json.loads(install(folder, "--json").stdout)["path"])
    assert path == home / ".lmstudio/models/google/gemma-3-1b-it-Q4_0-GGUF"


@pytest.mark.parametrize("name", ["one", "a/b/c", "../x", "a/..", "a b/c", "/abs", "a/", "", "~/x"])
def test_names(name: str, chat: Path, home: Path) -> None:
    install(chat, "--name", name, code=2)
    assert not files(home)


def test_unfinished_and_damaged(seeing: Path, split: Path, tmp_path: Path, home: Path) -> None:
    part = Path(shutil.copytree(split, tmp_path / "part"))
    sorted(part.glob("*.gguf"))[-1].unlink()
    install(part, code=8)
    short = tmp_path / "gemma-3-4b-it-Q4_0.gguf"
    short.write_bytes(next(seeing.glob("gemma*.gguf")).read_bytes()[:-50])
    install(short, code=8)
    broken = Path(shutil.copytree(seeing, tmp_path / "broken"))
    with next(broken.glob("mmproj*")).open("r+b") as file:
        file.truncate(1000)
    install(broken, code=8)
    unfinished = Path(shutil.copytree(seeing, tmp_path / "unfinished"))
    (unfinished / "SHA256SUMS").unlink()
    install(unfinished, code=8)
    assert not files(home)
