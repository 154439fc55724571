"""A merge under way: the tensors so far, and what is found of names in an adapter."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.checkpoint.lora.config import LoraConfig
from gemmaq.checkpoint.lora.merged import Step
from gemmaq.checkpoint.lora.weights import AdapterWeights
from gemmaq.errors import InputError

OTHER_BASE = "name the model that the adapter was trained on with --base"


@dataclass(slots=True)
class Work:
    """A merge under way.

    Attributes:
        base: The base model.
        config: The adapter's config.
        weights: The adapter's tensors.
        tensors: Tensors of the base model and its towers by canonical name; the adapter's own in place of some.
        steps: Canonical name -> what is done to the tensor, in order.
        passed: Modules that no runtime uses.
        left: Names of tensors of the adapter that belong to nothing, as its file has them.
        untargeted: Those among them that belong to a module which the config does not name.
        notes: Sentences for the user.
    """

    base: Checkpoint
    config: LoraConfig
    weights: AdapterWeights
    tensors: dict[str, Tensor]
    steps: dict[str, list[Step]] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    untargeted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def table(self) -> str:
        """Name of the token embedding."""
        return self.base.family.names.EMBEDDING

    @property
    def head(self) -> str:
        """Name of the output head."""
        return self.base.family.names.HEAD

    @property
    def is_tied(self) -> bool:
        """Whether the embedding is the head, too."""
        return self.head not in self.tensors

    def found(self, name: str) -> str | None:
        """Canonical name of the model's tensor that a name in the adapter means, None if there is none.

        The head of a model whose embedding is its head is the embedding.
        """
        family = self.base.family
        canonical = family.names.canonical(name)
        if canonical is None and family.towers is not None:
            canonical = family.towers.canonical(name)
        if canonical == self.head and self.is_tied:
            return self.table
        return canonical if canonical in self.tensors else None

    def is_head(self, module: str) -> bool:
        """Whether a module in the adapter is the output head."""
        return self.base.family.names.canonical(f"{module}.weight") == self.head

    def is_unused(self, name: str) -> bool:
        """Whether a name means a tensor that checkpoints may have and no runtime reads."""
        names = self.base.family.names
        canonical = names.canonical(name)
        return canonical is not None and (
            canonical in names.idle(self.base.config) or names.is_surplus(canonical, self.base.config)
        )

    def drop(self, tensors: Collection[Tensor], *, untargeted: bool = False) -> None:
        """Note tensors that belong to nothing."""
        (self.untargeted if untargeted else self.left).extend(tensor.name for tensor in tensors)

    def misfit(self, tensor: Tensor, old: Tensor) -> InputError:
        """An error about a tensor of the adapter whose shape does not fit that of the model."""
        place = f"{old.name} {list(old.shape)} of {self.base.location}"
        return InputError(
            f"has the shape {list(tensor.shape)}, which does not fit {place}",
            OTHER_BASE,
            path=tensor.span,
            tensor=tensor.name,
        )
