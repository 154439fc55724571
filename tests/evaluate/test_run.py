"""Scores against a full softmax in f64, and what they must not depend on; the cache; models that cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import gemma4
import gemma4_tokenizer
import inprocess
from gemmaq.errors import InputError, UsageError
from gemmaq.evaluate.chunks import Chunks
from gemmaq.evaluate.run import check_model, evaluate
from gemmaq.inference import device as forward
from gemmaq.inference.decoder import Decoder
from gemmaq.inference.device import Device
from gemmaq.progress import Progress, ignore
from gemmaq.sources.open import open_source
from oracles import need
from synthetic import TINY, write_checkpoint, write_safetensors

CONTEXT = 64


@pytest.fixture(scope="module", autouse=True)
def _torch(require: Callable[[bool, str], None]) -> None:
    need(require, "torch", "transformers")


def run(models, some, threads=2, folder=None, progress=ignore, work=None):
    with forward.open_device("cpu", threads) as device:
        return evaluate(models, some, device=device, progress=progress, cache_folder=folder, work=work)


def naive(model, some):
    """Logits of scored positions by transformers itself, f64 [scored, vocabulary]."""
    import torch
    from transformers import Gemma3ForCausalLM

    loaded = Gemma3ForCausalLM.from_pretrained(model.location, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = loaded(torch.from_numpy(some.tokens)).logits[:, CONTEXT // 2 : -1]
    return logits.double().reshape(-1, TINY.vocab_size)


def test_scores_are_those_of_a_full_softmax(pair, some):
    import torch

    reference, model = run(pair, some)
    expected, other = (naive(one, some).log_softmax(-1) for one in pair)
    targets = torch.from_numpy(some.tokens[:, CONTEXT // 2 + 1 :].reshape(-1))
    for found, wanted in ((reference, expected), (model, other)):
        surprise = -wanted.gather(1, targets[:, None]).squeeze(1)
        np.testing.assert_allclose(found.surprise, surprise, atol=2e-5)
        assert found.perplexity == pytest.approx(surprise.mean().exp().item(), rel=1e-5)
    kl = (expected.exp() * (expected - other)).sum(-1).numpy()
    assert kl.mean() > 0.01
    np.testing.assert_allclose(model.kl, kl, atol=1e-5)
    np.testing.assert_array_equal(model.same, (expected.argmax(-1) == other.argmax(-1)).numpy())
    assert 0 < model.top1 < 1
    assert not reference.kl.any()
    assert reference.same.all()
    assert model.kl_mean == pytest.approx(kl.mean(), rel=1e-4)
    assert model.kl_at(99) == pytest.approx(np.percentile(kl, 99), rel=1e-4)
    assert model.kl_stderr == pytest.approx(kl.std(ddof=1) / len(kl) ** 0.5, rel=1e-3)


def test_a_model_is_not_apart_from_itself(pair, some):
    found = run([pair[0], pair[0]], some)[1]
    assert not found.kl.any()
    assert found.top1 == 1


def test_the_number_of_threads_changes_nothing(pair, some):
    for one, two in zip(run(pair, some, 1), run(pair, some, 3), strict=True):
        np.testing.assert_array_equal(one.surprise, two.surprise)
        np.testing.assert_array_equal(one.kl, two.kl)


def test_another_device_takes_several_chunks_at_a_time(pair, some):
    import torch

    with torch.no_grad():
        found = evaluate([pair[0], *pair], some, device=Device(torch.device("cpu"), None), progress=ignore)
    for one, two in zip(run([pair[0], *pair], some), found, strict=True):
        np.testing.assert_allclose(one.surprise, two.surprise, atol=1e-5)
        np.testing.assert_allclose(one.kl, two.kl, atol=1e-5)
    assert not found[1].kl.any()


def test_the_text_side_of_a_multimodal_model(pair, some, tmp_path):
    folder = write_checkpoint(tmp_path / "gemma-3-eye", TINY, prefix="language_model.model.", seed=1)
    text = json.loads((folder / "config.json").read_text())
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    (folder / "config.json").write_text(json.dumps(whole))
    found = run([pair[0], open_source(str(folder))], some)[1]
    assert not found.kl.any()


def test_an_untied_head_and_a_cap_count(tmp_path, some):
    import torch

    folder = write_checkpoint(tmp_path / "gemma-3-untied", replace(TINY, final_logit_softcapping=0.5), seed=5)
    head = np.random.default_rng(6).standard_normal((TINY.vocab_size, TINY.hidden_size)).astype(np.float32)
    shape = (TINY.vocab_size, TINY.hidden_size)
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    write_safetensors(folder / "b.safetensors", {"lm_head.weight": ("F32", shape)}, {"lm_head.weight": head})
    from safetensors import safe_open

    with safe_open(folder / "a.safetensors", "np") as file:
        weight_map = dict.fromkeys(file.keys(), "a.safetensors") | {"lm_head.weight": "b.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    model = open_source(str(folder))
    expected = naive(model, some)
    assert expected.abs().max() <= 0.5
    found = run([model, model], some)[1]
    targets = torch.from_numpy(some.targets)
    wanted = -expected.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    np.testing.assert_allclose(found.surprise, wanted, atol=2e-5)


def test_damaged_weights_are_told(tmp_path, some):
    import torch
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint(tmp_path / "gemma-3-nan", TINY)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][7, 3] = torch.inf
    save_file(tensors, folder / "model.safetensors")
    model = open_source(str(folder))
    with pytest.raises(InputError, match=r"not finite|infinite"):
        run([model, model], some)
    tokens = np.where(some.tokens == 7, 8, some.tokens)
    with pytest.raises(InputError, match="logits are not finite"):
        run([model, model], Chunks(tokens, 7))


# Kept activations


def test_what_the_reference_computed_is_kept(pair, some, tmp_path):
    reports: list[Progress] = []
    first = run(pair, some, folder=tmp_path / "new/cache", progress=reports.append)
    assert pair[0].location in {progress.task for progress in reports}
    reports.clear()
    again = run(pair, some, folder=tmp_path / "new/cache", progress=reports.append)
    assert pair[0].location not in {progress.task for progress in reports}
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.surprise, two.surprise)
        np.testing.assert_array_equal(one.kl, two.kl)
    (entry,) = (tmp_path / "new/cache").iterdir()
    assert entry.suffix == ".npy"


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "other"])
def test_a_damaged_entry_is_made_anew(pair, some, tmp_path, damage):
    first = run(pair, some, folder=tmp_path)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    bit = bytearray(whole)
    bit[len(bit) // 2] ^= 1
    entry.write_bytes({"cut": whole[:-100], "bit": bytes(bit), "empty": b"", "other": b"x" * 500}[damage])
    again = run(pair, some, folder=tmp_path)
    np.testing.assert_array_equal(first[1].kl, again[1].kl)
    assert entry.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_no_matter(pair, some, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    found = run(pair, some, folder=file / "cache")
    assert found[1].kl_mean > 0


def test_models_that_cannot_be_compared_are_told(pair):
    model = pair[0]
    check_model(model, pair[1], 2048)
    with pytest.raises(UsageError, match="2048"):
        check_model(model, pair[1], 2050)
    for change, said in (
        ({"vocab_size": 300}, "300 tokens"),
        ({"intermediate_size": 128}, "another model"),
        ({"num_hidden_layers": 6, "layer_pattern": TINY.layer_pattern[:6]}, "it has no"),
    ):
        with pytest.raises(InputError, match=said):
            check_model(replace(model, config=replace(TINY, **change)), model, 64)


@pytest.mark.parametrize("kind", ["effective", "experts"])
def test_a_quantized_gemma_4_is_scored_by_the_logits_of_transformers(kind, tmp_path):
    """In GGUF, and in MLX's layout, whose experts are stacks for each projection."""
    import torch
    from transformers import Gemma4ForCausalLM

    source = gemma4.write(tmp_path / "gemma-4-tiny", gemma4.KINDS[kind])
    gemma4_tokenizer.write(source)
    inprocess.run("convert", source, "--quant", "q4_0", "--to", "gguf", "--to", "mlx", "-q", "-o", tmp_path / "made")
    ids = np.random.default_rng(0).integers(0, 512, (2, 40))
    with torch.no_grad():
        loaded = Gemma4ForCausalLM.from_pretrained(source, dtype=torch.float32, experts_implementation="eager")
        logits = loaded.eval()(input_ids=torch.from_numpy(ids)).logits[:, 20:-1].log_softmax(-1).flatten(0, 1)
    wanted = -logits.gather(1, torch.from_numpy(ids[:, 21:]).reshape(-1, 1)).squeeze(1)
    models = [open_source(str(path)) for path in (source, *((tmp_path / "made" / name) for name in ("gguf", "mlx")))]
    for model in models[1:]:
        check_model(model, models[0], 40)
    scores = run(models, Chunks(ids, 2))
    np.testing.assert_allclose(scores[0].surprise, wanted.numpy(), atol=1e-4)
    for score in scores[1:]:
        assert 0 < score.kl_mean < 1


def test_what_was_interrupted_goes_on_behind_the_last_layer(pair, some, tmp_path, monkeypatch):
    """Each model, the reference first; nothing is kept at the end."""
    wanted, layers = run(pair, some), pair[0].config.num_hidden_layers
    loaded, usual = [], Decoder.layer

    def layer(net, index):
        if len(loaded) in (1, layers + 1):
            loaded.append(None)
            raise KeyboardInterrupt
        loaded.append(index)
        return usual(net, index)

    monkeypatch.setattr(Decoder, "layer", layer)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(pair, some, work=tmp_path / "work")
    found = run(pair, some, work=tmp_path / "work")
    assert len([at for at in loaded if at is not None]) == 2 * layers
    for one, other in zip(found, wanted, strict=True):
        assert (one.surprise == other.surprise).all() and (one.kl == other.kl).all() and (one.same == other.same).all()
    assert list((tmp_path / "work").iterdir()) == []
