"""GGUF models in repositories: which mmproj file and drafter are downloaded and read with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artifacts import convert, write_seeing
from fake_hub import FakeHub
from gemmaq.files.span import FileSpan
from gemmaq.hub import Listing, Ref, RemoteFile
from gemmaq.sources import gguf_repository
from gemmaq.sources.companions import PROJECTOR, Wish
from home import Here
from repos import tree

REPO = "acme/gemmas-GGUF"
BASE, TUNE = "gemma-3-4b-it", "gemma-3-4b-it-tuned"


@pytest.fixture(scope="module")
def models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`text` and `mmproj` of a base, `tuned` and `tuned mmproj` of a fine-tune of the same sizes."""
    root = tmp_path_factory.mktemp("models")
    found = {}
    for seed, (name, prefix) in enumerate({BASE: "", TUNE: "tuned "}.items()):
        made = convert(write_seeing(root / "source" / name, tiny, seed), root / name)
        found[f"{prefix}text"] = next(made.glob("gemma*.gguf"))
        found[f"{prefix}mmproj"] = next(made.glob("mmproj*.gguf"))
    return found


def pulled(here: Here, source: str, *flags: str) -> set[str]:
    return {name for name in tree(Path(here.run("pull", source, "-q", *flags).stdout.strip())) if "gguf" in name}


def test_each_model_of_a_repository_comes_with_its_own(
    hub: FakeHub, here: Here, models: dict[str, Path], tmp_path: Path
) -> None:
    names = {f"{BASE}-Q4_0.gguf": "text", f"{TUNE}-Q4_0.gguf": "tuned text"}
    files = {**names, f"mmproj-{BASE}-F16.gguf": "mmproj", f"mmproj-{TUNE}-F16.gguf": "tuned mmproj"}
    hub.add(REPO, {name: models[kind] for name, kind in files.items()})
    for name in (TUNE, BASE):
        source = f"{REPO}:{name}-Q4_0.gguf"
        done = here.run("convert", source, "--quant", "auto", "--dry-run", "-o", tmp_path / "x")
        assert f"mmproj-{name}-F16.gguf is taken as the model's mmproj file" in done.stderr
        done = here.run("pull", source, "--dry-run")
        assert f"mmproj-{name}-F16.gguf" in done.stdout and "is taken" in done.stderr and "passed over" in done.stderr
    assert pulled(here, source) == {f"{BASE}-Q4_0.gguf", f"mmproj-{BASE}-F16.gguf"}
    hub.reset()
    here.run("convert", source, "--quant", "auto", "-q", "-o", tmp_path / "out")
    made = next((tmp_path / "out").glob("mmproj*"))
    assert made.read_bytes() == models["mmproj"].read_bytes()
    assert not [sent for sent in hub.sent if TUNE in sent], "headers of other models are not read"


def test_several_that_fit(hub: FakeHub, here: Here, models: dict[str, Path], tmp_path: Path) -> None:
    files = {f"{BASE}-Q4_0.gguf": "text", "mmproj-F16.gguf": "mmproj", "mmproj-4b-F16.gguf": "tuned mmproj"}
    hub.add(REPO, {name: models[kind] for name, kind in files.items()})
    command = ("convert", REPO, "--quant", "auto", "-q", "-o", tmp_path / "out")
    for refused in (("pull", REPO), command, (*command, "--dry-run")):
        done = " ".join(here.run(*refused, code=3).stderr.split())
        assert "may be its mmproj file: mmproj-4b-F16.gguf, mmproj-F16.gguf" in done, refused
    assert not list(here.home.rglob("*.gguf"))
    assert pulled(here, REPO, "--exclude", "*4b-F16*") == {f"{BASE}-Q4_0.gguf", "mmproj-F16.gguf"}
    flags = ("--mmproj-file", "mmproj-4b-F16.gguf")
    assert json.loads(here.run(*command, *flags, "--dry-run", "--json").stdout)["artifacts"]
    here.run(*command, *flags)
    made, theirs = next((tmp_path / "out").glob("mmproj*")).read_bytes(), models["tuned mmproj"].read_bytes()
    assert made[-10_000:] == theirs[-10_000:]
    here.run(*command, "--force", "--mmproj-file", models["mmproj"])
    assert next((tmp_path / "out").glob("mmproj*")).read_bytes() == models["mmproj"].read_bytes()
    assert "has no such file" in here.run(*command, "--force", "--mmproj-file", "none.gguf", code=5).stderr


def test_a_model_in_a_folder_with_the_projector_at_the_top(
    hub: FakeHub, here: Here, models: dict[str, Path], tmp_path: Path
) -> None:
    """It is found in the cache as on the Hub, and belongs to the only model of the repository."""
    files = {f"Q4/{BASE}-Q4_0.gguf": models["text"], "mmproj-F16.gguf": models["mmproj"]}
    hub.add(REPO, files)
    here.run("convert", REPO, "--quant", "auto", "-q", "-o", tmp_path / "out")
    assert next((tmp_path / "out").glob("mmproj*")).read_bytes() == models["mmproj"].read_bytes()
    hub.add(REPO, {**files, f"tuned/{TUNE}-Q4_0.gguf": models["tuned text"]})
    source = f"{REPO}:Q4/{BASE}-Q4_0.gguf"
    done = here.run("pull", source)
    assert "mmproj-F16.gguf is taken" in done.stderr, "its header names the model"
    done = here.run("pull", f"{REPO}:tuned/{TUNE}-Q4_0.gguf")
    assert "mmproj-F16.gguf is passed over: it does not say for which of the 2 models here it is" in done.stderr


def test_a_drafter_is_never_the_model(hub: FakeHub, here: Here, models: dict[str, Path]) -> None:
    files = {f"{BASE}-Q4_0.gguf": models["text"], f"mtp-{BASE}-Q4_0.gguf": models["tuned text"]}
    hub.add(REPO, files)
    done = here.run("pull", f"{REPO}:Q4_0", "--dry-run")
    assert f"mtp-{BASE}-Q4_0.gguf is passed over: it is no drafter" in done.stderr
    assert json.loads(here.run("inspect", REPO, "--json").stdout)["name"] == BASE


def test_a_model_of_an_unknown_family_is_paired_by_name(hub: FakeHub, here: Here, models: dict[str, Path]) -> None:
    content = models["text"].read_bytes()
    hub.add(REPO, {"other-Q4_0.gguf": content.replace(b"gemma3", b"other3"), "mmproj-F16.gguf": models["mmproj"]})
    assert pulled(here, REPO) == {"other-Q4_0.gguf", "mmproj-F16.gguf"}


def test_the_file_that_the_user_names_is_local_or_of_the_repository(tmp_path: Path) -> None:
    remote = RemoteFile("mmproj-F16.gguf", 3, None, "x")
    listing = Listing(Ref(REPO), "a" * 40, (RemoteFile("a-Q4_0.gguf", 1, None, "y"), remote))
    local = tmp_path / "mine.gguf"
    local.write_bytes(b"abc")

    def opened(file: RemoteFile) -> FileSpan:
        assert file is remote
        return FileSpan.of(local)

    assert gguf_repository.resolved(listing, Wish(local), opened) == Wish(local)
    assert gguf_repository.resolved(listing, Wish(Path("mmproj-F16.gguf")), opened) == Wish(local)
    assert gguf_repository.resolved(listing, Wish(), opened) == Wish()
    beside = gguf_repository.surroundings(listing, listing.files[0], opened)(PROJECTOR)
    assert beside.models == ("a-Q4_0.gguf",) and beside.files["mmproj-F16.gguf"][0]() == FileSpan.of(local)
    assert not gguf_repository.surroundings(listing, listing.files[0], opened, ("mmproj*",))(PROJECTOR).files
