"""Models in local files: which GGUF a folder means, and the sample's errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gemmaq.errors import InputError, NotFoundError
from gemmaq.models import samples
from gemmaq.sources.local import open_gguf_file, open_gguf_folder, open_sample
from inprocess import run


@pytest.fixture(scope="module")
def gguf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in two shards or more."""
    folder = tmp_path_factory.mktemp("local") / "out"
    run("convert", tiny, "-o", folder, "--max-shard-size", "100k", "-q")
    return folder


def test_shards_of_a_folder_are_one_model(gguf: Path) -> None:
    first, *others = sorted(gguf.glob("*.gguf"))
    assert others
    checkpoint = open_gguf_folder(gguf, "somewhere")
    assert checkpoint.location == "somewhere" and set(checkpoint.files) == {first, *others}
    assert open_gguf_file(others[-1], "x").tensors.keys() == checkpoint.tensors.keys()


def test_a_folder_of_several_models(gguf: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(gguf, tmp_path / "two"))
    (folder / "another-Q8_0.gguf").write_bytes(b"")
    with pytest.raises(InputError, match="holds 2 GGUF models") as refused:
        open_gguf_folder(folder, str(folder))
    assert refused.value.hint is not None and "another-Q8_0.gguf" in refused.value.hint
    with pytest.raises(NotFoundError, match="neither"):
        open_gguf_folder(tmp_path, str(tmp_path))


def test_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError, match="there is no sample:gemma-9") as refused:
        open_sample("sample:gemma-9")
    assert refused.value.hint == f"the only sample is {samples.SAMPLE.source}"
    monkeypatch.setattr(samples, "_MODULE", "no_such_package")
    with pytest.raises(NotFoundError, match="is not installed"):
        open_sample(samples.SAMPLE.source)
