"""One layer of a measurement: errors of its matrices, and all variants of the model through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gemmaq import methods
from gemmaq.calibration import gptq, sensitivity_errors
from gemmaq.calibration.activations import Inputs, gather, mirror, sites, stacks, together
from gemmaq.calibration.hessians import add_products
from gemmaq.calibration.sensitivity_errors import ROWS, Case, Errors, some_rows
from gemmaq.checkpoint import Tensor
from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.inference.device import aligned
from gemmaq.methods import Choice

if TYPE_CHECKING:
    import torch

    from gemmaq.encodings import F32, Encoding
    from gemmaq.inference.batch import Batch
    from gemmaq.inference.decoder import Decoder

_EXPERTS = 4
"""Experts of a layer whose errors are measured: those that most tokens go to."""
_SLAB = 1 << 20


@dataclass(slots=True)
class Gathered:
    """What matrices of a layer get on two parts of the text.

    Attributes:
        decoder: the model.
        watched: input sites of the matrices that are looked at.
        probed: site -> inputs that errors are weighed with.
        routed: site of experts -> all inputs that calibrate.
        hessians: site -> X^T X of the inputs X that calibrate, f32 [columns, columns].
        counts: site -> number of these inputs.
    """

    decoder: Decoder
    watched: Sequence[str]
    probed: dict[str, list[Inputs]] = field(default_factory=dict)
    routed: dict[str, list[Inputs]] = field(default_factory=dict)
    hessians: dict[str, torch.Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def probe(self, site: str, inputs: Inputs) -> None:
        """Take inputs that errors are weighed with."""
        if site in self.watched:
            self.probed.setdefault(site, []).append(inputs)

    def calibrate(self, site: str, inputs: Inputs) -> None:
        """Take inputs that calibrate."""
        import torch

        if site not in self.watched:
            return
        if inputs.chosen is not None:
            self.routed.setdefault(site, []).append(inputs)
            return
        values = inputs.values
        if site not in self.hessians:
            self.hessians[site] = torch.zeros(values.shape[1], values.shape[1], device=values.device)
        add_products(self.hessians[site], values, self.decoder.device)
        self.counts[site] = self.counts.get(site, 0) + len(values)


def through(
    decoder: Decoder,
    index: int,
    module: torch.nn.Module,
    *,
    batches: Sequence[Batch],
    calibrating: Sequence[Batch],
    tensors: Sequence[Tensor],
) -> tuple[list[torch.Tensor], dict[str, list[Case]]]:
    """Send the text through a layer of the unquantized model.

    Args:
        decoder: the model.
        index: number of the layer.
        module: the layer.
        batches: text that variants are run on.
        calibrating: text that codes are solved for; its activations are replaced by those after the layer.
        tensors: matrices of the layer whose errors will be asked for.

    Returns:
        The activations of `batches` after the layer, and canonical name -> cases of these matrices.
    """
    parts = {tensor.place.part: tensor for tensor in tensors}
    watched = {
        site: here
        for site, inside in sites(decoder.checkpoint, index).items()
        if (here := [part for part in inside if part in parts])
    }
    found = Gathered(decoder, tuple(watched))
    after = gather(decoder, index, batches, module=module, take=found.probe)
    if calibrating:
        hidden = gather(decoder, index, calibrating, module=module, take=found.calibrate)
        for batch, states in zip(calibrating, hidden, strict=True):
            batch.hidden = states
    cases: dict[str, list[Case]] = {}
    for site, here in watched.items():
        inputs = together(found.probed[site])
        if inputs.chosen is not None:
            of_experts = _of_experts(decoder, index, module, found=found, site=site, parts=here)
            cases |= {parts[part].name: of_part for part, of_part in of_experts.items()}
            continue
        hessian = mirror(found.hessians[site]) if site in found.hessians else None
        for part in here:
            weights = _sampled(module.get_parameter(f"{part}.weight"), ROWS)
            cases[parts[part].name] = [Case(weights, inputs.values, hessian, found.counts.get(site, 1))]
    return after, cases


def _sampled(weights: torch.Tensor, count: int) -> F32:
    """Some rows of a matrix, f32 [rows, columns]."""
    rows: F32 = weights.detach()[some_rows(len(weights), count)].cpu().numpy()
    return rows


def _of_experts(
    decoder: Decoder, index: int, module: torch.nn.Module, *, found: Gathered, site: str, parts: Sequence[str]
) -> dict[str, list[Case]]:
    """Cases of the experts that most tokens go to; inputs are few, so that errors are weighed with all of them."""
    import torch

    checkpoint, experts = decoder.checkpoint, module.get_submodule(site)
    inputs = together([*found.probed[site], *found.routed.get(site, ())])
    counts = inputs.counts(next(iter(stacks(checkpoint, index).values())).shape[0])
    cases: dict[str, list[Case]] = {part: [] for part in parts}
    for expert in sorted(range(len(counts)), key=lambda at: -counts[at])[:_EXPERTS]:
        seen = checkpoint.family.modules.expert_inputs(experts, expert, inputs.of_expert(expert))
        for part in parts:
            weights = _sampled(experts.get_parameter(part.rpartition(".")[2])[expert], ROWS // _EXPERTS)
            hessian = torch.zeros(weights.shape[1], weights.shape[1], device=seen[part].device)
            add_products(hessian, seen[part], decoder.device)
            cases[part].append(Case(weights, seen[part], mirror(hessian), max(1, len(seen[part]))))
    return cases


def errors_of(
    decoder: Decoder, cases: Sequence[Case], encodings: Sequence[Encoding], *, settings: gptq.Settings, once: bool
) -> tuple[str, Errors]:
    """The type that the model is run with for a matrix, and its errors in all types; see `sensitivity_errors`."""
    errors = sensitivity_errors.errors(cases, encodings, settings, device=decoder.device, once=once)
    return sensitivity_errors.probe(cases, errors), errors


def changed(
    decoder: Decoder, index: int, module: torch.nn.Module, types: Mapping[str, tuple[Tensor, str]]
) -> torch.nn.Module:
    """A layer with some weights in types, rounded to nearest; all others are shared with the layer.

    Args:
        decoder: the model.
        index: number of the layer.
        module: the layer.
        types: part of the layer -> its tensor, and the name of the type.
    """
    import torch

    with torch.device("meta"):
        other: torch.nn.Module = decoder.checkpoint.family.modules.decoder_layer(decoder.config, index)
    state = dict(module.state_dict())
    for part, (tensor, encoding) in types.items():
        key = part + ("" if tensor.name.endswith(part) else ".weight")
        state[key] = rounded(decoder, state[key], ENCODINGS[encoding])
    other.load_state_dict(state, assign=True)
    return other.eval()


def rounded(decoder: Decoder, weights: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Weights in a type, rounded to nearest, in the same shape."""
    rows = weights.reshape(-1, weights.shape[-1])
    out, step = aligned(*rows.shape), max(1, _SLAB // rows.shape[1])

    def run(first: int) -> None:
        x = rows[first : first + step].cpu().numpy()
        out[first : first + step].numpy()[:] = nearest(x, encoding)

    decoder.device.map(run, range(0, len(rows), step))
    return out.reshape(weights.shape).to(weights.device)


def nearest(rows: F32, encoding: Encoding) -> F32:
    """Rows in a type, rounded to nearest, f32 [rows, columns]."""
    return dequantize(encoding, methods.quantize(rows, encoding, Choice("nearest")))
