"""The Modelfile: read by Ollama's rules, it asks for what `gemmaq install` asks for."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import node
import ollama_rules as rules
import oracles
from artifacts import Sources, convert, set_template
from gemmaq.artifact import modelfile
from gemmaq.models.gemma3.chat import CHAT, LICENSE
from gemmaq.runtimes.artifact import read_artifact

Require = Callable[[bool, str], None]


def made(folder: Path) -> rules.Modelfile:
    """The Modelfile of an artifact; made again of its files it is the same."""
    text = (folder / modelfile.FILE).read_text()
    model = read_artifact(folder)
    projector = model.projector.name if model.projector else None
    assert modelfile.text(model.checkpoint, [path.name for path in model.weights], projector) == text
    found = rules.parse(text, folder)
    settings = modelfile.settings(model.checkpoint, len(model.weights), projector is not None)
    assert found.parameters == settings.parameters
    assert (found.template, found.requires) == (settings.template, settings.requires)
    return found


@pytest.fixture
def copies(chat: Path, split: Path, seeing: Path, tmp_path: Path) -> dict[str, Path]:
    return {p.name: Path(shutil.copytree(p, tmp_path / p.name)) for p in (chat, split, seeing)}


def test_files(copies: dict[str, Path]) -> None:
    """Every file of the model and nothing else, relative, so that the folder can be moved."""
    for folder in copies.values():
        found = made(folder)
        assert sorted(found.files) == sorted(folder.glob("*.gguf")) and found.base is None
        assert str(folder.parent) not in (folder / modelfile.FILE).read_text()
    keys = {path.name: rules.keys(path) for path in made(copies["split"]).files}
    (shards,) = rules.merged(keys)
    assert shards == sorted(keys) and len(shards) > 1
    only_first = {name: keys[name] for name in shards[:1]}
    with pytest.raises(rules.RuleError, match="expected"):
        rules.merged(only_first)


def test_a_folder_without_modelfile(copies: dict[str, Path]) -> None:
    """`FROM .`: one container a folder, so that all of it is one model."""
    for folder in copies.values():
        weights = [path for path in rules.files_of(folder) if path.suffix == ".gguf"]
        kinds = [rules.is_projector(rules.keys(path)) for path in weights]
        assert weights == sorted(folder.glob("*.gguf")) and kinds.count(True) == (folder.name == "seeing")
    (copies["chat"] / "model.safetensors").write_bytes(b"")
    assert not any(path.suffix == ".gguf" for path in rules.files_of(copies["chat"]))


def test_what_it_asks_for(copies: dict[str, Path]) -> None:
    chat, seeing = made(copies["chat"]), made(copies["seeing"])
    assert chat.parameters == {"stop": ["<end_of_turn>"], "temperature": 1.0, "top_k": 32, "top_p": 0.9}
    assert seeing.parameters == {"stop": ["<end_of_turn>"], "temperature": 1.0, "top_k": 64, "top_p": 0.95}
    assert chat.template == seeing.template == CHAT.go_template and chat.system is None
    assert (chat.requires, made(copies["split"]).requires, seeing.requires) == (None, "0.30.0", "0.30.4")
    assert chat.licenses == [LICENSE.notice]


def test_models_that_do_not_chat(sources: Sources, tmp_path: Path) -> None:
    found = made(convert(sources.pretrained, tmp_path / "out"))
    assert (found.template, found.parameters, found.requires) == ("{{ .Prompt }}", {}, None)


def test_odd_sampling(sources: Sources, tmp_path: Path) -> None:
    """Numbers that are none are passed over; a whole number is written as one, as top_k must be."""
    source = Path(shutil.copytree(sources.chat, tmp_path / "gemma-3-1b-it"))
    odd = '{"temperature": NaN, "top_k": 40.0, "top_p": true, "min_p": 0.05, "do_sample": true}'
    (source / "generation_config.json").write_text(odd)
    checkpoint = read_artifact(source).checkpoint
    text = modelfile.text(checkpoint, ["a.gguf"])
    assert "PARAMETER temperature 1\nPARAMETER top_k 40\nPARAMETER top_p 0.95\nPARAMETER min_p 0.05\n" in text


def test_odd_file_names(chat: Path, tmp_path: Path) -> None:
    path = tmp_path / "My Gemma 3 (it), #1-Q4_0.gguf"
    shutil.copy(next(chat.glob("*.gguf")), path)
    assert rules.parse(modelfile.text(read_artifact(path).checkpoint, [path.name]), tmp_path).files == [path]


CONVERSATIONS: dict[str, list[tuple[str, str]]] = {
    "question": [("user", "Hi")],
    "system": [("system", "Be kind."), ("user", "Hi")],
    "turns": [("user", "Hi"), ("assistant", "Hello!"), ("user", "Why?\n\nSay.")],
    "all": [("system", "Be\nkind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "{{ .Why }}?")],
}
Kinds = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def known(require: Require) -> Iterator[Kinds]:
    node.need(require, node.UTILS)
    yield node.known_templates()


@pytest.mark.oracle
def test_stock_templates(known: Kinds) -> None:
    """What we take for Gemma 3's own templates are those that the Hub knows, and Ollama takes them for Gemma 3's."""
    stock = {hashlib.sha256(entry["gguf"].encode()).hexdigest(): entry["gguf"] for entry in known.values()}
    assert set(stock) == CHAT.templates
    newest = {"gemma3-instruct": known["library/gemma3:270m"]["gguf"]}
    for text in stock.values():
        assert not modelfile.is_foreign(text, CHAT) and modelfile.is_foreign(text + " ", CHAT)
    assert rules.detected(newest["gemma3-instruct"], newest) == "gemma3-instruct"
    assert rules.detected(newest["gemma3-instruct"][:-50] + "?" * 49, newest) == "gemma3-instruct"
    assert rules.detected(newest["gemma3-instruct"][:-99], newest) == "gemma3-instruct"
    assert rules.detected(newest["gemma3-instruct"][:-100], newest) is None


@pytest.mark.oracle
def test_the_template_says_what_the_chat_template_says(known: Kinds, require: Require) -> None:
    """Go's own engine and Jinja, every conversation; BOS is the engine's to add."""
    oracles.need(require, "jinja2")
    node.need(require, node.TEMPLATES)
    jinja = import_module("jinja2").Template(known["library/gemma3:270m"]["gguf"])
    expected = [
        jinja.render(
            messages=[{"role": role, "content": content} for role, content in turns],
            bos_token="",
            add_generation_prompt=True,
        ).lstrip("\n")
        for turns in CONVERSATIONS.values()
    ]
    assert node.go(CHAT.go_template, [given(turns) for turns in CONVERSATIONS.values()]) == expected


def given(turns: list[tuple[str, str]]) -> dict[str, Any]:
    """What Ollama gives a template: all system text together, and the messages, system ones among them."""
    system = "\n\n".join(content for role, content in turns if role == "system")
    return {"System": system, "Messages": [{"Role": role, "Content": content} for role, content in turns]}


@pytest.mark.oracle
def test_beyond_the_chat_template(require: Require) -> None:
    """System text is kept when the first turns were cut off, comes once, and an answer is left open to go on."""
    node.need(require, node.TEMPLATES)
    cut = [("system", "S"), ("assistant", "a"), ("user", "b")]
    twice = [("user", "a"), ("assistant", "b"), ("system", "S"), ("user", "c"), ("assistant", "d"), ("user", "e")]
    begun = [("user", "a"), ("assistant", "b")]
    first, second, third = node.go(CHAT.go_template, [given(turns) for turns in (cut, twice, begun)])
    assert first.count("S") == 1 and first.endswith("user\nS\n\nb<end_of_turn>\n<start_of_turn>model\n")
    assert second.count("S") == 1 and second.startswith("<start_of_turn>user\nS\n\na<end_of_turn>")
    assert third.endswith("<start_of_turn>model\nb")
    assert node.go(modelfile.PROMPT, [{"Prompt": "Once"}]) == ["Once"]


@pytest.mark.oracle
def test_a_stock_template_in_a_file(known: Kinds, sources: Sources, tmp_path: Path, require: Require) -> None:
    """Through a conversion byte for byte; the Hub derives Gemma 3's Ollama template of it, and we write our own."""
    for number, entry in enumerate(known.values()):
        source = Path(shutil.copytree(sources.pretrained, tmp_path / f"gemma-3-1b-tuned{number}"))
        set_template(source, entry["gguf"])
        folder = convert(source, tmp_path / f"out{number}")
        (path,) = folder.glob("*.gguf")
        assert rules.keys(path)["tokenizer.chat_template"] == entry["gguf"]
        assert derived(entry["gguf"])["model"].startswith("library/gemma3:")
        found = made(folder)
        assert found.template == CHAT.go_template and found.parameters["temperature"] == 1
    foreign = convert(sources.foreign, tmp_path / "foreign")
    assert made(foreign).template is None


def derived(jinja: str) -> dict[str, Any]:
    """What the Hub makes of a chat template for Ollama."""
    script = f"""
    import {{convertGGUFTemplateToOllama}} from "{node.UTILS}";
    const answer = convertGGUFTemplateToOllama(given);
    """
    found: dict[str, Any] = node.run(script, {"chat_template": jinja, "bos_token": "<bos>", "eos_token": "<eos>"})
    return found


@pytest.mark.oracle
def test_the_hub_reads_our_files(split: Path, seeing: Path, chat: Path, require: Require) -> None:
    """@huggingface/gguf parses every file; types and shards are read off the names."""
    node.need(require, node.GGUF)
    script = f"""
    import {{gguf, parseGGUFQuantLabel, parseGgufShardFilename}} from "{node.GGUF}";
    import path from "node:path";
    const answer = [];
    for (const file of given) {{
        const found = await gguf(file, {{allowLocalFile: true}});
        const name = path.basename(file);
        const keys = Object.fromEntries(Object.entries(found.metadata).filter(([, v]) => typeof v === "string"));
        const tensors = found.tensorInfos.map(one => one.name);
        answer.push({{keys, tensors, label: parseGGUFQuantLabel(name), shard: parseGgufShardFilename(name)}});
    }}
    """
    paths = sorted(path for folder in (chat, split, seeing) for path in folder.glob("*.gguf"))
    found = dict(zip((path.name for path in paths), node.run(script, [str(path) for path in paths]), strict=True))
    for path in paths:
        parsed, keys = found[path.name], rules.keys(path)
        assert parsed["keys"] == {name: value for name, value in keys.items() if isinstance(value, str)}
        assert parsed["label"] == ("F16" if "mmproj" in path.name else "Q4_0")
        assert bool(parsed["shard"]) == ("-of-" in path.name)
        assert len(set(parsed["tensors"])) == len(parsed["tensors"]) > 0
    assert found["mmproj-gemma-3-4b-it-qat-F16.gguf"]["keys"]["general.architecture"] == "clip"
