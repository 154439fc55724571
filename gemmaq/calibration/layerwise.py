"""Method gptq through a whole model: a layer at a time, each for what the quantized layers before it produce."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gemmaq import methods
from gemmaq.calibration import gptq
from gemmaq.calibration.activations import add_products, gather, mirrored
from gemmaq.calibration.store import Store
from gemmaq.checkpoint import Tensor
from gemmaq.encodings import dequantize
from gemmaq.errors import InputError
from gemmaq.planning.plan import PlannedTensor
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import torch

    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.documents import Tokens


def solve(
    decoder: Decoder,
    tokens: Tokens,
    planned: Mapping[str, PlannedTensor],
    settings: gptq.Settings,
    store: Store,
    progress: ProgressCallback,
) -> Mapping[str, Tensor]:
    """Choose the codes of every matrix whose method is gptq; all others count as they will be written.

    Memory holds a layer, the Hessians of its inputs with one factor, and the activations of all tokens.

    Args:
        decoder: of the model.
        tokens: i64 [sequences, length] to calibrate on.
        planned: canonical name -> what is to become of the matrices of the layers.
        settings: of the feedback.
        store: keeps what is found.
        progress: called after every layer.

    Returns:
        Canonical name -> codes and scales, in the store.

    Raises:
        InputError: activations that are not finite, or inputs that nothing can be derived from.
    """
    hidden: list[torch.Tensor] = decoder.embed(tokens)
    found: dict[str, Tensor] = {}
    for index in range(decoder.layers):
        found |= _layer(decoder, index, hidden, planned, settings, store)
        progress(Progress("calibrating", index + 1, decoder.layers, "layers"))
    return found


def _layer(
    decoder: Decoder,
    index: int,
    hidden: list[torch.Tensor],
    planned: Mapping[str, PlannedTensor],
    settings: gptq.Settings,
    store: Store,
) -> dict[str, Tensor]:
    """The same for one layer, whose quantized weights the activations then pass."""
    module, found = decoder.layer(index), {}
    hessians = _hessians(decoder, module, index, hidden)
    names = decoder.checkpoint.family.names
    for site, sharing in names.INPUT_SITES.items():
        wanted = {part: planned[names.in_layer(index, part)] for part in sharing}
        known = _known(hessians, site, wanted, settings, decoder, names.in_layer(index, site).removesuffix(".weight"))
        for part, plan in wanted.items():
            solved = _matrix(module.get_parameter(f"{part}.weight"), plan, known, store, decoder)
            if solved is not None:
                found[plan.source.name] = solved
        del known  # as large as the Hessian: nothing may hold it while the next is worked on
    decoder.through(module, index, hidden)
    return found


def _matrix(
    weight: torch.Tensor, plan: PlannedTensor, known: gptq.InverseHessian | None, store: Store, decoder: Decoder
) -> Tensor | None:
    """Give a matrix of a layer the weights it will have; the codes, if its method is gptq."""
    import torch

    weights, encoding, choice = weight.cpu().numpy(), plan.encoding, plan.choice
    solved = None
    if known is not None and choice.method == "gptq":
        values = gptq.quantize(weights, known, encoding, portable=choice.portable, device=decoder.device)
        solved = store.put(plan.source, encoding, values)
    else:
        values = methods.quantize(weights, encoding, choice)
    weight.copy_(torch.from_numpy(dequantize(encoding, values)))
    return solved


def _hessians(
    decoder: Decoder, module: torch.nn.Module, index: int, hidden: list[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """X X^T of the inputs of every site, f32 [columns, columns], the upper triangle of each."""
    import torch

    hessians: dict[str, torch.Tensor] = {}

    def take(site: str, inputs: torch.Tensor) -> None:
        if site not in hessians:
            hessians[site] = torch.zeros(inputs.shape[1], inputs.shape[1], device=inputs.device)
        add_products(hessians[site], inputs, decoder)

    gather(decoder, module, index, hidden, take)
    return hessians


def _known(
    hessians: dict[str, torch.Tensor],
    site: str,
    wanted: Mapping[str, PlannedTensor],
    settings: gptq.Settings,
    decoder: Decoder,
    where: str,
) -> gptq.InverseHessian | None:
    """What the Hessian of a site says, which is taken out; None if no matrix asks for it."""
    hessian = mirrored(hessians.pop(site))
    blocks = [plan.encoding.block for plan in wanted.values() if plan.choice.method == "gptq"]
    if not blocks:
        return None
    try:
        return gptq.invert(hessian, settings, group=max(blocks), device=decoder.device)
    except InputError as error:
        raise error.at(path=where) from error
