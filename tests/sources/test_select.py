"""Which files of a repository make a model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.names import is_drafter, is_mmproj
from gemmaq.hub import Listing, Ref, RemoteFile
from gemmaq.sources import select


def listing(*paths: str, part: str | None = None, size: int = 1) -> Listing:
    return Listing(Ref("org/name", None, part), "a" * 40, tuple(RemoteFile(path, size, None, path) for path in paths))


def paths(files: list[RemoteFile]) -> list[str]:
    return [file.path for file in files]


def test_gguf_where_it_is_named_or_all_there_is() -> None:
    assert select.is_gguf(listing("a-Q4_0.gguf"))
    assert select.is_gguf(listing("a-Q4_0.gguf", "model.safetensors", part="Q4_0"))
    assert not select.is_gguf(listing("a-Q4_0.gguf", "model.safetensors"))
    assert not select.is_gguf(listing("mmproj-a-F16.gguf"))


@pytest.mark.parametrize("part", ["q4_0", "Q4_0", "a-q4_0.gguf", "a-Q4_0"])
def test_a_gguf_by_type_or_name(part: str) -> None:
    files = listing("a-Q4_0.gguf", "a-Q8_0.gguf", "mmproj-a-BF16.gguf", "mtp-a-Q4_0.gguf", part=part)
    assert paths(select.gguf(files)) == ["a-Q4_0.gguf"]


def test_files_beside_a_gguf_are_those_of_its_folder_else_those_at_the_top() -> None:
    models = ["a-Q4_0.gguf", "x/b-Q4_0.gguf", "y/c-Q4_0.gguf"]
    files = listing(*models, "x/mmproj-F16.gguf", "mmproj-F16.gguf", "mtp-a.gguf")

    def found(model: str, is_one: Callable[[str], bool] = is_mmproj) -> tuple[list[str], list[str]]:
        around, beside = select.beside(files, model, is_one)
        return around, paths(beside)

    assert found("a-Q4_0.gguf") == (["a-Q4_0.gguf"], ["mmproj-F16.gguf"])
    assert found("x/b-Q4_0.gguf") == (["x/b-Q4_0.gguf"], ["x/mmproj-F16.gguf"])
    assert found("y/c-Q4_0.gguf") == (models, ["mmproj-F16.gguf"])
    assert found("y/c-Q4_0.gguf", is_drafter) == (models, ["mtp-a.gguf"])


def test_a_drafter_is_a_model_where_there_is_no_other() -> None:
    assert paths(select.gguf(listing("mtp-a-Q4_0.gguf", "mmproj-a-F16.gguf"))) == ["mtp-a-Q4_0.gguf"]
    assert select.beside(listing("mtp-a.gguf"), "mtp-a.gguf", is_drafter) == (["mtp-a.gguf"], [])


def test_shards_of_a_gguf_in_a_folder() -> None:
    shards = ["BF16/a-BF16-00001-of-00002.gguf", "BF16/a-BF16-00002-of-00002.gguf"]
    assert paths(select.gguf(listing(*reversed(shards), "a-Q4_0.gguf", part="bf16"))) == shards
    with pytest.raises(NotFoundError, match="00002-of-00002"):
        select.gguf(listing(shards[0], part="bf16"))


def test_a_gguf_must_be_the_only_one() -> None:
    with pytest.raises(InputError, match="holds 2 GGUF models") as several:
        select.gguf(listing("a-Q4_0.gguf", "a-Q8_0.gguf"))
    assert "org/name:Q4_0, org/name:Q8_0" in str(several.value.hint)
    with pytest.raises(NotFoundError, match="no GGUF model Q6_K"):
        select.gguf(listing("a-Q4_0.gguf", part="Q6_K"))


def test_further_chat_templates_are_small_files() -> None:
    named = "additional_chat_templates/tool_use.jinja"
    files = listing("chat_template.jinja", named, "other/tool_use.jinja", "additional_chat_templates/x.txt")
    assert paths(select.small(files)) == ["chat_template.jinja", named]


def test_small_files_and_patterns() -> None:
    files = listing("config.json", "tokenizer.json", "model.safetensors", "notes.txt")
    assert paths(select.small(files)) == ["config.json", "tokenizer.json"]
    assert paths(select.filtered(files.files, [], ["*.json"])) == ["model.safetensors", "notes.txt"]
    assert paths(select.filtered(files.files, ["*.json"], ["config*"])) == ["tokenizer.json"]
