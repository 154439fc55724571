"""Our GGUF files run in real llama.cpp: text, tokens and logits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_server import ask, job
from oracles import Llama, load_llama, need, need_ggml

pytestmark = pytest.mark.oracle

PROMPTS = {
    "The capital of France is": ("Paris", "city", "capital", "largest", "Europe", "France"),
    "The days of the week are Monday, Tuesday, Wednesday,": ("Thursday, Friday, Saturday",),
    "One, two, three, four, five,": ("six, seven, eight",),
    "The opposite of hot is": ("cold",),
    "import numpy as": (" np",),
}
"""Prompt -> of which texts one must be in the continuation."""

FIRST = 448
"""The position from which logits are compared; the window is 512 tokens wide."""

TEXT = """def f(x: int) -> str:
    \t\treturn f"{x!r:>8}" + '\\n'   # spaces,  tabs\tand     runs of both  \t \t


<b>bold</b> && a != b || c <<= 0xFF; $HOME/.config ~~ {{ x }} [[1, 2], [3]]\r\n
Zażółć gęślą jaźń, naïve café, ﬁne ﬂow, Ⅷ ½ ² ∑ ≠ ∞, Ελληνικά, русский язык, עברית, العربية, हिन्दी, ไทย
日本語のテキストと漢字、한국어 문장. 中文字符,没有空格。𠮷野家 㐀㒨
👍🏽👨‍👩‍👧‍👦🇩🇪 🫠 e\u0301 \u200b\ufeff\u00a0\u3000 \u0001\u001f \U0010fffd
1234567890 3.14159 1e-10 2024-05-06T07:08:09Z  CamelCaseWord snake_case_word SCREAMING
"""


@pytest.fixture(scope="module")
def bf16_gguf(tmp_path_factory: pytest.TempPathFactory, require, gemmaq, sample_bf16: Path) -> Path:
    """The real 270M as a BF16 GGUF."""
    need_ggml(require)
    folder = tmp_path_factory.mktemp("bf16")
    gemmaq("convert", sample_bf16, "--quant", "bf16", "-o", folder, "--force")
    return folder / "gemma-3-270m-BF16.gguf"


@pytest.fixture(scope="module")
def vocabulary(bf16_gguf: Path) -> Iterator[Llama]:
    """Its tokenizer in llama.cpp."""
    with load_llama(bf16_gguf, vocab_only=True) as llama:
        yield llama


@pytest.fixture(scope="module")
def reference(require, sample_bf16: Path):
    """The tokenizer in tokenizer.json."""
    need(require, "tokenizers")
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(sample_bf16 / "tokenizer.json"))


def test_q4_0_generates_sensible_text(require, sample_q4_0):
    need(require, "xllamacpp")
    settings = {"temperature": 0, "n_predict": 12}
    answers = ask(job(sample_q4_0, *(("/completion", {"prompt": prompt, **settings}) for prompt in PROMPTS)))
    texts = {prompt: answer["content"] for prompt, answer in zip(PROMPTS, answers, strict=True)}
    assert not {
        prompt: texts[prompt] for prompt, any_of in PROMPTS.items() if not any(t in texts[prompt] for t in any_of)
    }


def test_tokens_of_mixed_text(vocabulary, reference):
    assert vocabulary.tokenize(TEXT, special=False) == reference.encode(TEXT, add_special_tokens=False).ids


def test_tokens_of_pieces_of_text(vocabulary, reference):
    draw = random.Random(4)
    texts = [TEXT[start : start + draw.randrange(1, 40)] for start in draw.choices(range(len(TEXT)), k=300)]
    texts += [" " * n + "a" + " " * n for n in range(1, 40)] + ["\n" * n for n in range(1, 40)] + ["\t" * 5, " ", "a"]
    expected = [encoding.ids for encoding in reference.encode_batch(texts, add_special_tokens=False)]
    got = [vocabulary.tokenize(text, special=False) for text in texts]
    assert [(t, a, b) for t, a, b in zip(texts, got, expected, strict=True) if a != b] == []


def test_the_text_of_every_added_token_is_that_token(vocabulary, reference):
    added = {at: token.content for at, token in reference.get_added_tokens_decoder().items()}
    assert len(added) > 6000
    texts = {at: text.replace("\u2581", " ") for at, text in added.items()}
    assert {at: text for at, text in texts.items() if vocabulary.tokenize(text, special=True) != [at]} == {}
    chat = "<bos><start_of_turn>user\nHi there<end_of_turn>\n<start_of_turn>model\n"
    among_others = chat + "".join(f"{text}x" for text in list(texts.values())[::50])
    assert (
        vocabulary.tokenize(among_others, special=True) == reference.encode(among_others, add_special_tokens=False).ids
    )


def test_generation_ends_at_eos_and_end_of_turn(vocabulary, reference):
    """And at the HTML tag, which llama.cpp takes for the end in any vocabulary."""
    assert vocabulary.eog() == {reference.token_to_id(text) for text in ("<eos>", "<end_of_turn>", "</s>")}


@pytest.mark.slow
def test_logits_are_those_of_transformers(require, bf16_gguf, sample_bf16):
    """On both sides of the end of the sliding window, so that both kinds of attention count."""
    need(require, "torch", "transformers")
    from pydoc_data.topics import topics

    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(sample_bf16, dtype=torch.float32).eval()
    divergence, same, at = 0.0, 0, FIRST
    with load_llama(bf16_gguf) as llama, torch.inference_mode():
        ids = [2, *llama.tokenize(topics["with"] + topics["assert"], special=False)][:640]
        assert len(ids) == 640 > model.config.sliding_window + 100
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0]
        for rows in llama.logits(ids, first=FIRST):
            ours, theirs = torch.from_numpy(rows), model.lm_head(hidden[at : at + len(rows)])
            p, q = theirs.log_softmax(-1), ours.log_softmax(-1)
            divergence += (p.exp() * (p - q)).sum().item()
            same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
            at += len(rows)
    assert at == len(ids)
    count = at - FIRST
    print(f"mean KL {divergence / count:.2e}, top-1 {same / count:.2%} of {count}")
    assert divergence / count <= 2e-4
    assert same / count >= 0.995
