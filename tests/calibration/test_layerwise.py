"""GPTQ layer by layer: each layer sees what the quantized layers before it give."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from calibrating import as_f32, dense, naive_inputs, opened, planned, read_back
from damage import SMALL, poison, small_model
from gemmaq.calibration import gptq, layerwise
from gemmaq.calibration.activations import gather, mirror
from gemmaq.calibration.statistics import squares
from gemmaq.calibration.store import Store
from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.errors import InputError
from gemmaq.inference import device as forward
from gemmaq.inference.decoder import Decoder
from gemmaq.methods import Choice, Importance, quantize
from gemmaq.models.gemma3.names import EMBEDDING, input_sites
from gemmaq.planning.recipe import Rule
from gemmaq.progress import ignore
from gemmaq.sources.open import open_source

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


@pytest.mark.parametrize("together", [1, 200, 10_000])
def test_hessians_are_the_products_of_the_inputs(together, model, checkpoint, tokens, monkeypatch):
    """However many sequences are gathered at a time."""
    monkeypatch.setattr("gemmaq.calibration.activations.GATHERED", together)
    inputs = naive_inputs(model, tokens)
    with opened(checkpoint) as net:
        hidden = net.embed(tokens)
        for index in range(net.layers):
            module = net.layer(index)
            before = [part.clone() for part in hidden]
            found = {site: mirror(h) for site, h in layerwise._hessians(net, module, index, hidden).items()}
            assert all((a == b).all() for a, b in zip(before, hidden, strict=True))
            for site, hessian in found.items():
                x = inputs[f"model.layers.{index}.{site}.weight"]
                wanted = x.T @ x
                np.testing.assert_allclose(hessian.numpy(), wanted, atol=1e-5 * np.diag(wanted).max())
                np.testing.assert_array_equal(hessian.numpy(), hessian.numpy().T)
            after = gather(net, index, hidden, module=module, take=lambda *_: None)
            net.through(module, index, hidden)
            assert all((a == b).all() for a, b in zip(after, hidden, strict=True))
            assert not module._forward_pre_hooks and not module.get_submodule("mlp.down_proj")._forward_pre_hooks


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
        wanted = squares(one, many, ignore)
        for name, sums in squares(other, many, ignore).items():
            np.testing.assert_allclose(sums, wanted[name], rtol=1e-4, atol=1e-12)
        first = layerwise.quantize(
            one, many, plans, settings=gptq.Settings(), store=Store(tmp_path / "one"), progress=ignore
        )
        second = layerwise.quantize(
            other, many, plans, settings=gptq.Settings(), store=Store(tmp_path / "other"), progress=ignore
        )
    for name, tensor in first.items():
        assert (read_back(tensor).codes == read_back(second[name]).codes).mean() > 0.98


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
    q4_0, settings, reports = ENCODINGS["q4_0"], gptq.Settings(), []
    with opened(checkpoint) as net:
        found = layerwise.quantize(
            net,
            tokens,
            plans,
            settings=settings,
            store=Store(tmp_path),
            progress=reports.append,
        )
        assert [(report.done, report.total) for report in reports] == [(1, 2), (2, 2)]
        first = {n: p for n, p in plans.items() if n.startswith("model.layers.0.") and len(p.source.shape) == 2}
        before = {
            n: dequantize(q4_0, read_back(found[n]) if n in found else quantize(dense(checkpoint, n), q4_0, p.choice))
            for n, p in first.items()
        }
        assert set(found) == {
            f"model.layers.{n}.{p}.weight"
            for n in range(bool(rules), 2)
            for s in input_sites(SMALL, n).values()
            for p in s
        }
        for other in (before, {}):
            inputs = naive_inputs(model, tokens, other)
            for part in ("self_attn.q_proj", "mlp.gate_proj"):
                name = f"model.layers.1.{part}.weight"
                x = inputs[name]
                known = gptq.invert(as_f32(x.T @ x), settings, group=32, device=net.device)
                codes = gptq.quantize(dense(checkpoint, name), known, q4_0, portable=False, device=net.device).codes
                alike = (codes == read_back(found[name]).codes).mean()
                assert alike > 0.99 if other else alike < 0.98


def test_a_quantized_layer_without_choice_counts_as_rounded(checkpoint, tokens, tmp_path):
    """A plan in which nothing is to be found finds nothing, and changes what later layers get all the same."""
    plans = {p.source.name: p for p in planned(checkpoint, "nearest", "q4_0")[0].tensors}
    with (
        opened(checkpoint) as net,
        patch.object(Decoder, "through", autospec=True, side_effect=Decoder.through) as seen,
    ):
        assert (
            layerwise.quantize(net, tokens, plans, settings=gptq.Settings(), store=Store(tmp_path), progress=ignore)
            == {}
        )
        name = "model.layers.1.mlp.down_proj.weight"
        held = seen.call_args.args[1].get_parameter("mlp.down_proj.weight").numpy()
    wanted = dequantize(ENCODINGS["q4_0"], quantize(dense(checkpoint, name), ENCODINGS["q4_0"], Choice("nearest")))
    np.testing.assert_array_equal(held, wanted)


def test_activations_that_are_not_finite_are_told(tmp_path, text):
    folder = small_model(tmp_path / "gemma-3-tiny")
    poison(folder, EMBEDDING, 0x7F7F, at=SMALL.hidden_size * (4 + ord("a")))
    loud, shown = open_source(str(folder)), np.full((1, 8), 4 + ord("a"))
    plans = planned(loud)
    with opened(loud) as net, pytest.raises(InputError, match="activations after layer 0 are not finite"):
        squares(net, shown, ignore)
    with opened(loud) as net, pytest.raises(InputError, match="not finite"):
        layerwise.quantize(
            net,
            shown,
            {p.source.name: p for p in plans[0].tensors},
            settings=gptq.Settings(),
            store=Store(tmp_path),
            progress=ignore,
        )
