"""mmproj files and drafters beside local models: which belong to them, what is said, and what the user may choose."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import gemma4
import gemma4_drafter
import gemma4_tokenizer
import oracles
from artifacts import convert, give_image_tokens, write_seeing
from gemma4_drafter import DRAFTERS
from gemmaq.errors import InputError, UsageError
from gemmaq.files import gguf_reader
from gemmaq.files.span import FileSpan
from gemmaq.sources.companions import ALL, DRAFTER, PROJECTOR, Need, Wish, host_of, refuse, settle
from gemmaq.sources.open import open_source
from gemmaq.sources.pairing import Choice
from inprocess import run
from records import recorded

BASE, TUNE = "gemma-3-4b-it", "gemma-3-4b-it-tuned"
Lay = Callable[..., Path]


@pytest.fixture(scope="module")
def models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with a GGUF model and its mmproj file: a base and a fine-tune of the same sizes."""
    root = tmp_path_factory.mktemp("models")
    return {
        name: convert(write_seeing(root / "source" / name, tiny, seed), root / name)
        for seed, name in enumerate((BASE, TUNE))
    }


@pytest.fixture(scope="module")
def blind(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-only model of the same width, whose vocabulary has no tokens for images."""
    return next(convert(tiny, tmp_path_factory.mktemp("blind") / "out").glob("*.gguf"))


@pytest.fixture
def lay(models: dict[str, Path], tmp_path: Path) -> Lay:
    """Lays files into a folder, `name = (model, kind)`; returns the folder."""

    def do(**files: tuple[str, str]) -> Path:
        folder = tmp_path / "here"
        folder.mkdir(exist_ok=True)
        for name, (model, kind) in files.items():
            shutil.copy(next(models[model].glob(f"{kind}*.gguf")), folder / f"{name}.gguf")
        return folder

    return do


def text(folder: Path, name: str = BASE) -> Path:
    return folder / f"{name}-Q4_0.gguf"


def taken(path: Path) -> str | None:
    """Name of the mmproj file that is opened with a model."""
    towers = open_source(str(path)).towers.values()
    return next((tensor.span.name for tensor in towers), None)


def said(done: object) -> str:
    return " ".join(done.stderr.split())


def pair(lay: Lay, **more: tuple[str, str]) -> Path:
    """A folder with both models, each with its own mmproj file."""
    files = {f"{name}-Q4_0": (name, "gemma") for name in (BASE, TUNE)}
    files |= {f"mmproj-{name}-F16": (name, "mmproj") for name in (BASE, TUNE)}
    return lay(**files, **more)


def test_two_models_of_a_size_in_a_folder_get_their_own(lay: Lay, models: dict[str, Path], tmp_path: Path) -> None:
    folder = pair(lay)
    for name in (BASE, TUNE):
        done = run("convert", text(folder, name), "--quant", "auto", "-o", tmp_path / name)
        assert f"mmproj-{name}-F16.gguf is taken as the model's mmproj file" in said(done)
        made, own = (next(place.glob("mmproj*.gguf")) for place in (tmp_path / name, models[name]))
        assert made.read_bytes() == own.read_bytes()
    assert "passed over: by its name it is for gemma-3-4b-it-Q4_0.gguf" in said(done)
    assert run("inspect", folder, code=3).stderr.count("GGUF models") == 1


def test_a_file_without_a_name_belongs_to_the_only_model(lay: Lay) -> None:
    folder = lay(**{f"{BASE}-Q4_0": (BASE, "gemma"), "mmproj-F16": (BASE, "mmproj")})
    assert taken(text(folder)) == "mmproj-F16.gguf"
    shutil.copy(text(folder), folder / "another.gguf")
    assert taken(text(folder)) == "mmproj-F16.gguf", "its header says whose it is"
    shutil.move(text(folder), folder / "one.gguf")
    assert taken(folder / "one.gguf") is None
    notes = open_source(str(folder / "one.gguf")).notes
    assert any("does not say for which of the 2 models here it is" in note for note in notes)


def test_a_renamed_model_is_known_by_its_header(lay: Lay) -> None:
    folder = lay(mine=(BASE, "gemma"), **{f"mmproj-{BASE}-F16": (BASE, "mmproj")})
    assert taken(folder / "mine.gguf") == f"mmproj-{BASE}-F16.gguf"
    folder = lay(**{f"mmproj-{TUNE}-F16": (TUNE, "mmproj")})
    assert taken(folder / "mine.gguf") == f"mmproj-{BASE}-F16.gguf"


def test_a_fine_tune_beside_its_base(lay: Lay) -> None:
    """That of the base is the base's alone, whether or not the fine-tune has one."""
    folder = pair(lay)
    (folder / f"mmproj-{TUNE}-F16.gguf").unlink()
    assert taken(text(folder, TUNE)) is None and taken(text(folder)) == f"mmproj-{BASE}-F16.gguf"
    text(folder).unlink()
    assert taken(text(folder, TUNE)) == f"mmproj-{BASE}-F16.gguf", "nobody else's here, and its name is part of ours"


def test_a_model_without_tokens_for_images_takes_none(blind: Path, models: dict[str, Path], tmp_path: Path) -> None:
    model = Path(shutil.copy(blind, tmp_path / "text-Q4_0.gguf"))
    shutil.copy(next(models[BASE].glob("mmproj*")), tmp_path / "mmproj-text-F16.gguf")
    (note,) = (note for note in open_source(str(model)).notes if "mmproj" in note)
    assert note == "mmproj-text-F16.gguf is passed over: the model's vocabulary lacks <start_of_image>"
    done = run("convert", model, "--quant", "auto", "--mmproj-file", tmp_path / "mmproj-text-F16.gguf", code=3)
    assert "cannot be the mmproj file of text: the model's vocabulary lacks <start_of_image>" in said(done)


def test_several_that_fit_are_an_error_that_names_them(lay: Lay, models: dict[str, Path], tmp_path: Path) -> None:
    folder = lay(**{f"{BASE}-Q4_0": (BASE, "gemma"), "mmproj-F16": (BASE, "mmproj"), "mmproj-4b-F16": (TUNE, "mmproj")})
    out = tmp_path / "out"
    done = said(run("convert", folder, "--quant", "auto", "-o", out, code=3))
    assert "2 files that may be its mmproj file: mmproj-4b-F16.gguf, mmproj-F16.gguf" in done
    assert "--mmproj-file FILE" in done and not out.exists()
    assert said(run("convert", folder, "--quant", "auto", "--dry-run", "-o", out, code=3)) == done
    flags = ("--mmproj-file", folder / "mmproj-4b-F16.gguf")
    run("convert", folder, "--quant", "auto", *flags, "-q", "-o", out)
    made, own = (next(place.glob("mmproj*.gguf")) for place in (out, models[TUNE]))
    ours, theirs = (oracles.read_gguf(path)[1] for path in (made, own))
    assert ours == theirs
    assert "may be its mmproj file" in said(run("verify", out, "--against", folder, code=3))
    run("verify", out, "--against", folder, *flags, "-q")
    facts = json.loads(run("inspect", folder, "--json").stdout)
    assert facts["vision_bytes"] == 0
    assert "mmproj-4b-F16.gguf and mmproj-F16.gguf may all be the model's mmproj file: none is taken" in facts["notes"]
    run("convert", folder, "--quant", "auto", "--mmproj", "none", "-q", "-o", tmp_path / "text")
    assert "may be its mmproj file" in said(run("verify", folder, code=8))


def test_the_named_file_is_taken_whatever_its_name(lay: Lay, tmp_path: Path) -> None:
    folder = pair(lay)
    file = folder / f"mmproj-{TUNE}-F16.gguf"
    done = run("convert", text(folder), "--quant", "auto", "--mmproj-file", file, "-o", tmp_path / "out")
    assert f"{file.name} is taken as the model's mmproj file" in said(done)
    sources = recorded(tmp_path / "out")["source"]["files"]
    assert {Path(entry["path"]).name for entry in sources} == {text(folder).name, file.name}


def test_a_named_file_that_cannot_be_taken(lay: Lay, models: dict[str, Path], tmp_path: Path, tiny: Path) -> None:
    folder = pair(lay)
    model, out = text(folder), tmp_path / "out"

    def refused(file: Path, code: int, source: Path = model, *flags: object) -> str:
        done = run("convert", source, "--mmproj-file", file, *flags, "-o", out, code=code)
        assert not out.exists()
        return said(done)

    assert "it is no mmproj file" in refused(text(folder, TUNE), 3)
    assert "is not a GGUF file" in refused(tiny / "config.json", 3)
    assert "does not exist" in refused(folder / "none.gguf", 5)
    assert "is for GGUF models" in refused(folder / f"mmproj-{BASE}-F16.gguf", 2, tiny)
    assert "is for GGUF models" in refused(folder / f"mmproj-{BASE}-F16.gguf", 2, models[BASE].parent / "source" / BASE)
    assert "--mmproj none" in refused(folder / f"mmproj-{BASE}-F16.gguf", 2, model, "--mmproj", "none")
    assert "needs --against" in said(run("verify", folder, "--mmproj-file", model, code=2))


def test_a_drafter_beside_a_model_is_not_the_model(lay: Lay) -> None:
    folder = lay(**{f"{BASE}-Q4_0": (BASE, "gemma"), f"mmproj-{BASE}-F16": (BASE, "mmproj"), "mtp-x": (TUNE, "gemma")})
    opened = open_source(str(folder))
    assert opened.name == BASE and opened.towers


@pytest.fixture(scope="module")
def drafted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its drafter in `both`, and the drafter of a model of another kind in `other`."""
    root = tmp_path_factory.mktemp("drafted")
    target = gemma4_tokenizer.write(gemma4.write(root / "gemma-4-dense-it", gemma4.DENSE))
    drafter = gemma4_drafter.write(root / "gemma-4-dense-it-assistant", DRAFTERS["dense"])
    run("convert", target, "--draft", drafter, "-q", "-o", root / "both")
    other = gemma4_drafter.write(root / "gemma-4-effective-it-assistant", DRAFTERS["effective"])
    run("convert", other, "-q", "-o", root / "other")
    return root


OWN, OTHER = "mtp-gemma-4-dense-it-Q4_0.gguf", "mtp-gemma-4-effective-it-Q4_0.gguf"


@pytest.fixture
def both(drafted: Path, tmp_path: Path) -> Path:
    """A copy of the folder with model and drafter."""
    return Path(shutil.copytree(drafted / "both", tmp_path / "both"))


def test_the_drafter_beside_a_model_is_taken_where_it_is_wanted(both: Path) -> None:
    alone = open_source(str(both))
    assert alone.drafter is None and not alone.family.drafts
    model = open_source(str(both), ALL)
    assert model.drafter is not None and model.drafter.name == "gemma-4-dense-it-assistant"
    assert model.notes[-1] == f"{OWN} is taken as the model's drafter"


def test_drafters_of_other_models_are_passed_over(both: Path, drafted: Path) -> None:
    shutil.copy(drafted / "other" / OTHER, both)
    shutil.copy(drafted / "other" / OTHER, both / "mtp-Q8_0.gguf")
    (both / "mtp-broken.gguf").write_bytes(b"GGUF")
    model = open_source(str(both), ALL)
    assert model.drafter is not None and model.drafter.files == (both / OWN,)
    passed = {note.partition(" is ")[0]: note for note in model.notes if "passed over" in note}
    assert passed.keys() == {OTHER, "mtp-Q8_0.gguf", "mtp-broken.gguf"}
    assert "it is for sliding-window layers with keys of 64, not 256" in passed["mtp-Q8_0.gguf"]
    assert "by its name it is for another model (--draft takes it anyway)" in passed[OTHER]
    (both / OWN).unlink()
    assert open_source(str(both), ALL).drafter is None


def test_several_drafters_that_fit_are_an_error(both: Path, tmp_path: Path) -> None:
    shutil.copy(both / OWN, both / "mtp-gemma-4-Q4_0.gguf")
    (both / OWN).rename(both / "mtp-F16.gguf")
    dry = ("convert", both, "--dry-run", "-o", tmp_path / "out")
    done = said(run(*dry, code=3))
    assert "2 files that may be its drafter: mtp-F16.gguf, mtp-gemma-4-Q4_0.gguf" in done and "--draft none" in done
    run(*dry, "--draft", both / "mtp-F16.gguf")
    run(*dry, "--draft", "none")
    run("estimate-vram", both, "--engine", "ollama", code=3)
    run("estimate-vram", both)


def test_a_drafter_of_the_models_type_is_taken_before_others(both: Path) -> None:
    shutil.copy(both / OWN, both / "mtp-gemma-4-dense-it-F16.gguf")
    model = open_source(str(both), ALL)
    assert model.drafter is not None and model.drafter.files == (both / OWN,)


def test_a_folder_with_a_drafter_alone_is_that_drafter(drafted: Path, both: Path) -> None:
    assert open_source(str(drafted / "other"), ALL).family.drafts
    model = open_source(str(both / OWN), ALL)
    assert model.family.drafts and model.drafter is None and not model.notes


def test_an_edited_folder_is_not_installed_with_the_projector_of_another_model(lay: Lay, tmp_path: Path) -> None:
    folder, home = pair(lay), tmp_path / "lmstudio"
    report = run("install", text(folder, TUNE), "--runtime", "lmstudio", "--dest", home, "--name", "me/tuned")
    assert f"mmproj-{TUNE}-F16.gguf is taken" in said(report)
    assert {path.name for path in (home / "me/tuned").iterdir()} == {text(folder, TUNE).name, f"mmproj-{TUNE}-F16.gguf"}
    (folder / f"mmproj-{TUNE}-F16.gguf").unlink()
    run("install", text(folder, TUNE), "--runtime", "lmstudio", "--dest", home, "--name", "me/blind")
    assert {path.name for path in (home / "me/blind").iterdir()} == {text(folder, TUNE).name}


def test_links_and_folders_beside_a_model_are_passed_over(lay: Lay) -> None:
    folder = lay(**{f"{BASE}-Q4_0": (BASE, "gemma"), "mmproj-F16": (BASE, "mmproj")})
    (folder / "mmproj-BF16.gguf").symlink_to(folder / "nowhere")
    shutil.move(folder / "mmproj-F16.gguf", folder / "mmproj-F32.gguf")
    (folder / "mmproj-F16.gguf").mkdir()
    assert taken(text(folder)) == "mmproj-F32.gguf"


def test_a_host_is_a_model_that_gemmaq_reads(models: dict[str, Path]) -> None:
    for kind, good in (("gemma", True), ("mmproj", False)):
        header = gguf_reader.parse(FileSpan.of(next(models[BASE].glob(f"{kind}*.gguf"))))
        assert (host_of(header) is not None) is good


def test_refusals() -> None:
    refuse(Wish(), "x")
    with pytest.raises(UsageError, match="x is none"):
        refuse(Wish(Path("y")), "x")
    assert settle(Choice("a", (), ("a is taken",)), PROJECTOR, Need.DECIDED, "x") == ("a is taken",)
    rivals = Choice(None, ("a", "b"), ())
    with pytest.raises(InputError, match="x lies beside 2 files that may be its mmproj file: a, b"):
        settle(rivals, PROJECTOR, Need.DECIDED, "x")
    assert settle(rivals, DRAFTER, Need.IF_CERTAIN, "x") == ("a and b may all be the model's drafter: none is taken",)


def test_wishes() -> None:
    assert Wish().needs == {PROJECTOR: Need.IF_CERTAIN} and ALL.needs.keys() == {PROJECTOR, DRAFTER}
    assert Wish(Path("x"), Need.DECIDED, Need.DECIDED).needs == {DRAFTER: Need.DECIDED}


def test_tokens_are_given_to_a_vocabulary(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "x"))
    give_image_tokens(folder)
    assert open_source(str(folder)).tokenizer.pieces[6:8] == ["<start_of_image>", "<end_of_image>"]
