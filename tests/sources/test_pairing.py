"""The rule that says which file beside a model is the model's: names first, then what the files hold."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gemmaq.sources.pairing import Choice, Content, Match, Model, choose

BASE, TUNE = "gemma-3-4b-it", "gemma-3-4b-it-abliterated"


def chosen(
    model: str,
    candidates: list[str],
    others: tuple[str, ...] = (),
    *,
    titles: tuple[str, ...] = (),
    contents: Mapping[str, Content] | None = None,
) -> Choice:
    contents = contents or {}
    beside = Model(model, (model, *others), titles)
    return choose("projector", beside, candidates, lambda file: contents.get(file, Content()), option="--take")


def gguf(*names: str) -> list[str]:
    return [f"{name}.gguf" for name in names]


BELONG = {
    "the model's name": (f"{BASE}-Q4_0", f"mmproj-{BASE}-F16"),
    "a publisher in both names": (f"google_{BASE}-Q4_K_M", f"mmproj-google_{BASE}-f16"),
    "a publisher in one": (f"{BASE}-Q4_K_M", f"mmproj-google_{BASE}-f16"),
    "the word behind the name": (f"{BASE}.Q4_K_M", f"{BASE}.mmproj-f16"),
    "words about the making": (f"{BASE}.i1-Q4_K_M", f"{BASE}.mmproj-Q8_0"),
    "no name": (f"{BASE}-UD-Q4_K_XL", "mmproj-F16"),
    "a word in place of a name": (f"{BASE}-Q4_K_M", "mmproj-model-f16"),
    "the size alone": ("gemma-3-4b-it-q4_0", "mmproj-model-f16-4B"),
    "the name in part": (f"{BASE}-qat-Q4_0", f"mmproj-{BASE}-BF16"),
    "other separators": ("gemma_3_4b_it-Q8_0", f"mmproj-{BASE}-F32"),
    "a type in place of a name": ("Q4_K_M", "mmproj-F16"),
    "no more than a word": ("ggml-model-Q4_K_M", "mmproj-model-f16"),
    "a shard": (f"{BASE}-BF16-00001-of-00002", f"mmproj-{BASE}-BF16"),
}


@pytest.mark.parametrize("case", BELONG)
def test_names_that_belong_together(case: str) -> None:
    model, file = gguf(*BELONG[case])
    found = chosen(model, [file])
    assert (found.taken, found.notes) == (file, (f"{file} is taken as the model's projector",))


def test_other_types_of_a_model_are_the_same_model() -> None:
    types = ("Q8_0", "MXFP4_MOE", "UD-IQ2_XXS", "Q4_K_M-imat", "UD-TQ1_0", "NVFP4", "imatrix")
    others = tuple(gguf(*(f"{BASE}-{kind}" for kind in types), f"BF16/{BASE}-BF16-00001-of-00002", "imatrix_unsloth"))
    assert chosen(f"{BASE}-Q4_0.gguf", ["mmproj-F16.gguf"], others).taken == "mmproj-F16.gguf"


def test_each_of_two_models_gets_its_own() -> None:
    models, files = gguf(f"{BASE}-Q4_0", f"{TUNE}-Q4_0"), gguf(f"mmproj-{BASE}-F16", f"mmproj-{TUNE}-F16")
    for own, other in ((0, 1), (1, 0)):
        found = chosen(models[own], files, (models[other],))
        assert found.taken == files[own]
        assert found.notes[1:] == (
            f"{files[other]} is passed over: by its name it is for {models[other]} (--take takes it anyway)",
        )


def test_a_fine_tune_takes_that_of_its_base_only_where_the_base_is_not() -> None:
    model, base, file = gguf(f"{TUNE}-Q4_0", f"{BASE}-Q8_0", f"mmproj-{BASE}-F16")
    assert chosen(model, [file]).taken == file
    assert chosen(model, [file], (base,)).taken is None
    assert chosen(base, [f"mmproj-{TUNE}-F16.gguf"]).taken is None, "that of a fine-tune is not the base's"


def test_a_file_without_a_name_beside_several_models_is_nobodys() -> None:
    found = chosen("a-Q4_0.gguf", ["mmproj-F16.gguf"], ("b-Q4_0.gguf",))
    assert found == Choice(
        None,
        (),
        (
            "mmproj-F16.gguf is passed over: it does not say for which of the 2 models here it is "
            "(--take takes it anyway)",
        ),
    )


def test_a_name_that_several_models_share_is_nobodys() -> None:
    found = chosen("a-one-Q4_0.gguf", ["mmproj-a-F16.gguf"], ("a-two-Q4_0.gguf",))
    assert found.taken is None and "by its name it may be for a-two-Q4_0.gguf" in found.notes[0]
    assert chosen("x_a-Q4_0.gguf", ["mmproj-a-F16.gguf"], ("y_a-Q4_0.gguf",)).taken is None


def test_headers_say_what_names_do_not() -> None:
    file = f"mmproj-{BASE}-F16.gguf"
    renamed = chosen("mine.gguf", [file], titles=("Gemma 3 4b It",))
    assert renamed.taken == file
    assert chosen("mine.gguf", [file], ("other.gguf",), titles=("Gemma 3 4b It",)).taken is None, "both may be"
    says = {"mmproj-F16.gguf": Content(("Gemma 3 4b It",))}
    assert chosen(f"{BASE}-Q4_0.gguf", [*says], ("b-Q4_0.gguf",), contents=says).taken == "mmproj-F16.gguf"
    assert chosen("b-Q4_0.gguf", [*says], (f"{BASE}-Q4_0.gguf",), contents=says).taken is None
    assert chosen("mine.gguf", ["mmproj-yours.gguf"], titles=("Gemma 3 4b It",)).taken is None


def test_a_header_that_names_another_model_is_believed() -> None:
    """A file without a name beside one model is not taken for that reason alone."""
    model, file = "medgemma-4b-it-Q4_0.gguf", "mmproj-F16.gguf"

    def of(title: str, *own: str) -> Choice:
        return chosen(model, [file], titles=own, contents={file: Content((title,))})

    strange = of("Gemma 3 4b It", "Medgemma 4b It")
    assert strange.taken is None and "its header names Gemma 3 4b It, another model (--take" in strange.notes[0]
    for title in ("Medgemma 4b", "google/medgemma-4b-it", "Medgemma 4b It Qat", "Model"):
        assert of(title, "Medgemma 4b It").taken == file, title
    assert of("Gemma 3 4b It").taken == file, "the model's header says nothing"
    known = Model(model, (model,), ("Mine",), ("Gemma 3 4b It",))
    choice = choose("projector", known, [file], lambda _: Content(("Gemma 3 4b It",)), option="--take")
    assert choice.taken == file, "that of its base"
    both = gguf("mmproj-BF16", "mmproj-F16")
    contents = {both[0]: Content(("Medgemma 4b It",)), both[1]: Content(("Gemma 3 4b It",))}
    assert chosen(model, both, titles=("Medgemma 4b It",), contents=contents).taken == both[0]


def test_several_types_are_one_file_and_f16_is_taken() -> None:
    files = gguf("mmproj-F32", "mmproj-BF16", "mmproj-Q8_0", "mmproj-F16")
    found = chosen(f"{BASE}-Q4_0.gguf", files)
    others = "mmproj-BF16.gguf, mmproj-F32.gguf, mmproj-Q8_0.gguf"
    assert found.notes == (f"mmproj-F16.gguf is taken as the model's projector, not {others}",)
    broken = {"mmproj-F16.gguf": Content(misfit="it is cut")}
    found = chosen(f"{BASE}-Q4_0.gguf", files, contents=broken)
    assert found.taken == "mmproj-BF16.gguf" and found.notes[1] == "mmproj-F16.gguf is passed over: it is cut"


def test_the_models_own_type_may_be_preferred() -> None:
    files = gguf("mtp-a-F16", "mtp-a-BF16", "mtp-a-Q4_0")
    model = Model("a-Q4_0.gguf", ("a-Q4_0.gguf",))
    for same_type, best in ((True, files[2]), (False, files[0])):
        choice = choose("drafter", model, files, lambda file: Content(), option="--take", same_type=same_type)
        assert choice.taken == best


def test_several_files_that_fit_are_rivals() -> None:
    files = gguf("mmproj-x_a-F16", "mmproj-y_a-BF16", "mmproj-y_a-F16")
    found = chosen("a-Q4_0.gguf", files)
    assert found == Choice(None, tuple(files), ())
    same = gguf("mmproj-a-F16", "a.mmproj-f16")
    assert set(chosen("a-Q4_0.gguf", same).rivals) == {*same}, "the same type twice is no choice of types"
    assert chosen("a-Q4_0.gguf", files, contents={files[0]: Content(misfit="it is not")}).taken == files[2]


def test_the_better_name_wins() -> None:
    files = gguf(f"mmproj-{BASE}-F16", "mmproj-F16", "mmproj-4b-F16")
    found = chosen(f"{BASE}-Q4_0.gguf", files)
    assert found.taken == files[0]
    assert "mmproj-4b-F16.gguf is passed over: another fits better by name" in found.notes
    assert set(chosen(f"{BASE}-Q4_0.gguf", files[1:]).rivals) == {*files[1:]}


def test_what_the_file_holds_overrules_its_name() -> None:
    file = f"mmproj-{BASE}-F16.gguf"
    found = chosen(f"{BASE}-Q4_0.gguf", [file], contents={file: Content(misfit="it is for a model of width 8, not 4")})
    assert found == Choice(None, (), (f"{file} is passed over: it is for a model of width 8, not 4",))


def test_headers_are_read_only_where_the_choice_hangs_on_them() -> None:
    read = []

    def look(file: str) -> Content:
        read.append(file)
        return Content()

    files = gguf("mmproj-a-F16", "mmproj-a-BF16", "mmproj-b-F16")
    model = Model("a-Q4_0.gguf", ("a-Q4_0.gguf", "b-Q4_0.gguf"))
    assert choose("projector", model, files, look, option="--take").taken == files[0]
    assert read == files[:1]


def test_matches_are_ordered() -> None:
    assert max(Match) is Match.SAME and min(Match) is Match.NONE


STEMS = st.from_regex(r"[A-Za-z0-9]{1,6}([-._ ][A-Za-z0-9]{1,6}){0,4}", fullmatch=True)
FORMS = ("mmproj-{}-F16", "{}.mmproj-f16", "{}-mmproj-BF16", "{}-F32-mmproj", "MMPROJ_{}-Q8_0")


def names_itself(stem: str) -> bool:
    """Whether no part of a stem reads as a part that gemmaq gives file names."""
    return not any(word in stem.lower() for word in ("mmproj", "mtp-", "ud")) and stem.lower() != "imatrix"


@given(st.lists(STEMS.filter(names_itself), min_size=1, max_size=8, unique_by=str.lower), st.data())
def test_any_model_finds_the_file_of_its_name_among_many(stems: list[str], data: st.DataObject) -> None:
    own = {stem: f"{data.draw(st.sampled_from(FORMS)).format(stem)}.gguf" for stem in stems}
    models = {stem: f"{stem}-Q4_0.gguf" for stem in stems}
    strangers = data.draw(st.lists(STEMS.filter(names_itself), max_size=4))
    assume(not {stem.lower() for stem in strangers} & {stem.lower() for stem in stems})
    files = [*own.values(), *(f"mmproj-{stem}-F16.gguf" for stem in strangers), "mmproj-F16.gguf"]
    for stem in stems:
        found = chosen(models[stem], files, tuple(models.values()))
        assert found.taken == own[stem], found


@given(st.lists(STEMS, min_size=1, max_size=5), st.lists(STEMS, max_size=5), st.booleans())
def test_every_file_is_accounted_for(models: list[str], files: list[str], several: bool) -> None:
    """Whatever the names: taken, a rival, or named in a note."""
    candidates = [f"mmproj-{name}-F16.gguf" for name in dict.fromkeys(files)]
    paths = [f"{name}.gguf" for name in models]
    found = chosen(paths[0], candidates, tuple(paths[1:]) if several else ())
    for file in candidates:
        assert file in found.rivals or any(note.startswith(f"{file} is ") for note in found.notes)
    assert found.taken in (None, *candidates)
