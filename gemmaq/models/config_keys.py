"""Which keys of config.json a family reads, which have one value only, and which change nothing.

Each family has a table, made by going through its config classes in transformers. A value that changes what the model
computes, and that gemmaq or a runtime cannot express, is refused: the artifact would be another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gemmaq.errors import InputError
from gemmaq.models.hf_values import text_side

GELU_TANH = ("gelu_pytorch_tanh", "gelu_python_tanh", "gelu_new", "gelu_fast", "gelu_accurate")
"""Names in transformers of the one function that runtimes of every family compute with."""
PLAIN_ROPE: tuple[Any, ...] = (None, 1, 1.0)
"""Values of `partial_rotary_factor` for a rotary embedding of whole heads."""

_WORDS = """
_name_or_path _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash
add_cross_attention architectures attention_dropout attn_implementation auto_map bad_words_ids begin_suppress_tokens
cache_implementation chunk_size_feed_forward compression_config
cross_attention_hidden_size decoder_start_token_id diversity_penalty
do_sample dtype early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task
forced_bos_token_id forced_eos_token_id hidden_act id2label initializer_range is_decoder is_encoder_decoder label2id
length_penalty max_length min_length model_name model_type no_repeat_ngram_size num_beam_groups num_beams
num_return_sequences output_attentions output_hidden_states output_scores prefix problem_type pruned_heads
quantization quantization_config remove_invalid_values repetition_penalty return_dict return_dict_in_generate
sep_token_id sparsity_config
suppress_tokens task_specific_params temperature text_config tf_legacy_loss tie_encoder_decoder
tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers_version transformers.js_config
typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache vision_config audio_config
"""
HARMLESS = frozenset(_WORDS.split())
"""Keys of every config class that say nothing of the text model's computation, or that its tensors say better.

`hidden_act` is one of them: the classes of these families read `hidden_activation` alone.
"""


@dataclass(frozen=True, slots=True)
class ConfigKeys:
    """The table of a family: keys of the text side of config.json.

    Attributes:
        read: Keys whose values are read.
        fixed: Key -> the values that every runtime computes with; null and a missing key count as one of them.
        harmless: Keys that change nothing, besides those of every class.
    """

    read: frozenset[str]
    fixed: Mapping[str, tuple[Any, ...]]
    harmless: frozenset[str] = frozenset()

    def check(self, document: Mapping[str, Any], title: str) -> None:
        """Refuse a value that no runtime of the family computes with.

        Args:
            document: Content of config.json.
            title: The family's name.

        Raises:
            InputError: There is one; the message has its key.
        """
        text = text_side(document)
        for key, values in self.fixed.items():
            value = text.get(key)
            if value is not None and not any(value == usual and _alike(value, usual) for usual in values):
                with_ = f"with {values[0]!r}" if values[0] is not None else "without it"
                raise InputError(
                    f"config.json: {key} is {value!r:.60}, which changes what the model computes",
                    f"use a checkpoint that was trained {with_}: runtimes compute {title} in no other way",
                )

    def unread(self, document: Mapping[str, Any]) -> tuple[str, ...]:
        """A sentence on keys that neither the family's class in transformers nor gemmaq reads, if there are any."""
        section, code = document.get("text_config"), document.get("auto_map")
        keys = section if isinstance(section, Mapping) else document
        known = self.read | self.harmless | HARMLESS | self.fixed.keys()
        found = [f"{key} ({value!r:.20})" for key, value in keys.items() if key not in known and value is not None]
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        notes: tuple[str, ...] = (
            (f"config.json: not read, as in transformers: {', '.join(found[:4])}{more}",) if found else ()
        )
        if isinstance(code, Mapping) and any(str(key).startswith("AutoModel") for key in code):
            notes += ("config.json names Python code for the model (auto_map), which gemmaq and most runtimes ignore",)
        return notes


def _alike(value: Any, other: Any) -> bool:
    """Whether both are flags, or neither is."""
    return isinstance(value, bool) == isinstance(other, bool)
