"""Calibration through a model: what matrices are multiplied with, layer after layer as it will be, and nothing left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from damage import SMALL, poison, small_model, tree
from gemmaq.calibration import gptq, imatrix, memory
from gemmaq.calibration import layerwise as feedback
from gemmaq.calibration.activations import add_products, gather, mirrored
from gemmaq.calibration.complete import Basis, Resources, complete, needed, sequences
from gemmaq.calibration.statistics import squares
from gemmaq.calibration.store import Store
from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.rows import read_rows, values_of, weights
from gemmaq.convert.layout import lay_out, make_plans
from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.errors import InputError, OutputError, UsageError
from gemmaq.files.span import Reader
from gemmaq.inference import device as forward
from gemmaq.inference.decoder import Decoder, decoder
from gemmaq.inference.documents import Text, read
from gemmaq.methods import METHODS, Choice, Importance, quantize
from gemmaq.models.gemma3.names import EMBEDDING, to_gguf
from gemmaq.models.gemma3.names import INPUT_SITES as SITES
from gemmaq.planning.plan import Plan
from gemmaq.planning.recipe import Rule, of
from gemmaq.planning.request import Calibration, Request
from gemmaq.sources.open import open_source
from inprocess import run
from oracles import need

CONTEXT = 80
MATRICES = 7 * SMALL.num_hidden_layers


@pytest.fixture(scope="module", autouse=True)
def _torch(require: Callable[[bool, str], None]) -> None:
    need(require, "torch", "transformers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "gemma-3-tiny", seed=5)


@pytest.fixture(scope="module")
def checkpoint(model: Path) -> Checkpoint:
    return open_source(str(model))


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, SMALL.vocab_size, (5, CONTEXT))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of bytes in some order."""
    path = tmp_path_factory.mktemp("text") / "letters.txt"
    path.write_text("".join(chr(32 + (n * n * 7 + n // 13) % 90) for n in range(900)))
    return path


@pytest.fixture(scope="module")
def text(file: Path) -> Text:
    return read([file])


@contextmanager
def opened(checkpoint: Checkpoint, threads: int = 2) -> Iterator[Decoder]:
    with forward.open_device("cpu", threads) as device, decoder(checkpoint, device) as made:
        yield made


def nobody(*_: object) -> None:
    """Is told of progress."""


def naive_inputs(
    model: Path, tokens: np.ndarray, changed: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Matrix -> what it is multiplied with in transformers, f64 [tokens, columns]; some weights others than stored."""
    import torch
    from transformers import Gemma3ForCausalLM

    loaded, found = Gemma3ForCausalLM.from_pretrained(model, dtype=torch.float32).eval(), dict[str, Any]()
    for name, values in (changed or {}).items():
        loaded.get_parameter(name).data.copy_(torch.from_numpy(values))
    for name, module in loaded.model.layers.named_modules(prefix="model.layers"):
        if isinstance(module, torch.nn.Linear):
            key = f"{name}.weight"
            module.register_forward_pre_hook(
                lambda _, x, key=key: found.__setitem__(key, x[0].reshape(-1, x[0].shape[-1]))
            )
    with torch.no_grad():
        loaded(input_ids=torch.from_numpy(tokens))
    return {name: values.double().numpy() for name, values in found.items()}


# What is gathered


def test_sites_are_the_inputs_that_matrices_share(model, checkpoint, tokens):
    inputs = naive_inputs(model, tokens)
    assert len(inputs) == MATRICES
    sharing = {part: site for site, parts in SITES.items() for part in parts}
    assert sorted(f"model.layers.{n}.{part}.weight" for n in range(2) for part in sharing) == sorted(inputs)
    for part, site in sharing.items():
        np.testing.assert_array_equal(inputs[f"model.layers.1.{part}.weight"], inputs[f"model.layers.1.{site}.weight"])
    four = [inputs[f"model.layers.1.{site}.weight"] for site in SITES]
    assert all(a.shape != b.shape or (a != b).any() for n, a in enumerate(four) for b in four[:n])


@pytest.mark.parametrize("together", [1, 200, 10_000])
def test_hessians_are_the_products_of_the_inputs(together, model, checkpoint, tokens, monkeypatch):
    """However many sequences are gathered at a time."""
    monkeypatch.setattr("gemmaq.calibration.activations.GATHERED", together)
    inputs = naive_inputs(model, tokens)
    with opened(checkpoint) as made:
        hidden = made.embed(tokens)
        for index in range(made.layers):
            module = made.layer(index)
            before = [part.clone() for part in hidden]
            found = {site: mirrored(h) for site, h in feedback._hessians(made, module, index, hidden).items()}
            assert all((a == b).all() for a, b in zip(before, hidden, strict=True))
            for site, hessian in found.items():
                x = inputs[f"model.layers.{index}.{site}.weight"]
                wanted = x.T @ x
                np.testing.assert_allclose(hessian.numpy(), wanted, atol=1e-5 * np.diag(wanted).max())
                np.testing.assert_array_equal(hessian.numpy(), hessian.numpy().T)
            after = gather(made, module, index, hidden, lambda *_: None)
            made.through(module, index, hidden)
            assert all((a == b).all() for a, b in zip(after, hidden, strict=True))
            assert not module._forward_pre_hooks and not module.get_submodule("mlp.down_proj")._forward_pre_hooks


def test_products_of_many_columns_are_whole(checkpoint):
    """More columns than a panel has, and no multiple of it."""
    import torch

    x = torch.from_numpy(np.random.default_rng(1).standard_normal((40, 1100)).astype(np.float32))
    with opened(checkpoint, 3) as made:
        hessian = torch.zeros(1100, 1100)
        for part in (x[:15], x[15:]):
            add_products(hessian, part, made)
    np.testing.assert_allclose(mirrored(hessian).numpy(), (x.double().T @ x.double()).numpy(), atol=1e-4)


def test_statistics_are_those_of_a_naive_pass(model, checkpoint, tokens):
    inputs, told = naive_inputs(model, tokens), []
    with opened(checkpoint) as made:
        found = squares(made, tokens, lambda *what: told.append(what[1:]))
    assert set(found) == set(inputs) and told == [(1, 2), (2, 2)]
    for name, sums in found.items():
        np.testing.assert_allclose(sums, np.square(inputs[name]).sum(axis=0), rtol=2e-4, atol=1e-12)
    with opened(checkpoint, 1) as made:
        for name, sums in squares(made, tokens, nobody).items():
            np.testing.assert_array_equal(sums, found[name])


def test_sequences_go_together_where_no_workers_do(checkpoint, tokens, tmp_path):
    """As on a GPU: eight at a time, the last few fewer."""
    import torch

    many = np.concatenate([tokens, tokens[::-1]])
    plans = {p.source.name: p for p in planned(checkpoint)[0].tensors}
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
    with opened(checkpoint) as one, torch.no_grad():
        other = replace(one, device=forward.Device(torch.device("cpu"), None))
        assert [len(part) for part in other.embed(many)] == [8, 2]
        wanted = squares(one, many, nobody)
        for name, sums in squares(other, many, nobody).items():
            np.testing.assert_allclose(sums, wanted[name], rtol=1e-4, atol=1e-12)
        first = feedback.solve(one, many, plans, gptq.Settings(), Store(tmp_path / "one"), nobody)
        second = feedback.solve(other, many, plans, gptq.Settings(), Store(tmp_path / "other"), nobody)
    for name, tensor in first.items():
        assert (read_back(tensor).codes == read_back(second[name]).codes).mean() > 0.98


def test_the_file_of_imatrix_holds_the_statistics(model, checkpoint, file, text, tmp_path):
    out = tmp_path / "imatrix.gguf"
    run("imatrix", model, "-o", out, "--text", file, "--calibration-context", CONTEXT, "-q")
    shown = sequences(checkpoint, text, Calibration(text.names, text.digest, context=CONTEXT))
    assert len(shown) > 9
    inputs, found = naive_inputs(model, shown), imatrix.read(out)
    imatrix.check(found, checkpoint)
    assert (found.datasets, found.chunks, found.chunk_size) == (("letters.txt",), len(shown), CONTEXT)
    assert set(found.entries) == {to_gguf(name) for name in inputs}
    for name, x in inputs.items():
        np.testing.assert_allclose(found.importance(to_gguf(name)), np.square(x).mean(axis=0), rtol=2e-4, atol=1e-12)


def test_activations_that_are_not_finite_are_told(tmp_path, text):
    folder = small_model(tmp_path / "gemma-3-tiny")
    poison(folder, EMBEDDING, 0x7F7F, at=SMALL.hidden_size * (4 + ord("a")))
    loud, shown = open_source(str(folder)), np.full((1, 8), 4 + ord("a"))
    plans = planned(loud)
    with opened(loud) as made, pytest.raises(InputError, match="activations after layer 0 are not finite"):
        squares(made, shown, nobody)
    with opened(loud) as made, pytest.raises(InputError, match="not finite"):
        feedback.solve(
            made, shown, {p.source.name: p for p in plans[0].tensors}, gptq.Settings(), Store(tmp_path), nobody
        )


# Through the model


def planned(
    checkpoint: Checkpoint, method: str = "gptq", quant: str = "q4_0", to: str = "gguf", rules: Any = ()
) -> list[Plan]:
    return make_plans(checkpoint, Request(of(quant, None, method, rules), (to,)), {})


def read_back(tensor) -> Any:
    with Reader() as reader:
        return values_of(tensor, read_rows(tensor, 0, tensor.rows, reader, bytearray()))


def dense(checkpoint: Checkpoint, name: str) -> np.ndarray:
    tensor = checkpoint.tensors[name]
    with Reader() as reader:
        return weights(tensor, 0, tensor.rows, reader)


@pytest.mark.parametrize("method", ["gptq", "importance"])
def test_a_layer_is_calibrated_on_what_the_quantized_ones_before_it_give(method, model, checkpoint, tokens, tmp_path):
    """Codes of a layer are those for the inputs it has in a model with codes in all layers before it, in its own none.

    With method importance for the layer before, it counts as it will be written too.
    """
    rules = () if method == "gptq" else (Rule("model.layers.0.*", None, "importance"),)
    plans = {p.source.name: p for p in planned(checkpoint, rules=rules)[0].tensors}
    if rules:
        ones = {n: Importance(np.ones(p.source.columns, np.float32)) for n, p in plans.items()}
        plans = {
            n: replace(p, choice=replace(p.choice, importance=ones[n] if p.choice.method == method else None))
            for n, p in plans.items()
        }
    q4_0, settings, told = ENCODINGS["q4_0"], gptq.Settings(), []
    with opened(checkpoint) as made:
        found = feedback.solve(made, tokens, plans, settings, Store(tmp_path), lambda *what: told.append(what[1:]))
        assert told == [(1, 2), (2, 2)]
        first = {n: p for n, p in plans.items() if n.startswith("model.layers.0.") and len(p.source.shape) == 2}
        before = {
            n: dequantize(q4_0, read_back(found[n]) if n in found else quantize(dense(checkpoint, n), q4_0, p.choice))
            for n, p in first.items()
        }
        assert set(found) == {
            f"model.layers.{n}.{p}.weight" for n in range(bool(rules), 2) for s in SITES.values() for p in s
        }
        for other in (before, {}):
            inputs = naive_inputs(model, tokens, other)
            for part in ("self_attn.q_proj", "mlp.gate_proj"):
                name = f"model.layers.1.{part}.weight"
                x = inputs[name]
                known = gptq.invert(_f32(x.T @ x), settings, group=32, device=made.device)
                codes = gptq.quantize(dense(checkpoint, name), known, q4_0, portable=False, device=made.device).codes
                alike = (codes == read_back(found[name]).codes).mean()
                assert alike > 0.99 if other else alike < 0.98


def _f32(hessian: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(hessian.astype(np.float32))


@pytest.mark.parametrize("name", METHODS["gptq"].encodings)
def test_what_is_stored_is_read(name, checkpoint, tmp_path):
    encoding, random = ENCODINGS[name], np.random.default_rng(0)
    source = checkpoint.tensors["model.layers.0.self_attn.q_proj.weight"]
    x = random.standard_normal(source.shape).astype(np.float32)
    with forward.open_device("cpu", 1) as device:
        known = gptq.invert(_f32(np.eye(source.columns)), gptq.Settings(), group=encoding.block, device=device)
        values = gptq.quantize(x, known, encoding, portable=False, device=device)
    tensor = Store(tmp_path).put(source, encoding, values)
    assert (tensor.name, tensor.shape, tensor.encoding) == (source.name, source.shape, encoding)
    assert (
        tensor.nbytes == sum(path.stat().st_size for path in tmp_path.iterdir()) == source.rows * encoding.row_bytes(64)
    )
    found = read_back(tensor)
    np.testing.assert_array_equal(found.codes, values.codes)
    np.testing.assert_array_equal(found.scales, values.scales)
    assert (found.minima is None) == (values.minima is None) == (encoding.zero is not None)
    if values.minima is not None:
        np.testing.assert_array_equal(found.minima, values.minima)
    with Reader() as reader:  # any rows of it
        np.testing.assert_array_equal(
            values_of(tensor, read_rows(tensor, 5, 7, reader, bytearray())).codes, values.codes[5:12]
        )


# Plans


def settled(checkpoint: Checkpoint, plans: list[Plan], text: Text | None, folder: Path, matrix: Any = None) -> Any:
    basis = Basis(Calibration(("letters.txt",), "", context=CONTEXT), text, matrix)
    return complete(plans, checkpoint, basis, resources=Resources("cpu", 2), near=folder, progress=nobody)


def test_plans_are_completed_in_every_place(checkpoint, text, tmp_path):
    rules = (Rule("*.v_proj.*", None, "importance"), Rule("*.o_proj.*", None, "nearest"))
    plans = planned(checkpoint, rules=rules)
    assert needed(plans) == ("importance", "gptq") and needed(planned(checkpoint, "nearest")) == ()
    with settled(checkpoint, plans, text, tmp_path / "deep/er/out") as ready:
        assert next(tmp_path.iterdir()).name.startswith("out.")
        for plan in ready:
            (artifact,) = lay_out(checkpoint, [plan], Request(plan.recipe, (plan.format,)), tmp_path / "out")
            placed = [at.tensor for f in artifact.files for at in f.placements]
            assert all(a is b for a, b in zip(placed, plan.everything, strict=True))
            for p in plan.tensors:
                if p.choice.method == "gptq":
                    assert p.solved is not None and p.solved.encoding == p.encoding
                    assert read_back(p.solved).codes.shape == p.source.shape
                else:
                    assert p.solved is None
                assert (p.choice.importance is not None) == (p.choice.method == "importance")
    assert tree(tmp_path) == {}
    with settled(checkpoint, planned(checkpoint, "nearest"), None, tmp_path / "out") as ready:
        assert len(ready) == 1 and tree(tmp_path) == {}


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, InputError("x"), ValueError("x")])
@pytest.mark.parametrize("where", ["while solving", "while writing"])
def test_nothing_is_left_after_a_failure(failure, where, checkpoint, text, tmp_path):
    count = 0

    def put(self: Store, *what: Any, real: Any = Store.put) -> Any:
        nonlocal count
        count += 1
        if count == 5 and where == "while solving":
            assert len(tree(tmp_path)) == 5
            raise failure
        return real(self, *what)

    def go() -> None:
        with settled(checkpoint, planned(checkpoint), text, tmp_path / "out"):
            assert where == "while writing" and len(tree(tmp_path)) == MATRICES + 1
            raise failure

    with patch.object(Store, "put", put), pytest.raises(failure if isinstance(failure, type) else type(failure)):
        go()
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("step", ["gemmaq.calibration.store.Store.put", "tempfile.mkdtemp"])
def test_no_room_for_codes_is_told(step, checkpoint, text, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full)
    with (
        pytest.raises(OutputError, match="No space left"),
        settled(checkpoint, planned(checkpoint), text, tmp_path / "out"),
    ):
        pass
    monkeypatch.undo()
    assert tree(tmp_path) == {}


def test_what_cannot_be_calibrated_is_told(checkpoint, model, text, tmp_path):
    for method in ("gptq", "importance"):
        with (
            pytest.raises(UsageError, match=f"method {method} needs"),
            settled(checkpoint, planned(checkpoint, method), None, tmp_path / "out"),
        ):
            pass
    wide = Calibration((), "", context=SMALL.max_position_embeddings + 1)
    with pytest.raises(InputError, match="context of 2049 is longer than the model's 2048"):
        sequences(checkpoint, text, wide)
    run("convert", model, "--quant", "q5_1", "-o", tmp_path / "five", "-q")
    five = open_source(str(tmp_path / "five"))
    request = Request(of("auto", None, "gptq"), ("gguf", "mlx"))
    plans = make_plans(five, request, {})
    with (
        pytest.raises(InputError, match=r"would be Q5_1 in one container and Q4_0 in another"),
        settled(five, plans, text, tmp_path / "out"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["five"]


def test_memory_grows_with_the_model_and_the_tokens():
    tiny = memory(SMALL, 1000)
    assert memory(SMALL, 2000) - tiny >= 2 * 1000 * 4 * SMALL.hidden_size
    assert memory(replace(SMALL, num_hidden_layers=99), 1000) == tiny
    assert memory(replace(SMALL, intermediate_size=960), 1000) > tiny + 3 * 4 * (960**2 - 96**2)


def test_a_quantized_layer_without_choice_counts_as_rounded(checkpoint, tokens, tmp_path):
    """A plan in which nothing is to be found finds nothing, and changes what later layers get all the same."""
    plans = {p.source.name: p for p in planned(checkpoint, "nearest", "q4_0")[0].tensors}
    with (
        opened(checkpoint) as made,
        patch.object(Decoder, "through", autospec=True, side_effect=Decoder.through) as seen,
    ):
        assert feedback.solve(made, tokens, plans, gptq.Settings(), Store(tmp_path), nobody) == {}
        name = "model.layers.1.mlp.down_proj.weight"
        held = seen.call_args.args[1].get_parameter("mlp.down_proj.weight").numpy()
    wanted = dequantize(ENCODINGS["q4_0"], quantize(dense(checkpoint, name), ENCODINGS["q4_0"], Choice("nearest")))
    np.testing.assert_array_equal(held, wanted)
