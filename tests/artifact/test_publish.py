"""The files of an artifact as they are published."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from gemmaq.artifact import card, modelfile
from gemmaq.artifact.description import Model
from gemmaq.artifact.digests import of_file
from gemmaq.artifact.footprint import Footprint, Memory
from gemmaq.artifact.merge import merge
from gemmaq.artifact.publish import Entry, changed, read
from gemmaq.errors import InputError, NotFoundError, VerificationError
from gemmaq.files import sums
from gemmaq.progress import Progress, ProgressCallback, ignore
from kinds import folders

REPO = "acme/model-GGUF"


def _said(model: Model) -> str:
    return f"memory of {model.name}"


no_memory = Memory(lambda _: Footprint(), _said)


def entries(folder: Path, progress: ProgressCallback = ignore) -> tuple[Entry, ...]:
    """The files as they are pushed to a new repository."""
    return merge(read(folder, progress), None, REPO, memory=no_memory, force=False).files


@pytest.fixture
def artifact(made: dict[str, Path], tmp_path: Path) -> Path:
    (folder,) = folders(made["gguf"])
    return Path(shutil.copytree(folder, tmp_path / "artifact"))


def test_every_file_with_its_digest(artifact: Path) -> None:
    reports: list[Progress] = []
    files = {entry.path: entry for entry in entries(artifact, reports.append)}
    assert set(files) == {path.name for path in artifact.iterdir()}
    for name, entry in files.items():
        data = entry.data or (entry.local or artifact / name).read_bytes()
        assert (entry.size, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert entry.oid == hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    listed = sums.parse(files[sums.NAME].data, "sums")
    assert listed == {name: entry.sha256 for name, entry in files.items() if name != sums.NAME}
    weights = {path.name: path.stat().st_size for path in artifact.glob("*.gguf")}
    assert {name: size for name, size in weights.items()}.items() <= {r.item: r.done for r in reports}.items()


def test_a_card_of_ours_names_the_repository_and_one_of_yours_stays(artifact: Path) -> None:
    def published() -> bytes:
        files = {entry.path: entry for entry in entries(artifact)}
        entry = files[card.NAME]
        return entry.data or (entry.local or Path()).read_bytes()

    text = published().decode()
    assert REPO in text and "memory of " in text and card.is_ours(text)
    (artifact / card.NAME).write_text("# Mine\n")
    assert published() == b"# Mine\n"
    (artifact / card.NAME).unlink()
    assert published().decode() == text


def test_params_are_added_for_ollama(made: dict[str, Path], tmp_path: Path) -> None:
    (folder,) = folders(made["mmproj"])
    artifact = Path(shutil.copytree(folder, tmp_path / "chat"))
    (artifact / modelfile.PARAMS_FILE).unlink()
    listed = {name: digest for name, digest in (sums.read(artifact) or {}).items() if name != modelfile.PARAMS_FILE}
    (artifact / sums.NAME).write_bytes(sums.text(listed))
    files = {entry.path: entry for entry in entries(artifact)}
    assert files[modelfile.PARAMS_FILE].local is None and files[modelfile.PARAMS_FILE].data.startswith(b"{")


def test_what_is_not_published(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is not a folder"):
        entries(tmp_path / "none")
    with pytest.raises(NotFoundError, match="holds no model"):
        entries(tmp_path / "artifact" / "..")
    (artifact / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads out of"):
        entries(artifact)
    (artifact / "link").unlink()
    (artifact / "Modelfile").write_text("FROM elsewhere\n")
    with pytest.raises(VerificationError, match="does not match its entry in SHA256SUMS"):
        entries(artifact)
    (artifact / "Modelfile").unlink()
    with pytest.raises(VerificationError, match="is missing, but SHA256SUMS lists it"):
        entries(artifact)


def test_only_changed_files_are_sent() -> None:
    files = [Entry("a", 1, "sha a", "oid a"), Entry("b", 1, "sha b", "oid b"), Entry("c", 1, "sha c", "")]
    assert [entry.path for entry in changed(files, {"a": "oid a", "b": "oid x", "c": "sha c"})] == ["b"]
    assert changed(files, {}) == files


@pytest.mark.parametrize("change", ["no list", "no record in it", "no weights in it", "other weights on record"])
def test_an_artifact_that_was_not_finished_is_refused(artifact: Path, change: str) -> None:
    out = artifact
    assert read(out, ignore).files
    listed = sums.read(out) or {}
    weights = next(name for name in listed if name.endswith(".gguf"))
    if change == "no list":
        (out / sums.NAME).unlink()
    elif change == "other weights on record":
        (out / weights).write_bytes(b"GGUF")
        (out / sums.NAME).write_bytes(sums.text({**listed, weights: of_file(out / weights)}))
    else:
        left_out = "gemmaq.json" if change == "no record in it" else weights
        (out / sums.NAME).write_bytes(sums.text({k: v for k, v in listed.items() if k != left_out}))
    with pytest.raises(VerificationError):
        read(out, ignore)
