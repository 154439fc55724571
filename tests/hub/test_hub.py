"""References to repositories, and file names that are not safe."""

from __future__ import annotations

import pytest

from gemmaq.errors import InputError
from gemmaq.hub import Listing, Ref, RemoteFile, check_name, is_repository, parse


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("org/name", Ref("org/name")),
        ("org/na.me-1_2@main", Ref("org/na.me-1_2", "main")),
        ("org/name@refs/pr/1", Ref("org/name", "refs/pr/1")),
        ("org/name:Q4_0", Ref("org/name", None, "Q4_0")),
        ("org/name@v1:folder/file.gguf", Ref("org/name", "v1", "folder/file.gguf")),
    ],
)
def test_references(text: str, ref: Ref) -> None:
    assert parse(text) == ref
    assert str(ref) == text


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("google/gemma-3-4b-it", True),
        ("a/x.gguf", True),
        (f"a/{'x' * 96}", True),
        (f"a/{'x' * 97}", False),
        ("gpt2", False),
        ("a/b/c", False),
        ("a/b@main", False),
        ("a/b:x", False),
        ("a/b--c", False),
        ("a/..", False),
        ("a/b\n", False),
        ("a/模型", False),
        ("", False),
    ],
)
def test_names_of_repositories(name: str, allowed: bool) -> None:
    assert is_repository(name) is allowed


@pytest.mark.parametrize(
    "text",
    ["name", "a/b/c", "./a", "../a", "/a/b", "org/na..me", "org/na--me", "org/", "org/file.gguf", "org/name@../x",
     "org/name@/x", "org/name@x/", "-a/b", "org/näme", "org/name ", ""],
)  # fmt: skip
def test_what_is_no_reference(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("path", ["../x", "/x", "a/../b", "a//b", "a\\b", "a\nb", "C:x", "a/", ".", "x" * 513])
def test_unsafe_names_are_refused(path: str) -> None:
    with pytest.raises(InputError, match="unsafe name"):
        check_name(path, Ref("org/name"))


def test_safe_names() -> None:
    for path in ("model.safetensors", "a/b.c", ".gitattributes", "a b"):
        check_name(path, Ref("org/name"))


def test_files_are_found_and_named_by_digest() -> None:
    large, small = RemoteFile("a", 1, "sha", "oid"), RemoteFile("b", 1, None, "oid")
    listing = Listing(Ref("org/name"), "c" * 40, (large, small))
    assert listing.find("b") is small and listing.find("c") is None
    assert (large.etag, small.etag) == ("sha", "oid")


@pytest.mark.parametrize(
    ("address", "reference"),
    [
        ("https://huggingface.co/google/gemma-3-4b-it", "google/gemma-3-4b-it"),
        ("huggingface.co/google/gemma-3-4b-it/", "google/gemma-3-4b-it"),
        ("https://www.huggingface.co/org/name?library=x#files", "org/name"),
        ("hf.co/org/name:Q4_0", "org/name:Q4_0"),
        ("https://huggingface.co/org/name/tree/main", "org/name@main"),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F1", "org/name@refs/pr/1"),
        ("https://huggingface.co/org/name/blob/main/a/x-Q4_0.gguf?download=true", "org/name@main:a/x-Q4_0.gguf"),
        ("https://huggingface.co/org/name/resolve/main/config.json", "org/name@main"),
    ],
)
def test_addresses_of_pages_are_references(address: str, reference: str) -> None:
    assert str(parse(address)) == reference


@pytest.mark.parametrize(
    "address",
    [
        "https://huggingface.co/datasets/org/name",
        "https://huggingface.co/org/name/discussions/3",
        "https://huggingface.co/org",
        "https://example.com/org/name",
        "https://huggingface.co/org/name@x/tree/main",
        "https://huggingface.co/../name",
    ],
)
def test_other_addresses_are_not(address: str) -> None:
    assert parse(address) is None
