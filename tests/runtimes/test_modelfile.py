"""The Modelfile: read by Ollama's rules, it asks for what `gemmaq install` asks for."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import node
import ollama_rules as rules
import oracles
from artifacts import Sources, convert, set_template
from gemmaq.artifact import modelfile
from gemmaq.checkpoint.tokenizer import TokenizerFiles
from gemmaq.files.names import Parts
from gemmaq.models.gemma3.chat import CHAT, LICENSE
from gemmaq.models.gemma3.sizes import SIZES
from gemmaq.models.gemma4 import chat as gemma4
from gemmaq.runtimes.artifact import read_artifact

TEMPLATE = CHAT.ollama(SIZES[0].config).template or ""
Require = Callable[[bool, str], None]


def made(folder: Path) -> rules.Modelfile:
    """The Modelfile of an artifact; made again of its files it is the same."""
    text = (folder / modelfile.FILE).read_text()
    model = read_artifact(folder)
    assert modelfile.text(model.checkpoint, model.parts) == text
    found = rules.parse(text, folder)
    settings = modelfile.settings(model.checkpoint, model.parts)
    assert found.parameters == settings.parameters
    turns = settings.turns
    assert (found.template, found.renderer, found.parser) == (turns.template, turns.renderer, turns.parser)
    assert found.requires == settings.requires
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
    assert chat.template == seeing.template == TEMPLATE and chat.system is None
    assert (chat.requires, made(copies["split"]).requires, seeing.requires) == (None, "0.30.0", "0.30.4")
    assert chat.licenses == [LICENSE.notice]


def test_models_that_do_not_chat(sources: Sources, tmp_path: Path) -> None:
    found = made(convert(sources.pretrained, tmp_path / "out"))
    assert (found.template, found.parameters, found.requires) == ("{{ .Prompt }}", {}, None)


@pytest.mark.parametrize(("kind", "renderer"), [("small", "gemma4-small"), ("large", "gemma4-large")])
def test_a_family_whose_turns_ollama_has_code_for(kind: str, renderer: str, gemma4s: dict[str, Path]) -> None:
    """The code's names by the kind of model, whatever it is called; no template, no stop text."""
    found = made(gemma4s[kind])
    assert (found.renderer, found.parser, found.template) == (renderer, "gemma4", None)
    assert found.renderer in rules.RENDERERS and found.parser in rules.PARSERS
    assert found.parameters == {"temperature": 1.0, "top_k": 64, "top_p": 0.95}
    assert found.requires == "0.30.0" and found.licenses == [gemma4.LICENSE.notice]
    assert "#" not in (gemma4s[kind] / modelfile.FILE).read_text()


def test_turns_that_ollama_adds_to_every_model_of_an_architecture(gemma4s: dict[str, Path]) -> None:
    """They are named in the kind that fits, and it is said that they are there."""
    found = made(gemma4s["pretrained"])
    assert (found.renderer, found.parser, found.template, found.parameters) == ("gemma4-large", "gemma4", None, {})
    assert (gemma4s["pretrained"] / modelfile.FILE).read_text().startswith("# Ollama writes the turns of Gemma 4 for")
    checkpoint = read_artifact(gemma4s["small"]).checkpoint
    tokenizer = replace(checkpoint.tokenizer, chat_template="{{ messages }}")
    foreign = replace(checkpoint, tokenizer_files=TokenizerFiles(lambda _: tokenizer))
    settings = modelfile.settings(foreign)
    assert settings.turns.renderer == "gemma4-small" and settings.remark is not None and "raw: true" in settings.remark


def test_a_projector_and_a_drafter(gemma4s: dict[str, Path], tmp_path: Path) -> None:
    """The projector is a second FROM, the drafter a DRAFT, and both want a later version."""
    (weights,) = gemma4s["small"].glob("*.gguf")
    files = Parts((weights.name,), "mmproj-gemma-4-E2B-it-F16.gguf", "mtp-gemma-4-E2B-it-Q8_0.gguf")
    for name in (*files.model, files.projector, files.drafter):
        (tmp_path / str(name)).touch()
    checkpoint = read_artifact(gemma4s["small"]).checkpoint
    found = rules.parse(modelfile.text(checkpoint, files), tmp_path)
    assert [path.name for path in found.files] == [*files.model, files.projector]
    assert [path.name for path in found.drafts] == [files.drafter] and found.requires == "0.30.9"
    found = rules.parse(modelfile.text(checkpoint, replace(files, drafter=None)), tmp_path)
    assert not found.drafts and found.requires == "0.30.5"
    with pytest.raises(rules.RuleError, match="same local path"):
        rules.parse(modelfile.text(checkpoint, replace(files, drafter=weights.name)), tmp_path)


def test_all_files_of_a_model(whole: Path) -> None:
    """Weights, projector and drafter, each with the word that it needs."""
    found = made(whole)
    model = read_artifact(whole)
    assert (*model.weights, model.projector) == tuple(found.files) and found.drafts == [model.drafter]
    kinds = [rules.keys(path)["general.architecture"] for path in (*found.files, *found.drafts)]
    assert kinds == ["gemma4", "clip", "gemma4-assistant"] and found.requires == "0.30.9"
    assert (found.renderer, found.parser) == ("gemma4-small", "gemma4")
    assert found.parameters == {"temperature": 1.0, "top_k": 64, "top_p": 0.95}


def test_odd_sampling(sources: Sources, tmp_path: Path) -> None:
    """Numbers that are none are passed over; a whole number is written as one, as top_k must be."""
    source = Path(shutil.copytree(sources.chat, tmp_path / "gemma-3-1b-it"))
    odd = '{"temperature": NaN, "top_k": 40.0, "top_p": true, "min_p": 0.05, "do_sample": true}'
    (source / "generation_config.json").write_text(odd)
    checkpoint = read_artifact(source).checkpoint
    text = modelfile.text(checkpoint, Parts(("a.gguf",)))
    assert "PARAMETER temperature 1\nPARAMETER top_k 40\nPARAMETER top_p 0.95\nPARAMETER min_p 0.05\n" in text


def test_odd_file_names(chat: Path, tmp_path: Path) -> None:
    path = tmp_path / "My Gemma 3 (it), #1-Q4_0.gguf"
    shutil.copy(next(chat.glob("*.gguf")), path)
    assert rules.parse(modelfile.text(read_artifact(path).checkpoint, Parts((path.name,))), tmp_path).files == [path]


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
    assert node.go(TEMPLATE, [given(turns) for turns in CONVERSATIONS.values()]) == expected


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
    first, second, third = node.go(TEMPLATE, [given(turns) for turns in (cut, twice, begun)])
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
        assert found.template == TEMPLATE and found.parameters["temperature"] == 1
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
def test_what_the_hub_makes_of_turns_that_ollama_has_code_for(gemma4s: dict[str, Path], require: Require) -> None:
    """It knows no such template, and derives one with the words of ours; the end of a turn is what we say it is."""
    node.need(require, node.UTILS)
    jinja = read_artifact(gemma4s["small"]).checkpoint.tokenizer.chat_template
    assert jinja is not None
    found = derived(jinja)
    assert found["model"] == "auto-conversion"
    assert f"<|turn>user\n{{{{ .Prompt }}}}{gemma4.CHAT.stop}\n" in found["ollama"]["template"]
    assert gemma4.CHAT.stop in found["ollama"]["params"]["stop"]
    ours = json.loads((gemma4s["small"] / modelfile.PARAMS_FILE).read_text())
    assert ours == made(gemma4s["small"]).parameters


@pytest.mark.oracle
def test_the_hub_reads_our_files(
    split: Path, seeing: Path, chat: Path, whole: Path, drafter: Path, require: Require
) -> None:
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
    folders = (chat, split, seeing, whole, drafter)
    paths = sorted(path for folder in folders for path in folder.glob("*.gguf"))
    found = dict(zip(paths, node.run(script, [str(path) for path in paths]), strict=True))
    for path in paths:
        parsed, keys = found[path], rules.keys(path)
        assert parsed["keys"] == {name: value for name, value in keys.items() if isinstance(value, str)}
        assert parsed["label"] == ("F16" if "mmproj" in path.name else "Q8_0" if path.parent == drafter else "Q4_0")
        assert bool(parsed["shard"]) == ("-of-" in path.name)
        assert len(set(parsed["tensors"])) == len(parsed["tensors"]) > 0
    beside = {path.name: found[path]["keys"]["general.architecture"] for path in paths if path.name[0] == "m"}
    assert beside == {
        "mmproj-gemma-3-4b-it-qat-F16.gguf": "clip",
        "mmproj-gemma-4-E2B-it-F16.gguf": "clip",
        "mtp-gemma-4-E2B-it-Q4_0.gguf": "gemma4-assistant",
        "mtp-gemma-4-E2B-it-Q8_0.gguf": "gemma4-assistant",
    }
