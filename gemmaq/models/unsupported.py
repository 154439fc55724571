"""Models of the same publisher that gemmaq knows by name and cannot convert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gemmaq.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A kind of model that cannot be converted.

    Attributes:
        title: Name for people.
        names: Class names and model types of config.json, and values of the GGUF key general.architecture.
        reason: What keeps gemmaq from it.
        instead: What works.
    """

    title: str
    names: tuple[str, ...]
    reason: str
    instead: str

    @property
    def message(self) -> str:
        """A sentence that refuses the model."""
        return f"{self.title} is not supported: {self.reason}"

    @property
    def hint(self) -> str:
        """What works, of other models and of this one."""
        return f"{self.instead}; of this one, inspect and estimate-vram show the weights"


_OLDER = "Gemma 3 and later of the same size work"
_TEXT = "the text models of Gemma 3 work"

UNSUPPORTED: tuple[Unsupported, ...] = (
    Unsupported(
        "EmbeddingGemma 2",
        ("EmbeddingGemma2Model", "EmbeddingGemma2TextModel", "embedding_gemma2", "embedding_gemma2_text"),
        "llama.cpp has no architecture for it",
        "EmbeddingGemma 300M works",
    ),
    Unsupported(
        "T5Gemma 2",
        (
            "T5Gemma2ForConditionalGeneration", "T5Gemma2ForSequenceClassification", "T5Gemma2ForTokenClassification",
            "T5Gemma2Model", "T5Gemma2TextEncoder", "t5gemma2", "t5gemma2_encoder", "t5gemma2_text", "t5gemma2_decoder",
        ),
        "it is an encoder and a decoder, llama.cpp has no architecture for it",
        _TEXT,
    ),
    Unsupported(
        "T5Gemma",
        (
            "T5GemmaForConditionalGeneration", "T5GemmaForSequenceClassification", "T5GemmaForTokenClassification",
            "T5GemmaModel", "T5GemmaEncoderModel", "t5gemma", "t5_gemma_module",
        ),
        "it is an encoder and a decoder, llama.cpp has no architecture for it",
        _TEXT,
    ),
    Unsupported(
        "DiffusionGemma",
        ("DiffusionGemmaForBlockDiffusion", "DiffusionGemmaModel", "diffusion_gemma", "diffusion_gemma_text"),
        "it writes blocks of text by diffusion, which no runtime of gemmaq does",
        _TEXT,
    ),
    Unsupported(
        "VaultGemma", ("VaultGemmaForCausalLM", "VaultGemmaModel", "vaultgemma"),
        "llama.cpp has no architecture for it", _TEXT,
    ),
    Unsupported(
        "RecurrentGemma", ("RecurrentGemmaForCausalLM", "RecurrentGemmaModel", "recurrent_gemma"),
        "its layers are recurrent, llama.cpp has no architecture for it", _TEXT,
    ),
    Unsupported(
        "PaliGemma", ("PaliGemmaForConditionalGeneration", "PaliGemmaModel", "paligemma"),
        "its text side is Gemma 1 or 2", "Gemma 3 4B and larger see images, too",
    ),
    Unsupported(
        "Gemma 2",
        (
            "Gemma2ForCausalLM", "Gemma2ForSequenceClassification", "Gemma2ForTokenClassification", "Gemma2Model",
            "gemma2",
        ),
        "gemmaq begins with Gemma 3", _OLDER,
    ),
    Unsupported(
        "Gemma 1",
        (
            "GemmaForCausalLM", "GemmaForSequenceClassification", "GemmaForTokenClassification", "GemmaModel", "gemma",
        ),
        "gemmaq begins with Gemma 3", _OLDER,
    ),
)  # fmt: skip
"""All of them; a family that is supported later leaves this table."""


def refuse(name: Any) -> None:
    """Refuse a kind of model by its class name, model type or GGUF architecture.

    Raises:
        UnsupportedModelError: It is one of them.
    """
    kind = find(name)
    if kind is not None:
        raise UnsupportedModelError(kind.message, kind.hint)


def find(name: Any) -> Unsupported | None:
    """The kind of model with a class name, model type or GGUF architecture; None if there is none."""
    return next((kind for kind in UNSUPPORTED if name in kind.names), None)
