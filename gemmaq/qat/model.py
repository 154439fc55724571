"""Teacher and student: the decoder layers of transformers with our own matrices in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError
from gemmaq.inference.decoder import Decoder
from gemmaq.models.gemma3 import names
from gemmaq.qat import fake_quant as fake
from gemmaq.qat import grids
from gemmaq.qat.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.qat.warm_start import Begun

_KINDS = ("sliding_attention", "full_attention")


@dataclass(frozen=True, slots=True)
class Role:
    """What a network is made for.

    Attributes:
        grid: its matrices are put on in the forward pass, None for a teacher.
        activations: whether inputs are rounded to eight bits.
        dtype: of the matrix products.
        norms: whether the norms are trained.
        recompute: whether activations are computed a second time instead of kept.
    """

    grid: grids.Grid | None
    activations: bool
    dtype: torch.dtype
    norms: bool = False
    recompute: bool = False


def roles(settings: Settings) -> tuple[Role, Role]:
    """Teacher's and student's."""
    import torch

    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[settings.dtype]
    grid = grids.find(settings.grid)
    student = Role(grid, settings.activations, dtype, settings.norms, settings.recompute)
    return Role(None, False, dtype), student


def matrices(checkpoint: Checkpoint) -> list[str]:
    """Names of the matrices of the layers: what is quantized."""
    return [
        name
        for name, tensor in checkpoint.tensors.items()
        if len(tensor.shape) == 2 and name not in (names.EMBEDDING, names.HEAD)
    ]


def check_start(source: Checkpoint, start: Checkpoint, grid: grids.Grid) -> None:
    """See to it that the student can begin where it is to begin, and lie on the grid.

    Raises:
        InputError: the models differ, or a row does not divide into blocks.
    """
    for name, tensor in source.tensors.items():
        other = start.tensors.get(name)
        if other is None or other.shape != tensor.shape:
            what = "lacks" if other is None else f"has the shape {list(other.shape)}, not {list(tensor.shape)}, for"
            raise InputError(
                f"teacher and student are different models: {start.location} {what} {name} of {source.location}",
                "--start takes the same model, quantized or not",
            )
    block = grid.block or 1
    for name in matrices(source):
        if source.tensors[name].columns % block:
            raise InputError(
                f"tensor {name} has rows of {source.tensors[name].columns} weights, which do not divide into "
                f"blocks of {block}",
                "--grid int4-channel has a scale a row",
            )


def layer(decoder: Decoder, index: int, role: Role, begun: Begun | None = None) -> nn.Module:
    """A decoder layer in its role, from the weights of a checkpoint; some matrices may begin on a grid."""
    import torch
    from torch import nn

    module = decoder.layer(index)
    for name, part in list(module.named_modules()):
        if isinstance(part, nn.Linear):
            parent, _, leaf = name.rpartition(".")
            found = begun.matrix(f"model.layers.{index}.{name}.weight") if begun else None
            weight, scales = (part.weight.detach(), None) if found is None else map(torch.from_numpy, found)
            setattr(module.get_submodule(parent), leaf, _matrix(weight, role, scales))
        elif hasattr(part, "weight") and not role.norms:
            _freeze(part)
        elif hasattr(part, "weight"):
            part.weight.requires_grad_(True)
    return module


def _freeze(part: nn.Module) -> None:
    """A weight that nobody trains, kept out of the optimizer's and of FSDP's way."""
    weight: Any = part.weight
    del part.weight
    part.register_buffer("weight", weight.detach())


def _matrix(weight: torch.Tensor, role: Role, scales: torch.Tensor | None) -> nn.Module:
    """The matrix in its role; the classes are made when torch is there."""
    if not _CLASSES:
        _CLASSES.update(_classes())
    made: nn.Module = _CLASSES["Matrix"](weight, role, scales)
    return made


def _classes() -> dict[str, Any]:
    import torch
    from torch import nn
    from torch.nn import functional
    from torch.utils.checkpoint import checkpoint as recomputed

    class Matrix(nn.Module):
        """A matrix without bias: a teacher's in the dtype of the products, or a student's f32 latents."""

        scales: torch.Tensor | None

        def __init__(self, weight: torch.Tensor, role: Role, scales: torch.Tensor | None) -> None:
            super().__init__()
            trained = role.grid is not None
            self.role = role
            self.register_buffer("scales", scales, persistent=False)
            self.weight = nn.Parameter(weight.float() if trained else weight.to(torch.bfloat16), requires_grad=trained)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            role = self.role
            if role.grid is None:
                weight = self.weight.to(role.dtype)
            else:
                weight = fake.weights(self.weight, role.grid, role.dtype, self.scales)
            given = fake.activations(x) if role.activations else x
            return functional.linear(given.to(role.dtype), weight)

    class Network(nn.Module):
        """Decoder layers and the last norm: tokens, or what the embedding makes of them -> what the head gets."""

        def __init__(self, config: Any, layers: list[nn.Module], norm: torch.Tensor, rows: Any, role: Role) -> None:
            from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding

            super().__init__()
            self.config, self.role = config, role
            self.layers = nn.ModuleList(layers)
            if role.norms:
                self.norm = nn.Parameter(norm)
            else:
                self.register_buffer("norm", norm)
            if isinstance(rows, nn.Parameter):
                self.embedding = rows
            else:
                self.register_buffer("embedding", rows, persistent=False)
            self.rotary = Gemma3RotaryEmbedding(config)

        def hidden(self, ids: torch.Tensor) -> torch.Tensor:
            from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

            hidden = functional.embedding(ids, self.embedding).float() * self.config.hidden_size**0.5
            positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
            given = {
                "config": self.config,
                "inputs_embeds": hidden,
                "attention_mask": None,
                "past_key_values": None,
                "position_ids": positions,
            }
            masks = (create_sliding_window_causal_mask(**given), create_causal_mask(**given))
            turns = tuple(self.rotary(hidden, positions, kind) for kind in _KINDS)
            for index, module in enumerate(self.layers):
                full = self.config.layer_types[index] == _KINDS[1]
                call = (module, hidden, turns[full], masks[full], positions)
                if self.role.recompute and torch.is_grad_enabled():
                    hidden = recomputed(_run, *call, use_reentrant=False)
                else:
                    hidden = _run(*call)
            scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps)
            normed: torch.Tensor = hidden * scale * (1 + self.norm)
            return normed

        def forward(self, ids: torch.Tensor, then: Callable[[torch.Tensor, torch.Tensor], Any]) -> Any:
            """What `then` makes of the head's input, f32 [batch, length, hidden], and the embedding."""
            with torch.autocast(ids.device.type, self.role.dtype, enabled=self.role.dtype != torch.float32):
                hidden = self.hidden(ids)
            return then(hidden, self.embedding)

    def _run(module: nn.Module, hidden: torch.Tensor, turn: Any, mask: Any, positions: torch.Tensor) -> torch.Tensor:
        out = module(hidden, position_embeddings=turn, attention_mask=mask, position_ids=positions)
        return out if isinstance(out, torch.Tensor) else out[0]

    return {"Matrix": Matrix, "Network": Network}


_CLASSES: dict[str, Any] = {}


def network(decoder: Decoder, role: Role, rows: torch.Tensor, begun: Begun | None = None) -> nn.Module:
    """All layers of a model in memory.

    Args:
        decoder: gives the weights.
        role: what for.
        rows: of the embedding, [vocabulary, hidden]; a parameter if it is trained.
        begun: matrices that begin on a grid.
    """
    import torch

    if not _CLASSES:
        _CLASSES.update(_classes())
    layers = [layer(decoder, index, role, begun) for index in range(decoder.layers)]
    norm = torch.from_numpy(decoder.read(decoder.checkpoint.tensors[names.FINAL_NORM])).to(decoder.device.torch_device)
    made: nn.Module = _CLASSES["Network"](decoder.config, layers, norm, rows, role)
    return made.to(decoder.device.torch_device)


def embedding(decoder: Decoder) -> torch.Tensor:
    """The rows of the embedding, bf16 [vocabulary, hidden]."""
    import torch

    from gemmaq.checkpoint.rows import weights

    tensor = decoder.checkpoint.tensors[names.EMBEDDING]
    rows = torch.empty(tensor.shape, dtype=torch.bfloat16)
    step = max(1, (1 << 22) // tensor.columns)
    for first in range(0, tensor.rows, step):
        count = min(step, tensor.rows - first)
        rows[first : first + count] = torch.from_numpy(weights(tensor, first, count, decoder.reader))
    return rows.to(decoder.device.torch_device)


def parameters(student: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """What is trained, by canonical name."""
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            yield canonical(name), parameter


def canonical(name: str) -> str:
    """The checkpoint's name of a parameter of a network."""
    name = name.replace("_checkpoint_wrapped_module.", "").replace("_orig_mod.", "")
    return {"norm": names.FINAL_NORM, "embedding": names.EMBEDDING}.get(name, f"model.{name}")


def scales(student: nn.Module) -> dict[str, torch.Tensor]:
    """The scales of matrices that keep them, by canonical name."""
    found = student.named_buffers()
    return {canonical(name.removesuffix("scales") + "weight"): kept for name, kept in found if name.endswith(".scales")}
