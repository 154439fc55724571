"""Drafters beside the models that they propose tokens for."""

from __future__ import annotations

from dataclasses import replace

from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError


def with_drafter(checkpoint: Checkpoint, drafter: Checkpoint) -> Checkpoint:
    """A model with its drafter.

    Raises:
        InputError: The drafter does not belong to the model.
    """
    family = drafter.family
    if family.drafts:
        reason = family.misfit(drafter.config, checkpoint.family, checkpoint.config)
    else:
        reason = f"it is a model of {family.title}, no drafter"
    if reason is not None:
        raise InputError(
            f"is no drafter for {checkpoint.location}: {reason}",
            "each size has a drafter of its own: name that of this model",
            path=drafter.location,
        )
    return replace(checkpoint, drafter=drafter)
