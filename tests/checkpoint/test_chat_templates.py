"""Chat templates in several files: which one counts, and that every artifact has it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.checkpoint import chat_templates
from gemmaq.errors import InputError
from gemmaq.sources.open import open_source
from inprocess import run
from oracles import need

FILE, OTHER, TOOLS = "{{ 'file' }}", "{{ 'config' }}", "{{ 'tools' }}"


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the small model without a template."""
    target = tmp_path / "gemma-3-tiny"
    shutil.copytree(tiny, target)
    return target


def configure(folder: Path, template: object) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | {"chat_template": template}))


def two_templates(folder: Path) -> None:
    configure(folder, OTHER)
    (folder / "chat_template.jinja").write_text(FILE)


def with_tools(folder: Path) -> None:
    two_templates(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(TOOLS)


def listed(folder: Path) -> None:
    configure(folder, [{"name": "default", "template": FILE}, {"name": "tool_use", "template": TOOLS}])


def listed_beside_file(folder: Path) -> None:
    listed(folder)
    (folder / "chat_template.jinja").write_text(FILE)


def of_object(folder: Path) -> None:
    configure(folder, {"default": FILE, "tool_use": TOOLS})


def additional_beside_config(folder: Path) -> None:
    configure(folder, FILE)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(TOOLS)


def of_processor_too(folder: Path) -> None:
    configure(folder, FILE)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": OTHER}))


BOTH = {"tool_use": TOOLS}
KINDS: dict[str, tuple[Callable[[Path], None], dict[str, str], str]] = {
    "file and config": (two_templates, {}, "tokenizer_config.json has another chat template than chat_template.jinja"),
    "file, config, additional": (with_tools, BOTH, "another chat template than chat_template.jinja, which counts"),
    "list": (listed, BOTH, ""),
    "list beside a file": (listed_beside_file, {}, "other chat templates (tool_use) than chat_template.jinja"),
    "object": (of_object, BOTH, ""),
    "additional beside config": (additional_beside_config, BOTH, ""),
    "config and processor": (of_processor_too, {}, "chat_template.json has another chat template than tokenizer_conf"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_template_counts_in_every_container(kind: str, folder: Path, tmp_path: Path) -> None:
    make, named, note = KINDS[kind]
    make(folder)
    done = run("convert", folder, "--to", "gguf", "--to", "mlx", "--to", "safetensors", "--quant", "bf16", "-o",
               tmp_path / "out")  # fmt: skip
    assert (note in done.stderr) and ("chat template" in done.stderr) == bool(note)
    (gguf,) = (tmp_path / "out" / "gguf").glob("*.gguf")
    for source in (folder, gguf, tmp_path / "out" / "mlx", tmp_path / "out" / "safetensors"):
        checkpoint = open_source(str(source))
        assert checkpoint.tokenizer.chat_template == FILE, source
        assert dict(checkpoint.tokenizer.named_templates or {}) == named, source
    for container in ("mlx", "safetensors"):
        written = chat_templates.read(tmp_path / "out" / container)
        assert not written.notes and not written.stale
        assert OTHER not in "".join(p.read_text() for p in (tmp_path / "out" / container).glob("*.jin*"))
        assert OTHER not in (tmp_path / "out" / container / "tokenizer_config.json").read_text()


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_takes_the_same_template(kind: str, folder: Path, require, tmp_path: Path) -> None:
    need(require, "transformers")
    from transformers import AutoTokenizer

    make, named, _ = KINDS[kind]
    make(folder)
    run("convert", folder, "--to", "safetensors", "--quant", "bf16", "-o", tmp_path / "out")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert loaded == ({"default": FILE, **named} if named else FILE)
    if kind != "additional beside config":  # there transformers has no template but the additional one
        assert AutoTokenizer.from_pretrained(folder).chat_template == loaded


@pytest.mark.oracle
def test_gguf_names_templates_as_llama_cpps_converter_does(folder: Path, require, tmp_path: Path) -> None:
    need(require, "gguf")
    import gguf

    with_tools(folder)
    configure(folder, None)
    (folder / "additional_chat_templates" / "tool-use.v2.jinja").write_text(OTHER)
    run("convert", folder, "--quant", "bf16", "-o", tmp_path / "ours")
    (ours,) = (tmp_path / "ours").glob("*.gguf")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "gemma3")
    gguf.SpecialVocab(folder, load_merges=False).add_to_gguf(writer, quiet=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    keys = []
    for path in (ours, tmp_path / "theirs.gguf"):
        fields = gguf.GGUFReader(path).fields
        keys.append({name: field.contents() for name, field in fields.items() if "chat_template" in name})
    keys[1]["tokenizer.chat_templates"].sort()  # a set there, in any order
    assert keys[0] == keys[1] and "tokenizer.chat_template.tool_use_v2" in keys[0]


@pytest.mark.parametrize("bad", [3, [{"name": "default"}], ["text"], [{"template": "x"}], {"default": 1}])
def test_templates_of_another_form_are_refused(bad: object, folder: Path) -> None:
    configure(folder, bad)
    checkpoint = open_source(str(folder))
    assert "chat templates cannot be read: tokenizer_config.json: key chat_template is neither" in checkpoint.notes[-1]
    with pytest.raises(InputError, match="key chat_template is neither a text nor a list"):
        assert checkpoint.tokenizer


def test_templates_that_agree_are_copied_unchanged(folder: Path, tmp_path: Path) -> None:
    configure(folder, FILE)
    (folder / "chat_template.jinja").write_text(FILE)
    done = run("convert", folder, "--to", "safetensors", "--quant", "bf16", "-o", tmp_path / "out")
    assert "chat template" not in done.stderr
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()


def test_inspect_names_further_templates(folder: Path) -> None:
    listed(folder)
    assert "a chat template, others: tool_use" in run("inspect", folder).stdout
    assert json.loads(run("inspect", folder, "--json").stdout)["tokenizer"]["named_templates"] == ["tool_use"]


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=5), max_size=5))
def test_names_stay_within_the_folder_of_templates(named: dict[str, str]) -> None:
    files = chat_templates.as_files(None, named)
    assert all(name.count("/") == 1 and ".." not in name for name in files)
    assert {*files.values()} <= {text.encode() for text in named.values()}
    texts = {key: value for key, value in named.items() if key}
    assert len(chat_templates.spelled(texts)) <= len(texts)
