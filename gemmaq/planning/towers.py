"""Plan the towers, which turn images and sound into embeddings: their type is chosen apart from the text model's."""

from __future__ import annotations

from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.errors import InputError
from gemmaq.methods import Choice
from gemmaq.planning.format import Format, PieceSpec
from gemmaq.planning.plan import PlannedTensor

TEXT_ALONE = "--mmproj none converts the text model alone"


def plan_towers(
    checkpoint: Checkpoint, target: Format, mmproj: str, *, vector: Encoding, norm_shift: float
) -> list[PlannedTensor]:
    """Plan the tensors of the towers, in file order.

    Args:
        checkpoint: model with towers that can be read.
        target: demands of the container.
        mmproj: type of the towers in containers that leave a choice.
        vector: encoding in all others.
        norm_shift: added to the weights of norms.

    Raises:
        InputError: one is missing or has another shape.
    """
    towers = checkpoint.family.towers
    assert checkpoint.towers_config is not None and towers is not None
    planned = []
    for name, shape in towers.shapes(checkpoint.towers_config, checkpoint.config.hidden_size):
        tensor = checkpoint.towers.get(name)
        if tensor is None or tensor.shape != shape:
            what = "lacks" if tensor is None else f"has the shape {list(tensor.shape)}, not {list(shape)}, for"
            raise InputError(
                f"the {towers.place(name).kind} side {what} {name}",
                TEXT_ALONE,
                path=checkpoint.location,
            )
        encoding, arrangement = vector, None
        if target.gguf_names:
            encoding, new_name = ENCODINGS[towers.mmproj_type(name, shape, mmproj)], towers.to_gguf(name)
            arrangement = towers.in_gguf(name, shape)
            if not encoding.fits(tensor.columns):
                encoding = ENCODINGS["f16"]  # as llama.cpp's converter does
        else:
            new_name = towers.to_hf(name) if target.hf_names else name
            arrangement = towers.channels_last(name, shape) if target.channels_last else None
        suffix = "weight" if new_name.endswith("weight") else ""
        piece = PieceSpec(suffix, encoding.label, tensor.columns, encoding.row_bytes(tensor.columns))
        planned.append(
            PlannedTensor(
                tensor,
                new_name,
                encoding,
                (piece,),
                Choice("nearest", False),
                tensor.shift + (norm_shift if towers.is_norm(name) else 0.0),
                arrangement=arrangement,
            )
        )
    return planned
