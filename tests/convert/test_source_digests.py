"""Digests of a source: read, remembered or left out, and never those of a file that changed meanwhile."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from damage import small_model
from gemmaq.artifact import remembered
from gemmaq.convert import hashing
from gemmaq.convert.hashing import SourceDigests
from gemmaq.convert.layout import make_plans
from gemmaq.convert.source_digests import Pending
from gemmaq.convert.source_digests import hashing as started
from gemmaq.errors import InputError
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.sources.open import open_source
from inprocess import run


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose weights are large enough to be remembered, and settled."""
    monkeypatch.setenv("GEMMAQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "SMALLEST", 10_000)
    monkeypatch.setattr(remembered, "_SETTLED_NS", 0)
    monkeypatch.setattr(hashing, "_known", {})
    return small_model(tmp_path / "gemma-3-small")


def listed(artifact: Path) -> dict[str, str | None]:
    """Digests of the source's files in gemmaq.json."""
    (model,) = json.loads((artifact / "gemmaq.json").read_bytes())["models"]
    return {file["path"]: file["sha256"] for file in model["source"]["files"]}


def computed(source: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.iterdir()}


def forged(source: Path) -> str:
    """A digest in the cache that is not the weights', as proof of where a digest comes from."""
    (weights,) = source.glob("*.safetensors")
    identity = remembered.Identity.of(weights.stat())
    remembered.keep(weights, identity, "f" * 64, since=remembered.now())
    return weights.name


def checked(artifact: Path, source: Path, code: int = 0) -> dict[str, Any]:
    (entry,) = json.loads(run("verify", artifact, "--against", source, "--json", code=code).stdout)["artifacts"]
    assert isinstance(entry, dict)
    return entry


def test_the_second_run_remembers(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("convert", source, "-o", tmp_path / "first")
    assert listed(tmp_path / "first") == {name: computed(source)[name] for name in listed(tmp_path / "first")}
    monkeypatch.setattr(hashing, "_known", {})
    read: list[str] = []
    monkeypatch.setattr(hashing, "of_file", lambda path, *_: read.append(path.name) or "0" * 64)
    run("convert", source, "-o", tmp_path / "second")
    assert not [name for name in read if name.endswith(".safetensors")] and read
    weights = [name for name in listed(tmp_path / "first") if name.endswith(".safetensors")]
    assert [listed(tmp_path / "second")[name] for name in weights] == [computed(source)[name] for name in weights]


def test_the_cache_can_be_left_alone(source: Path, tmp_path: Path) -> None:
    weights = forged(source)
    run("convert", source, "-o", tmp_path / "out", "--no-digest-cache")
    assert listed(tmp_path / "out")[weights] == computed(source)[weights]


def test_verify_takes_nothing_from_the_cache(source: Path, tmp_path: Path) -> None:
    weights = forged(source)
    run("convert", source, "-o", tmp_path / "out")
    assert listed(tmp_path / "out")[weights] == "f" * 64
    assert any(weights in problem for problem in checked(tmp_path / "out", source, code=8)["problems"])


def test_digests_can_be_left_out_and_verify_says_so(source: Path, tmp_path: Path) -> None:
    forged(source)  # what is in the cache must not change what is written
    run("convert", source, "-o", tmp_path / "out", "--no-source-digest")
    assert set(listed(tmp_path / "out").values()) == {None}
    run("verify", tmp_path / "out")
    said = checked(tmp_path / "out", source)
    assert said["problems"] == [] and [note for note in said["notes"] if "--no-source-digest" in note]
    config = source / "config.json"
    config.write_bytes(config.read_bytes() + b"\n")  # of another size
    assert any("config.json" in problem for problem in checked(tmp_path / "out", source, code=8)["problems"])


@pytest.mark.parametrize("mode", [SourceDigests.READ, SourceDigests.REMEMBERED])
def test_a_source_that_changes_meanwhile_is_refused(source: Path, mode: SourceDigests) -> None:
    checkpoint = open_source(str(source))
    plans = make_plans(checkpoint, Request(of("q4_0"), ("gguf",)), {})
    (weights,) = source.glob("*.safetensors")
    with started(checkpoint, plans, mode) as hasher:
        pending = Pending.start(hasher, checkpoint, plans)
        pending.result()
        with weights.open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"x")
        with pytest.raises(InputError, match=r"model\.safetensors was changed while it was being read"):
            pending.result()


def test_other_permissions_and_another_card_are_no_change(source: Path) -> None:
    """A run of hours is not lost because someone writes the README of the source meanwhile."""
    (source / "README.md").write_text("# A model\n")
    checkpoint = open_source(str(source))
    plans = make_plans(checkpoint, Request(of("q4_0"), ("gguf",)), {})
    with started(checkpoint, plans, SourceDigests.READ) as hasher:
        pending = Pending.start(hasher, checkpoint, plans)
        before = computed(source)
        pending.result()
        for path in source.glob("*.safetensors"):
            path.chmod(0o600)
        (source / "README.md").write_text("# Another card\n")
        found, drafter, adapter = pending.result()
    assert drafter is None and adapter is None
    assert {file.name: digest for file, digest in zip(found.origin.files, found.digests, strict=True)} == {
        file.name: before[file.name] for file in found.origin.files
    }
