"""Model cards: how to run the files of the folder, and metadata that stay with them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

import node
from gemmaq.artifact import card, description
from gemmaq.artifact.footprint import UNKNOWN
from gemmaq.files import sums
from gemmaq.models.towers_config import Encoder
from gemmaq.sources.open import open_source
from inprocess import run
from kinds import folders


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (
            "gguf",
            [
                "llama-server -m gemma-3-tiny-Q4_0-00001-of-00002.gguf",
                "ollama create gemma-3-tiny-q4_0 -f Modelfile",
                "gemmaq install . --runtime lmstudio",
            ],
        ),
        ("mlx", ["mlx_lm.chat --model ."]),
        ("bf16", ["vllm serve .", "transformers serve ."]),
        ("seeing mlx", ["mlx_lm.chat --model .", "mlx_vlm.chat --model ."]),
        (
            "mmproj",
            [
                "llama-server -m gemma-3-4b-it-qat-Q8_0.gguf --mmproj mmproj-gemma-3-4b-it-qat-F16.gguf",
                "ollama create gemma-3-4b-it-qat-q8_0 -f Modelfile",
                "gemmaq install . --runtime lmstudio",
            ],
        ),
    ],
)
def test_the_card_says_how_to_run_the_files_here(kind: str, lines: list[str], made: dict[str, Path]) -> None:
    (folder,) = folders(made[kind])
    card = (folder / "README.md").read_text()
    block = re.search(r"```sh\n(.+?)\n```", card, re.DOTALL)
    assert block is not None and block[1].splitlines() == lines
    digests = sums.read(folder)
    for name in {path.name for path in folder.iterdir()} - {"README.md", "SHA256SUMS"}:
        assert f"`{name}`" in card and digests[name][:16] in card
        assert (folder / name).exists()


def test_what_the_card_says_of_the_files_is_not_said_of_what_is_made_of_them(
    made: dict[str, Path], tmp_path: Path
) -> None:
    """A model made of an artifact is not one of its tags, and has the source's licence and language."""
    from oracles import read_gguf

    middle = Path(shutil.copytree(made["bf16"], tmp_path / "gemma-3-tiny"))
    card = middle / "README.md"
    card.write_text(card.read_text().replace("license: gemma\n", "license: other\nlanguage: [de]\n"))
    run("convert", middle, "-q", "-o", tmp_path / "gguf")
    keys = read_gguf(next((tmp_path / "gguf").glob("*.gguf")))[0]
    assert "general.tags" not in keys and "de" in str(keys["general.languages"])
    assert "language:\n- de\n" in (tmp_path / "gguf/README.md").read_text()


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (("model-Q4_K_M.gguf",), "Q4_K_M"),
        (("mmproj-model-F16.gguf", "model-Q8_0-00001-of-00002.gguf"), "Q8_0"),
        (("model.gguf",), "Q4_0"),
    ],
)
def test_a_repository_is_run_by_the_type_that_its_files_are_named_by(
    files: tuple[str, ...], kind: str, made: dict[str, Path]
) -> None:
    model = replace(description.of_checkpoint(open_source(str(made["gguf"])), made["gguf"]), files=files)
    assert f"llama-server -hf me/model:{kind}\n" in card.text("me/model", [model], [], memory=UNKNOWN)


def test_a_license_of_its_own_is_named_in_place_of_the_familys(made: dict[str, Path]) -> None:
    usual = description.of_checkpoint(open_source(str(made["gguf"])), made["gguf"])
    said = card.text(None, [usual], [], memory=UNKNOWN)
    assert usual.family.license.notice in said
    other = replace(
        usual, card={"license": "other", "license_name": "a-license", "license_link": "https://a.org/terms"}
    )
    said = card.text(None, [other], [], memory=UNKNOWN)
    assert "The source is licensed under a-license: https://a.org/terms." in said
    assert usual.family.license.notice not in said


@pytest.mark.oracle
def test_the_hub_knows_what_a_card_says_of_a_model(made: dict[str, Path], require: Callable[[bool, str], None]) -> None:
    """The tasks of models that read, see or hear, by the Hub's own list."""
    node.need(require, node.TASKS)
    usual = description.of_checkpoint(open_source(str(made["gguf"])), made["gguf"])
    towers = {
        "text-generation": None,
        "image-text-to-text": Senses(sees=ENCODER),
        "any-to-any": Senses(sees=ENCODER, hears=ENCODER),
    }
    for task, config in towers.items():
        model = replace(usual, towers=int(config is not None), towers_config=config)
        front = card.text(None, [model], [], memory=UNKNOWN).split("---")[1]
        assert yaml.safe_load(front)["pipeline_tag"] == task
    script = f'import {{PIPELINE_TYPES}} from "{node.TASKS}"; const answer = PIPELINE_TYPES;'
    assert {*towers, "sentence-similarity"} <= set(node.run(script, None))


ENCODER = Encoder(64, 128, 2, 2, patches=16, tokens=4)


@dataclass(frozen=True)
class Senses:
    """Dimensions of towers."""

    sees: Encoder | None = None
    hears: Encoder | None = None
