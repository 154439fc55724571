"""A layer at a time: the numbers of transformers, whatever the weights are stored in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import artifacts
import gemma4
from damage import SMALL, poison, small_model
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, NotFoundError, UsageError
from gemmaq.inference import device as forward
from gemmaq.inference.decoder import Decoder, decoder
from gemmaq.models.gemma3.names import EMBEDDING
from gemmaq.sources.open import open_source
from inprocess import run
from oracles import need
from synthetic import TINY, write_checkpoint

LENGTH = 150
"""More than two sliding windows."""


@pytest.fixture(scope="module", autouse=True)
def _torch(require: Callable[[bool, str], None]) -> None:
    need(require, "torch", "transformers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "gemma-3-tiny", TINY, seed=4)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, TINY.vocab_size, (3, LENGTH))


@contextmanager
def opened(source: Path | Checkpoint, threads: int = 2) -> Iterator[Decoder]:
    checkpoint = source if isinstance(source, Checkpoint) else open_source(str(source))
    with forward.open_device("cpu", threads) as device, decoder(checkpoint, device) as made:
        yield made


def passed(made: Decoder, tokens: np.ndarray) -> list[np.ndarray]:
    """The activations before every layer, f32 [sequences, length, hidden] each, and what the head gets."""
    import torch

    batches, found = made.embed(tokens), []
    for index in range(made.layers):
        found.append(torch.cat([batch.hidden for batch in batches]).numpy())
        made.through(made.layer(index), index, batches)
    return [*found, made.normed(torch.cat([batch.hidden for batch in batches])).numpy()]


def of_transformers(loaded, tokens: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The same, and the logits."""
    import torch

    with torch.no_grad():
        said = loaded.eval()(input_ids=torch.from_numpy(tokens), output_hidden_states=True)
    return [part.numpy() for part in said.hidden_states], said.logits.numpy()


def same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert len(found) == len(wanted)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max(), err_msg=f"before layer {number}")


@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_every_layer_of_gemma_4_is_that_of_transformers(kind, tokens, tmp_path):
    """With layer embeddings, keys and values of earlier layers, keys that serve as values, and experts."""
    import torch
    from transformers import Gemma4ForCausalLM

    folder = gemma4.write(tmp_path / "gemma-4-tiny", gemma4.KINDS[kind])
    loaded = Gemma4ForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager")
    wanted, logits = of_transformers(loaded, tokens)
    with opened(folder) as made:
        found = passed(made, tokens)
        same(found, wanted)
        capped = 30 * np.tanh(found[-1] @ made.read(made.checkpoint.embedding).T / 30)
        np.testing.assert_allclose(capped, logits, atol=2e-5 * np.abs(logits).max())
        if kind == "effective":  # its layers take something that is computed for all sequences together
            for a, b in zip(found, passed(made, tokens[1:2]), strict=True):
                np.testing.assert_array_equal(a[1:2], b)


@pytest.mark.slow
def test_every_layer_is_that_of_transformers(model, tokens):
    import torch
    from transformers import Gemma3ForCausalLM

    loaded = Gemma3ForCausalLM.from_pretrained(model, dtype=torch.float32)
    wanted, logits = of_transformers(loaded, tokens)
    with opened(model) as made:
        found = passed(made, tokens)
        same(found, wanted)
        head = made.read(made.checkpoint.tensors[EMBEDDING])
        np.testing.assert_allclose(found[-1] @ head.T, logits, atol=2e-5 * np.abs(logits).max())
    assert {made.config.layer_types[n] for n in range(made.layers)} == {"sliding_attention", "full_attention"}


def test_a_window_is_as_long_as_the_configuration_says(model, tokens):
    """A token reaches those after it through five sliding layers only so far."""
    changed = tokens.copy()
    changed[:, 0] = (changed[:, 0] + 1) % TINY.vocab_size
    with opened(model) as made:
        before, after = passed(made, tokens), passed(made, changed)
    differs = [np.flatnonzero((a != b).any(axis=(0, 2))).max() for a, b in zip(before, after, strict=True)]
    assert differs[:3] == [0, TINY.sliding_window - 1, 2 * (TINY.sliding_window - 1)]
    assert differs[-1] == LENGTH - 1


def test_any_number_of_threads_and_sequences_gives_the_same(model, tokens):
    with opened(model, 1) as one, opened(model, 3) as three:
        found = passed(one, tokens)
        for a, b in zip(found, passed(three, tokens), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(found, passed(one, tokens[1:2]), strict=True):
            np.testing.assert_array_equal(a[1:2], b)


def test_the_text_side_of_a_multimodal_model(tokens, tmp_path):
    import torch
    from transformers import Gemma3ForConditionalGeneration

    blind = small_model(tmp_path / "blind", TINY)
    (blind / "tokenizer_config.json").write_text("{}")
    seeing = artifacts.sources(blind, tmp_path).seeing
    loaded = Gemma3ForConditionalGeneration.from_pretrained(seeing, dtype=torch.float32)
    words = np.where(np.isin(tokens, (255, 256, 319)), 7, tokens)
    wanted, _ = of_transformers(loaded, words)
    with opened(seeing) as made:
        same(passed(made, words), wanted)


@pytest.mark.parametrize(
    "options",
    [
        ("--quant", "q4_0"),
        ("--quant", "q5_1", "--embedding", "q8_0"),
        ("--quant", "affine4", "--to", "mlx"),
        ("--quant", "q4_0", "--to", "safetensors"),
        ("--quant", "f16"),
    ],
)
def test_a_quantized_model_is_run_with_the_weights_it_holds(options, tokens, tmp_path):
    """Those that gemmaq gives to somebody who wants them in F32."""
    import torch
    from transformers import Gemma3ForCausalLM

    source = small_model(tmp_path / "gemma-3-tiny", SMALL)
    run("convert", source, "-o", tmp_path / "made", "-q", *options)
    run("convert", tmp_path / "made", "-o", tmp_path / "plain", "-q", "--to", "safetensors", "--quant", "f32")
    few = tokens[:1, :70]
    loaded = Gemma3ForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32)
    with opened(tmp_path / "made") as made, opened(source) as other:
        found = passed(made, few)
        same(found, of_transformers(loaded, few)[0])
        assert options[1] == "f16" or np.abs(found[-1] - passed(other, few)[-1]).max() > 0.01


def test_damage_is_told(tmp_path, tokens):
    folder = small_model(tmp_path / "gemma-3-tiny", SMALL)
    with opened(folder) as made:
        for wrong in (SMALL.vocab_size, -1):
            with pytest.raises(InputError, match=r"not in the model's vocabulary of 320"):
                made.embed(np.array([[1, wrong, 2]]))
    name = "model.layers.1.mlp.up_proj.weight"
    poison(folder, name, 0x7FC0)
    with opened(folder) as made:
        passing = made.embed(tokens)
        made.through(made.layer(0), 0, passing)
        with pytest.raises(InputError, match=f"{name}.*NaN or infinite"):
            made.layer(1)
    poison(folder, name, 0)
    poison(folder, EMBEDDING, 0x7F7F)
    with opened(folder) as made:
        hidden = made.embed(np.full((1, 8), SMALL.vocab_size - 1))
        with pytest.raises(InputError, match="activations after layer 0 are not finite"):
            made.through(made.layer(0), 0, hidden)
    os.truncate(folder / "model.safetensors", 5)
    with pytest.raises(InputError), opened(folder):
        pass
    checkpoint = open_source(str(small_model(tmp_path / "other/gemma-3-tiny", SMALL)))
    (tmp_path / "other/gemma-3-tiny/model.safetensors").unlink()
    with pytest.raises(NotFoundError), opened(checkpoint):
        pass


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no such hints")
def test_the_next_layer_is_read_while_one_computes(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, length, advice: told.append((start, length)))
    checkpoint = open_source(str(model))
    with forward.open_device(None, 1) as device, decoder(checkpoint, device) as opened:
        opened.layer(0)
        assert sorted(told) == sorted((t.parts[0].offset, t.nbytes) for t in checkpoint.layer(1).values())
        told.clear()
        opened.layer(opened.layers - 1)
        assert not told


@pytest.mark.parametrize("device", ["nope", "cuda:99", "meta", "cpu:x", ""])
def test_a_device_that_is_not_there_is_told(device):
    with pytest.raises(UsageError, match="device"), forward.open_device(device, 1):
        pass


def test_the_switches_of_torch_are_put_back():
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(KeyboardInterrupt), forward.open_device("cpu", 2) as device:
            assert torch.get_num_threads() == 1 and not torch.is_grad_enabled()
            assert (
                device.map(lambda _: (torch.get_num_threads(), torch.is_grad_enabled()), range(4)) == [(1, False)] * 4
            )
            raise KeyboardInterrupt
        assert torch.get_num_threads() == 2 and torch.is_grad_enabled()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_without_the_extra_one_is_told_how_to_install_it(missing, tmp_path, monkeypatch):
    monkeypatch.setattr("gemmaq.inference.device.find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(UsageError, match=f"this needs {missing}, which is not installed") as told:
        forward.require_torch("this")
    assert told.value.hint == "pip install torch transformers"
    model = small_model(tmp_path / "gemma-3-tiny", SMALL)
    for words in (
        ("imatrix", model, "-o", tmp_path / "imatrix.gguf"),
        ("convert", model, "--method", "gptq", "-o", tmp_path / "out"),
        ("convert", model, "--method", "importance", "-o", tmp_path / "out"),
    ):
        assert "pip install torch transformers" in run(*words, code=2).stderr
    run("convert", model, "-o", tmp_path / "out", "-q")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gemma-3-tiny", "out"]
