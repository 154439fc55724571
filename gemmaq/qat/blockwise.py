"""Training a decoder layer at a time: memory holds one layer and the activations, whatever the model's size.

Each layer learns to give what the teacher's gives, from inputs that the trained layers before it give. Source of the
idea: EfficientQAT, arXiv 2407.11062, Block-AP.
"""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.errors import InputError, UsageError
from gemmaq.files.text import read_json
from gemmaq.qat import grids, model
from gemmaq.qat import state as checkpoints
from gemmaq.qat.data import Data
from gemmaq.qat.loss import Measured, Meter
from gemmaq.qat.state import State
from gemmaq.qat.train import MEASURED, Stopped, Told
from gemmaq.qat.warm_start import Begun, begun

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.encodings import F32
    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.distributed import Ranks
    from gemmaq.qat.run import Order, Outcome, Watcher

SEQUENCES = 128
"""Of the text that layers are trained on."""
_PROGRAM = 900 << 20
"""Bytes that Python, torch and transformers take, and the products' buffers."""
_TOGETHER = 4
"""Sequences that go through a layer at a time where nothing is learned."""
_RECORD = "layers.json"


def promise(order: Order, data: Data) -> int:
    """Bytes of memory that this takes at most: a layer with its gradients and moments, activations, the embedding."""
    config, settings = order.source.config, order.settings
    layer = max(config.layer_parameters)
    heads = max(layer.query_width + layer.kv_width for layer in config.layers)
    ffn = max(layer.ffn for layer in config.layers)
    kept = min(SEQUENCES, len(data.train)) + len(data.held_out)
    activations = 4 * settings.context * config.hidden_size * (2 * kept + len(data.held_out))
    tokens = settings.batch * settings.context
    inside = 4 * tokens * (24 * config.hidden_size + 8 * ffn + 6 * heads)
    inside += 16 * settings.batch * max(layer.heads for layer in config.layers) * settings.context**2
    head = 2 * config.vocab_size * config.hidden_size + (1 << 23) * 20
    return _PROGRAM + 24 * layer + activations + inside + head


@dataclass(slots=True)
class _Streams:
    """Activations before the layer in hand, f32 [length, hidden] a sequence.

    Attributes:
        teacher: of the unquantized model, all sequences.
        student: of the trained one.
        plain: of the one quantized without training, held-out sequences only.
    """

    teacher: list[torch.Tensor]
    student: list[torch.Tensor]
    plain: list[torch.Tensor]


def run(order: Order, data: Data, lattices: dict[str, str], ranks: Ranks, watcher: Watcher, clock: float) -> Outcome:
    """Train layer by layer, and write the folder; errors as those of `run.run`."""
    import torch

    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import Device
    from gemmaq.qat.run import Outcome, drop_work, identity

    if ranks.count > 1:
        raise UsageError("--block-wise is for one process", "without it, torchrun shares the model")
    if order.settings.embedding or order.settings.samples:
        raise UsageError("--block-wise trains no embedding and needs no samples of the teacher")
    work = checkpoints.work_folder(order.out)
    model.check_start(order.source, order.start or order.source, grids.find(order.settings.grid))
    state = State(identity(order, data, lattices), 0)
    _check_record(work, state, order.resume)
    torch.manual_seed(order.settings.seed)
    chosen = data.train[np.linspace(0, len(data.train) - 1, min(SEQUENCES, len(data.train))).round().astype(int)]
    tokens = np.concatenate([chosen, data.held_out])
    with ExitStack() as stack:
        device = Device(ranks.device, None)
        source = stack.enter_context(decoder(order.source, device))
        start = stack.enter_context(decoder(order.start, device)) if order.start else source
        embedded = [part for batch in source.embed(tokens) for part in batch]
        streams = _Streams(list(embedded), list(embedded), list(embedded[len(chosen) :]))
        budget = None if order.minutes is None else clock + 60 * order.minutes
        on_grid = start is not source and order.settings.grid == "q4_0"
        kept = begun(source, start, order.settings.seed) if on_grid else None
        trainer = _Layers(order, source, start, len(chosen), watcher, budget, order.steps or 0, kept)
        for index in range(source.layers):
            trainer.layer(index, streams, state, work / f"layer-{index:04}.safetensors")
        before, after = (_measured(source, streams.teacher[len(chosen) :], own, data.held_out) for own in
                         (streams.plain, streams.student[len(chosen) :]))  # fmt: skip
    state.before = before.document()
    outcome = Outcome(state, state.before, after, lattices)
    _write(order, data, outcome, work)
    drop_work(work)
    return outcome


def _check_record(work: Path, state: State, resume: bool) -> None:
    """Note what is trained, or see to it that it is what was begun."""
    path = work / _RECORD
    if resume and path.exists():
        if read_json(path).get("identity") != json.loads(json.dumps(state.identity)):
            raise UsageError(f"{work} is of another training", "say the same again, or begin anew with --force")
        return
    path.write_bytes(json.dumps({"identity": state.identity}).encode())


@dataclass(slots=True)
class _Layers:
    """What training a layer takes.

    Attributes:
        order: what was asked for.
        source: teacher.
        start: the student's beginning.
        train: so many of the first sequences are trained on.
        watcher: who is told.
        deadline: on the monotonic clock, None for none.
        steps: a layer gets, 0 until the clock has decided.
        begun: matrices that begin on a grid.
    """

    order: Order
    source: Decoder
    start: Decoder
    train: int
    watcher: Watcher
    deadline: float | None
    steps: int
    begun: Begun | None

    def layer(self, index: int, streams: _Streams, state: State, path: Path) -> None:
        """Train a layer, or take it from an earlier run, and send all streams through it."""
        import torch

        teacher, own = model.roles(self.order.settings)
        given = list(streams.student[: self.train])
        self._through(model.layer(self.source, index, teacher), index, streams.teacher)
        gc.collect()
        student = model.layer(self.start, index, own, self.begun)
        with torch.no_grad():
            self._through(student, index, streams.plain)
        if path.exists():
            self._take(student, path)
        else:
            self.watcher.say(f"layer {index + 1} of {self.source.layers}")
            self._train(student, index, given, streams.teacher[: self.train], state)
            _keep(student, index, self.order.settings.grid, path)
        with torch.no_grad():
            self._through(student, index, streams.student)

    def _call(self, module: nn.Module, index: int, hidden: torch.Tensor) -> torch.Tensor:
        import torch

        dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[self.order.settings.dtype]
        with torch.autocast(hidden.device.type, dtype, enabled=dtype != torch.float32):
            return self.source.forward(module, index, hidden)

    def _through(self, module: nn.Module, index: int, hidden: list[torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for first in range(0, len(hidden), _TOGETHER):
                part = torch.stack(hidden[first : first + _TOGETHER])
                hidden[first : first + _TOGETHER] = self._call(module, index, part).float().unbind()

    def _take(self, student: nn.Module, path: Path) -> None:
        import torch

        trained = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
        shapes = {name: tuple(parameter.shape) for name, parameter in trained.items()}
        with torch.no_grad():
            for name, values in checkpoints.tensors(path.parent, path.stem, shapes):
                trained[name].copy_(values)

    def _train(
        self, student: nn.Module, index: int, given: list[torch.Tensor], wanted: list[torch.Tensor], state: State
    ) -> None:
        import torch

        settings = self.order.settings
        found = [parameter for parameter in student.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(found, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        scale = sum(float((after - before).pow(2).mean()) for after, before in zip(wanted, given, strict=True))
        scale = max(scale / len(given), 1e-12)
        orders = np.random.default_rng([settings.seed, index])
        began, number, limit = time.monotonic(), 0, self.steps or settings.steps
        while number < limit:
            places = orders.integers(0, len(given), settings.sequences)
            total = 0.0
            for first in range(0, len(places), settings.batch):
                part = places[first : first + settings.batch]
                out = self._call(student, index, torch.stack([given[at] for at in part]))
                target = torch.stack([wanted[at] for at in part])
                loss = (out.float() - target).pow(2).mean() / scale * (len(part) / len(places))
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            torch.nn.utils.clip_grad_norm_(found, settings.clip)
            if not math.isfinite(total):
                raise InputError(
                    f"the loss of layer {index + 1} is no number",
                    f"a lower --learning-rate than {settings.learning_rate:g}",
                )
            for group in optimizer.param_groups:
                group["lr"] = (
                    settings.learning_rate * max(0.05, 1 - number / limit) * min(1.0, (number + 1) / settings.warm_up)
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.losses.append(total)
            state.step += 1
            number += 1
            seconds = (time.monotonic() - began) / number
            if number == MEASURED and not self.steps:
                limit = self.steps = self._fits(index, seconds)
            whole = self.source.layers * limit
            left = seconds * (whole - state.step)
            self.watcher.told(Told(state.step, whole, total, settings.sequences * settings.context / seconds, left))
            if self.watcher.asked():
                raise Stopped(self.watcher.asked())

    def _fits(self, index: int, seconds: float) -> int:
        if self.deadline is None:
            return self.order.settings.steps
        left = (self.deadline - time.monotonic()) * 0.9 / (self.source.layers - index)
        return max(MEASURED + 1, int(left / seconds))


def _keep(student: nn.Module, index: int, grid: str, path: Path) -> None:
    """Write what a layer has become, on its grid."""
    shapes = {name: tuple(p.shape) for name, p in student.named_parameters() if p.requires_grad}
    trained = dict(student.named_parameters())
    stage = path.with_suffix(".partial")
    try:
        kept = dict(student.named_buffers())
        found = grids.find(grid)
        values = (
            grids.stored(trained[name].detach(), found, kept.get(name.removesuffix("weight") + "scales"))
            for name in shapes
        )
        checkpoints.write_tensors(stage, shapes, values)
        stage.rename(path)
    except OSError as error:
        stage.unlink(missing_ok=True)
        raise checkpoints.no_room(error, path.parent) from error


def _measured(source: Decoder, its: list[torch.Tensor], own: list[torch.Tensor], tokens: Any) -> Measured:
    import torch

    meter = Meter(source.checkpoint.config.final_logit_softcapping, torch.bfloat16)
    rows = model.embedding(source)
    with torch.no_grad():
        for at, ids in enumerate(tokens):
            ids = torch.from_numpy(ids[None]).to(rows.device)
            meter.add(ids, source.normed(own[at][None]), source.normed(its[at][None]), rows, rows)
    return meter.result()


def _write(order: Order, data: Data, outcome: Outcome, work: Path) -> None:
    from gemmaq.qat import report as record
    from gemmaq.qat.export import write_folder

    def weights() -> Iterator[tuple[str, F32]]:
        for index in range(order.source.config.num_hidden_layers):
            shapes = {
                f"{part}.weight": tensor.shape
                for part, tensor in order.source.layer(index).items()
                if tensor.place.role.is_layer_matrix or order.settings.norms
            }
            for name, values in checkpoints.tensors(work, f"layer-{index:04}", shapes):
                yield order.source.family.names.in_layer(index, name.removesuffix(".weight")), values.numpy()

    beside = record.files(order, data, outcome)
    base = order.start or order.source
    write_folder(base, weights(), order.out, order.threads, order.force, lambda: beside)
