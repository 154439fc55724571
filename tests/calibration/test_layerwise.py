"""GPTQ layer by layer: each layer sees what those before it give in the source, and is solved for several types."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from calibrating import MATRICES, as_f32, dense, naive_inputs, opened, planned, problems_of, read_back
from damage import SMALL, poison, small_model, tree
from fake_peers import sent
from gemmaq.calibration import gptq, layerwise, traffic
from gemmaq.calibration.activations import mirror
from gemmaq.calibration.hessians import of_layer
from gemmaq.calibration.statistics import squares
from gemmaq.calibration.store import Problem, Store
from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError
from gemmaq.inference import device as forward
from gemmaq.inference.peers import ALONE, Peers
from gemmaq.models.gemma3.names import EMBEDDING, input_sites
from gemmaq.progress import ignore
from gemmaq.sources.open import open_source

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


@pytest.mark.parametrize("together", [1, 200, 10_000])
def test_hessians_are_the_products_of_the_inputs(together, model, checkpoint, tokens, monkeypatch):
    """However many sequences are gathered at a time."""
    monkeypatch.setattr("gemmaq.calibration.activations.GATHERED", together)
    inputs = naive_inputs(model, tokens)
    with opened(checkpoint) as net:
        batches = net.embed(tokens)
        for index in range(net.layers):
            module = net.layer(index)
            before = [batch.hidden.clone() for batch in batches]
            some = [site for site in input_sites(SMALL, index) if together > 1 or "mlp" in site]
            columns = {site: inputs[f"model.layers.{index}.{site}.weight"].shape[1] for site in some}
            hessians, routed, after = of_layer(net, module, index, batches, columns=columns, peers=ALONE)
            found = {site: mirror(h) for site, h in hessians.items()}
            assert list(found) == some and routed == {}
            assert all((a == b.hidden).all() for a, b in zip(before, batches, strict=True))
            for site, hessian in found.items():
                x = inputs[f"model.layers.{index}.{site}.weight"]
                wanted = x.T @ x
                np.testing.assert_allclose(hessian.numpy(), wanted, atol=1e-5 * np.diag(wanted).max())
                np.testing.assert_array_equal(hessian.numpy(), hessian.numpy().T)
            net.through(module, index, batches)
            assert all((a == b.hidden).all() for a, b in zip(after, batches, strict=True))
            assert not module._forward_pre_hooks and not module.get_submodule("mlp.down_proj")._forward_pre_hooks


def test_sequences_go_together_where_no_workers_do(checkpoint, tokens, tmp_path):
    """As on a GPU: eight at a time, the last few fewer."""
    import torch

    many = np.concatenate([tokens, tokens[::-1]])
    problems = problems_of(planned(checkpoint)[0])
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
    with opened(checkpoint) as one, torch.no_grad():
        other = replace(one, device=forward.Device(torch.device("cpu"), None))
        assert [len(batch.places) for batch in other.embed(many)] == [8, 2]
        wanted = squares(one, many, ignore)
        for name, (sums, _) in squares(other, many, ignore).items():
            np.testing.assert_allclose(sums, wanted[name][0], rtol=1e-4, atol=1e-12)
        first = layerwise.quantize(
            one, many, problems, settings=gptq.Settings(), store=Store(tmp_path / "one"), progress=ignore
        )
        second = layerwise.quantize(
            other, many, problems, settings=gptq.Settings(), store=Store(tmp_path / "other"), progress=ignore
        )
    for problem, tensor in first.tensors.items():
        assert (read_back(tensor).codes == read_back(second.tensors[problem]).codes).mean() > 0.98


def test_a_layer_is_calibrated_on_what_those_before_it_give_in_the_source(model, checkpoint, tokens, tmp_path):
    """Whatever is quantized beside a matrix, its codes are the same."""
    problems, q4_0, reports = problems_of(planned(checkpoint)[0]), ENCODINGS["q4_0"], []
    inputs = naive_inputs(model, tokens)
    with opened(checkpoint) as net:
        settings, store = gptq.Settings(), Store(tmp_path)
        found = layerwise.quantize(net, tokens, problems, settings=settings, store=store, progress=reports.append)
        assert [(report.done, report.total) for report in reports] == [(1, 2), (2, 2)]
        assert set(found.tensors) == set(problems) and len(problems) == MATRICES
        for problem, tensor in found.tensors.items():
            assert tensor.encoding == q4_0 and tensor.shape == problem.source.shape
            name = problem.source.name
            x = inputs[name]
            known = gptq.invert(as_f32(x.T @ x), settings, blocks=gptq.Blocks(32), device=net.device)
            codes = gptq.quantize(dense(checkpoint, name), known, q4_0, portable=False, device=net.device).codes
            assert (codes == read_back(tensor).codes).mean() > 0.99


def test_several_types_from_one_pass_are_those_of_single_runs(checkpoint, tokens, tmp_path):
    kinds = (("q4_0", False), ("q4_0", True), ("iq4_nl", False), ("affine4", False), ("affine8-g64", False))
    sources = [t for n, t in checkpoint.matrices.items() if t.columns % 64 == 0]
    sets = [[Problem(t, ENCODINGS[n], p) for t in sources] for n, p in kinds]
    passes = Passes(checkpoint, tokens, tmp_path)
    together = passes.files([p for some in sets for p in some] + sets[0])
    apart = [passes.files(some) for some in sets]
    assert together == {name: content for files in apart for name, content in files.items()}
    assert len(together) == sum(map(len, apart)) > len(kinds) * len(sources)


@dataclass
class Passes:
    """Runs of `quantize` for one text."""

    checkpoint: Checkpoint
    tokens: np.ndarray
    folder: Path
    count: int = 0

    def files(self, problems: list[Problem]) -> dict[str, bytes]:
        """The stored files."""
        self.count += 1
        place = self.folder / str(self.count)
        place.mkdir()
        with opened(self.checkpoint) as net:
            solved = layerwise.quantize(
                net, self.tokens, problems, settings=gptq.Settings(), store=Store(place), progress=ignore
            )
        assert set(solved.tensors) == set(problems)
        return tree(place)


def test_where_nothing_is_to_be_solved_nothing_is(checkpoint, tokens, tmp_path):
    assert Passes(checkpoint, tokens, tmp_path).files([]) == {}
    one = problems_of(planned(checkpoint)[0])[-1:]
    assert len(Passes(checkpoint, tokens, tmp_path, 1).files(one)) == 1


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
            problems_of(plans[0]),
            settings=gptq.Settings(),
            store=Store(tmp_path),
            progress=ignore,
        )


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_choose_the_same_codes_and_send_what_was_said(processes, checkpoint, tokens, tmp_path):
    """Hessians, codes, and a few numbers beside them. Matrices of more rows than a lane are shared."""
    many, problems = np.concatenate([tokens] * 8), problems_of(planned(checkpoint)[0])
    assert max(problem.source.rows for problem in problems) > gptq.LANES

    def run(peers: Peers, place: str = "several") -> None:
        with opened(checkpoint, 1) as net:
            store = Store(tmp_path / place)
            layerwise.quantize(net, many, problems, settings=gptq.Settings(), store=store, progress=ignore, peers=peers)

    for place in ("alone", "several"):
        (tmp_path / place).mkdir()
    run(ALONE, "alone")
    found, said = sent(processes, run), traffic(SMALL, many.size, processes)
    assert tree(tmp_path / "several") == tree(tmp_path / "alone")
    codes = sum(path.stat().st_size for path in (tmp_path / "several").iterdir())
    assert said / 3 < found <= said + codes + (20 << 10)
