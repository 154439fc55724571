"""Teacher and student networks: decoder layers of transformers with our own matrices in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, UsageError
from gemmaq.inference.decoder import Decoder
from gemmaq.models.family import Family
from gemmaq.qat import fake_quant, grids, layer_inputs
from gemmaq.qat.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from gemmaq.qat.warm_start import WarmStart


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """How a network computes.

    Attributes:
        grid: grid that the forward pass rounds matrices to, None for a teacher.
        activations: whether the inputs of matrices are rounded to eight bits.
        dtype: dtype of matrix products.
        norms: whether the norm weights are trained.
        recompute: whether the backward pass recomputes activations instead of keeping them.
    """

    grid: grids.Grid | None
    activations: bool
    dtype: torch.dtype
    norms: bool = False
    recompute: bool = False


def specs(settings: Settings) -> tuple[NetworkSpec, NetworkSpec]:
    """The teacher and the student of a training."""
    import torch

    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[settings.dtype]
    student = NetworkSpec(
        grid=grids.find(settings.grid),
        activations=settings.activations,
        dtype=dtype,
        norms=settings.norms,
        recompute=settings.recompute,
    )
    return NetworkSpec(grid=None, activations=False, dtype=dtype), student


def check_models(source: Checkpoint, start: Checkpoint | None, settings: Settings) -> None:
    """Fail early where teacher or student cannot be trained.

    Raises:
        UsageError: the model has experts.
        InputError: the model predicts no tokens, its head is not tied to the embedding, the models differ, or a row
            does not divide into blocks.
    """
    if source.family.embeds:
        raise InputError(
            f"is an {source.family.title}: it makes vectors of texts and predicts no tokens, which training needs",
            "gemmaq convert quantizes it without training",
            path=source.location,
        )
    if any(layer.experts is not None for layer in source.config.layers):
        raise UsageError(
            "a model with experts cannot be trained",
            "gemmaq convert --method gptq (or importance) calibrates every expert on text instead",
            path=source.location,
        )
    for checkpoint in (source, start):
        if checkpoint is not None and checkpoint.head is not None:
            raise InputError(
                f"has an untied head, {checkpoint.head.name}; training needs a head that is tied to the embedding",
                "gemmaq convert quantizes it without training",
                path=checkpoint.location,
            )
    for name, tensor in source.tensors.items():
        other = tensor if start is None else start.tensors.get(name)
        if start is not None and (other is None or other.shape != tensor.shape):
            what = "lacks" if other is None else f"has the shape {list(other.shape)}, not {list(tensor.shape)}, for"
            raise InputError(
                f"teacher and student are different models: {start.location} {what} {name} of {source.location}",
                "--start takes the same model, quantized or not",
            )
    block = grids.find(settings.grid).block or 1
    for name, tensor in source.matrices.items():
        if tensor.columns % block:
            raise InputError(
                f"has rows of {tensor.columns} weights, which do not divide into blocks of {block}",
                "--grid int4-channel has one scale per row",
                path=source.location,
                tensor=name,
            )


def layer(decoder: Decoder, index: int, spec: NetworkSpec, warm_start: WarmStart | None = None) -> nn.Module:
    """A decoder layer with the weights of a checkpoint, its matrices and norms as specified."""
    import torch
    from torch import nn

    module = decoder.layer(index)
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.Linear):
            parent, _, leaf = name.rpartition(".")
            tensor_name = decoder.checkpoint.family.names.in_layer(index, name)
            on_grid = warm_start.matrix(tensor_name) if warm_start else None
            weight, scales = (part.weight.detach(), None) if on_grid is None else map(torch.from_numpy, on_grid)
            setattr(module.get_submodule(parent), leaf, _matrix(weight, spec, scales))
        elif hasattr(part, "weight") and not spec.norms:
            _freeze(part)
        elif hasattr(part, "weight"):
            part.weight.requires_grad_(True)
    return module


def _freeze(part: nn.Module) -> None:
    """Turn a weight into a buffer, which neither the optimizer nor FSDP touches."""
    weight: Any = part.weight
    del part.weight
    part.register_buffer("weight", weight.detach())


def _matrix(weight: torch.Tensor, spec: NetworkSpec, scales: torch.Tensor | None) -> nn.Module:
    matrix: nn.Module = _classes()["Matrix"](weight, spec, scales)
    return matrix


@cache
def _classes() -> dict[str, Any]:
    """The module classes; they are created once torch is imported."""
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.utils.checkpoint import checkpoint as recomputed

    class Matrix(nn.Module):
        """A matrix without bias: the teacher's weights in BF16, or the student's latent weights in f32."""

        scales: torch.Tensor | None

        def __init__(self, weight: torch.Tensor, spec: NetworkSpec, scales: torch.Tensor | None) -> None:
            super().__init__()
            trained = spec.grid is not None
            self.spec = spec
            self.register_buffer("scales", scales, persistent=False)
            self.weight = nn.Parameter(weight.float() if trained else weight.to(torch.bfloat16), requires_grad=trained)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            spec = self.spec
            if spec.grid is None:
                weight = self.weight.to(spec.dtype)
            else:
                weight = fake_quant.weights(self.weight, spec.grid, spec.dtype, self.scales)
            inputs = fake_quant.activations(x) if spec.activations else x
            return functional.linear(inputs.to(spec.dtype), weight)

    class Network(nn.Module):
        """Embedding, decoder layers and final norm: tokens -> inputs of the head."""

        def __init__(
            self, decoder: Decoder, spec: NetworkSpec, layers: list[nn.Module], *, rows: Any, tokens: NDArray[np.int64]
        ) -> None:
            super().__init__()
            checkpoint, self.config, self.spec = decoder.checkpoint, decoder.config, spec
            self.family_modules = checkpoint.family.modules
            self.kinds = self.family_modules.attention_kinds(decoder.config)
            self.embedding_scale = self.family_modules.embedding_scale(checkpoint.config)
            self.epsilon = checkpoint.config.rms_norm_eps
            norm = torch.from_numpy(decoder.read(checkpoint.final_norm))
            self.layers = nn.ModuleList(layers)
            if spec.norms:
                self.norm = nn.Parameter(norm)
            else:
                self.register_buffer("norm", norm)
            if isinstance(rows, nn.Parameter):
                self.embedding = rows
            else:
                self.register_buffer("embedding", rows, persistent=False)
            self.rotary = self.family_modules.rotary_embedding(decoder.config)
            self.layer_inputs = layer_inputs.make(decoder, tokens, spec.dtype)

        def hidden(self, ids: torch.Tensor) -> torch.Tensor:
            hidden = functional.embedding(ids, self.embedding).float() * self.embedding_scale
            positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
            make_mask = self.family_modules.attention_mask
            masks = {kind: make_mask(self.config, kind, hidden, positions) for kind in set(self.kinds)}
            rotations = {kind: self.rotary(hidden, positions, kind) for kind in set(self.kinds)}
            run, beside = self.family_modules.run, self.layer_inputs(ids, hidden)
            shared: Mapping[str, Any] = {}
            for kind, module, layer_input in zip(self.kinds, self.layers, beside, strict=True):
                attention = {
                    "position_embeddings": rotations[kind],
                    "attention_mask": masks[kind],
                    "position_ids": positions,
                }
                call = (module, hidden, layer_input, shared, attention)
                if self.spec.recompute and torch.is_grad_enabled():
                    hidden, shared = recomputed(run, *call, use_reentrant=False)
                else:
                    hidden, shared = run(*call)
            normed: torch.Tensor = self.family_modules.rms_norm(hidden, self.norm, self.epsilon)
            return normed

        def forward(self, ids: torch.Tensor, head_fn: Callable[[torch.Tensor, torch.Tensor], Any]) -> Any:
            """Apply `head_fn(hidden, embedding)` to the inputs of the head, f32 [batch, length, hidden]."""
            with torch.autocast(ids.device.type, self.spec.dtype, enabled=self.spec.dtype != torch.float32):
                hidden = self.hidden(ids)
            return head_fn(hidden, self.embedding)

    return {"Matrix": Matrix, "Network": Network}


def network(
    decoder: Decoder,
    spec: NetworkSpec,
    rows: torch.Tensor,
    *,
    tokens: NDArray[np.int64],
    warm_start: WarmStart | None = None,
) -> nn.Module:
    """All layers of a model in memory.

    Args:
        decoder: gives the weights.
        spec: how the network computes.
        rows: rows of the embedding, [vocabulary, hidden]; a parameter if it is trained.
        tokens: distinct tokens that the network will see, i64 [tokens].
        warm_start: matrices that begin on the grid.
    """
    layers = [layer(decoder, index, spec, warm_start) for index in range(decoder.layers)]
    whole: nn.Module = _classes()["Network"](decoder, spec, layers, rows=rows, tokens=tokens)
    return whole.to(decoder.device.torch_device)


def embedding(decoder: Decoder) -> torch.Tensor:
    """The rows of the embedding, bf16 [vocabulary, hidden]."""
    import torch

    from gemmaq.checkpoint.rows import weights

    tensor = decoder.checkpoint.embedding
    rows = torch.empty(tensor.shape, dtype=torch.bfloat16)
    step = max(1, (1 << 22) // tensor.columns)
    for first in range(0, tensor.rows, step):
        count = min(step, tensor.rows - first)
        rows[first : first + count] = torch.from_numpy(weights(tensor, first, count, decoder.reader))
    return rows.to(decoder.device.torch_device)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters of a network or a layer, by their names in the module."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def canonical(name: str, family: Family) -> str:
    """The canonical name of a network's parameter."""
    name = name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")
    layers, _, rest = name.partition(".")
    if layers != "layers":
        return {"norm": family.names.FINAL_NORM, "embedding": family.names.EMBEDDING}[name]
    index, _, part = rest.partition(".")
    return family.names.in_layer(int(index), part.removesuffix(".weight"))


def scales(module: nn.Module) -> dict[str, torch.Tensor]:
    """The fixed scales of matrices with a warm start, by the names of their weights in the module."""
    buffers = module.named_buffers()
    return {name.removesuffix("scales") + "weight": buffer for name, buffer in buffers if name.endswith(".scales")}
