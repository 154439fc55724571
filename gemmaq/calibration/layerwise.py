"""GPTQ layer by layer: each layer is calibrated on the outputs of the quantized layers before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemmaq import methods
from gemmaq.calibration import gptq
from gemmaq.calibration.activations import add_products, gather, mirror
from gemmaq.calibration.store import Store
from gemmaq.checkpoint import Tensor
from gemmaq.encodings import dequantize
from gemmaq.errors import InputError
from gemmaq.methods import Needs
from gemmaq.planning.plan import PlannedTensor
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import torch

    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.documents import Tokens


def quantize(
    decoder: Decoder,
    tokens: Tokens,
    planned: Mapping[str, PlannedTensor],
    *,
    settings: gptq.Settings,
    store: Store,
    progress: ProgressCallback,
) -> Mapping[str, Tensor]:
    """Quantize every matrix of the layers, and keep the codes of those whose method needs the Hessian of its inputs.

    Memory holds one layer, the Hessians of its inputs, one inverse, and the activations of all tokens.

    Args:
        decoder: the model.
        tokens: i64 [sequences, length] to calibrate on.
        planned: canonical name -> plan of each matrix of the layers.
        settings: settings of GPTQ.
        store: keeps codes and scales on disk.
        progress: called after every layer.

    Returns:
        Canonical name -> codes and scales in the store.

    Raises:
        InputError: activations are not finite, or the Hessian of some inputs cannot be inverted.
    """
    run = _Run(decoder, planned, settings, store)
    hidden: list[torch.Tensor] = decoder.embed(tokens)
    solved: dict[str, Tensor] = {}
    for index in range(decoder.layers):
        solved |= run.layer(index, hidden)
        progress(Progress("calibrating", index + 1, decoder.layers, "layers"))
    return solved


@dataclass(frozen=True, slots=True)
class _Run:
    """GPTQ of one model; the attributes are those of `quantize`."""

    decoder: Decoder
    planned: Mapping[str, PlannedTensor]
    settings: gptq.Settings
    store: Store

    def layer(self, index: int, hidden: list[torch.Tensor]) -> dict[str, Tensor]:
        """Quantize one layer, then replace `hidden` by its outputs with the quantized weights."""
        decoder, solved = self.decoder, {}
        names, module = decoder.checkpoint.family.names, decoder.layer(index)
        hessians = _hessians(decoder, module, index, hidden)
        for site, parts in names.input_sites(decoder.checkpoint.config, index).items():
            plans = {part: self.planned[names.in_layer(index, part)] for part in parts}
            where = names.in_layer(index, site).removesuffix(".weight")
            inverse = self.inverse(hessians.pop(site), plans, where)
            for part, plan in plans.items():
                tensor = self.matrix(module.get_parameter(f"{part}.weight"), plan, inverse)
                if tensor is not None:
                    solved[plan.source.name] = tensor
            del inverse  # as large as the Hessian: it must be gone when the next one is inverted
        decoder.through(module, index, hidden)
        return solved

    def inverse(
        self, hessian: torch.Tensor, plans: Mapping[str, PlannedTensor], where: str
    ) -> gptq.InverseHessian | None:
        """Invert the Hessian of an input site; None if none of its matrices needs it."""
        groups = [plan.encoding.block for plan in plans.values() if plan.needs is Needs.HESSIAN]
        if not groups:
            return None
        try:
            return gptq.invert(mirror(hessian), self.settings, group=max(groups), device=self.decoder.device)
        except InputError as error:
            raise error.at(path=where) from error

    def matrix(self, weight: torch.Tensor, plan: PlannedTensor, inverse: gptq.InverseHessian | None) -> Tensor | None:
        """Quantize a matrix in place; return its codes if they were chosen with the Hessian of its inputs."""
        import torch

        W, encoding, choice, tensor = weight.cpu().numpy(), plan.encoding, plan.choice, None
        if inverse is not None and plan.needs is Needs.HESSIAN:
            values = gptq.quantize(W, inverse, encoding, portable=choice.portable, device=self.decoder.device)
            tensor = self.store.put(plan.source, encoding, values)
        else:
            values = methods.quantize(W, encoding, choice)
        weight.copy_(torch.from_numpy(dequantize(encoding, values)))
        return tensor


def _hessians(
    decoder: Decoder, module: torch.nn.Module, index: int, hidden: list[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """X^T X of the inputs X of every site, f32 [columns, columns], upper triangles only."""
    import torch

    hessians: dict[str, torch.Tensor] = {}

    def add(site: str, inputs: torch.Tensor) -> None:
        if site not in hessians:
            hessians[site] = torch.zeros(inputs.shape[1], inputs.shape[1], device=inputs.device)
        add_products(hessians[site], inputs, decoder)

    gather(decoder, index, hidden, module=module, take=add)
    return hessians
