"""Sensitivities of a model: mean KL divergence of its predictions when only some of its tensors are quantized.

Every variant of the model departs from the unquantized one at the layer of its tensors, so that only the layers behind
it are run. All variants go through a layer together: it is loaded once, and memory holds one layer and a few sequences,
while the activations of the others wait on disk. What is there after a layer is enough to go on later.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration import gptq, sensitivity_layers, sensitivity_tables
from gemmaq.calibration.activations import mirror
from gemmaq.calibration.complete import Basis, sequences
from gemmaq.calibration.hessians import add_products
from gemmaq.calibration.resources import Resources
from gemmaq.calibration.sensitivity_errors import Errors, fitting, scaled
from gemmaq.calibration.sensitivity_groups import Settings, Variant, groups, of_layers
from gemmaq.calibration.sensitivity_head import reference
from gemmaq.calibration.sensitivity_work import Layer, Work
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError
from gemmaq.planning.sensitivities import Group, Sensitivities, fingerprint
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import torch

    from gemmaq.encodings import Encoding
    from gemmaq.inference.batch import Batch
    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.documents import Tokens

_TASK = "measuring sensitivities"
_UNCHANGED, _CALIBRATING = "unchanged", "calibrating"
"""Names of files of the unquantized model on both parts of the text."""
_UNSCORED = 8
"""The first tokens of a sequence, one in so many, have little before them, and are not scored."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A text in two parts.

    Attributes:
        probed: sequences that variants of the model are run on, i64 [sequences, length].
        calibrating: sequences that codes are solved for.
    """

    probed: Tokens
    calibrating: Tokens

    @property
    def first(self) -> int:
        """First token of a sequence that is scored."""
        return int(self.probed.shape[1]) // _UNSCORED

    @property
    def scored(self) -> int:
        """Number of tokens that are scored."""
        return len(self.probed) * (int(self.probed.shape[1]) - self.first)


def parts(checkpoint: Checkpoint, basis: Basis, settings: Settings) -> Parts:
    """Cut a text into sequences of two kinds, both spread evenly over it.

    Raises:
        InputError: there is too little text, or the model predicts no tokens.
    """
    if checkpoint.family.embeds:
        raise InputError(
            f"is an {checkpoint.family.title}: it makes vectors of texts and predicts no tokens, whose divergence is "
            "measured",
            "choose its types by hand",
            path=checkpoint.location,
        )
    calibration = basis.calibration
    more = replace(calibration, tokens=calibration.tokens + settings.tokens)
    tokens = sequences(checkpoint, replace(basis, calibration=more))
    wanted = max(1, settings.tokens // tokens.shape[1])
    probed = min(wanted, max(1, len(tokens) // 4))
    chosen = np.linspace(0, len(tokens) - 1, probed + 2).round().astype(int)[1:-1] if len(tokens) > 2 else np.array([0])
    rest = np.delete(tokens, chosen, axis=0)
    return Parts(tokens[chosen], rest if len(rest) else tokens)


def measure(
    checkpoint: Checkpoint,
    basis: Basis,
    *,
    resources: Resources,
    progress: ProgressCallback,
    types: Sequence[str] | None = None,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    folder: Path | None = None,
    resume: bool = False,
) -> Sensitivities:
    """Measure the sensitivities of a model.

    Args:
        checkpoint: the model.
        basis: text to measure and to calibrate on.
        resources: where to compute; the result does not depend on the number of threads.
        progress: called after every layer.
        types: names of the types whose losses are asked for, None for all.
        settings: how to measure.
        folder: where what is done is kept for a run that goes on later; it is removed at the end. None for nowhere.
        resume: go on with what is in this folder.

    Raises:
        UsageError: torch or transformers is missing.
        InputError: the model predicts no tokens or is damaged, there is too little text, or the folder holds the work
            of another measurement.
        OutputError: the folder cannot be used.
    """
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import open_device

    text = parts(checkpoint, basis, settings)
    coarse = settings.is_coarse(checkpoint)
    with ExitStack() as stack:
        device = stack.enter_context(open_device(resources.device, resources.threads))
        net = stack.enter_context(decoder(checkpoint, device))
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gemmaq-"))) / "work"
        mark = fingerprint(checkpoint)
        job = {
            "fingerprint": mark,
            "digest": basis.calibration.digest,
            "tokens": [list(text.probed.shape), list(text.calibrating.shape)],
            "calibration": [basis.calibration.damping, basis.calibration.order],
            "coarse": coarse,
            "types": None if types is None else sorted(types),
            "device": device.torch_device.type,
        }
        calibration = basis.calibration
        solving = gptq.Settings(calibration.damping, act_order=calibration.order == "importance")
        run = _Run(net, text, groups(checkpoint, coarse=coarse), types, solving, Work(folder, device), coarse)
        done = run.work.begin(job, resume)
        if done > net.layers:
            raise InputError(
                f"is after layer {done}, the model has {net.layers}", "begin again with --force", path=folder
            )
        run.read(done)
        for index in range(done, net.layers):
            progress(Progress(_TASK, index, net.layers, "layers"))
            run.layer(index)
        progress(Progress(_TASK, net.layers, net.layers, "layers"))
        found = run.groups(progress)
        shutil.rmtree(folder)
    return Sensitivities(
        checkpoint.name, mark, calibration.texts, calibration.digest, text.scored, text.probed.shape[1],
        found,
    )  # fmt: skip


@dataclass(slots=True)
class _Run:
    """A measurement.

    Attributes:
        decoder, text: the model and the text.
        variants: what is measured.
        types: see `measure`.
        solving: settings of GPTQ.
        work: what is kept on disk.
        coarse: whether the first matrix of a group stands for all in what types cost.
        probes: variant -> the type that it is run with.
        errors: variant -> errors of its first tensor.
        inputs: table -> the batches of the model with it in the type that is run, before the first layer.
    """

    decoder: Decoder
    text: Parts
    variants: Sequence[Variant]
    types: Sequence[str] | None
    solving: gptq.Settings
    work: Work
    coarse: bool
    probes: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Errors] = field(default_factory=dict)
    inputs: dict[str, list[Batch]] = field(default_factory=dict)

    def encodings(self, variant: Variant) -> list[Encoding]:
        """The types that fit all tensors of a variant."""
        return fitting((self.decoder.checkpoint.tensors[name].columns for name in variant.names), self.types)

    def loaded(self, index: int, name: str, tokens: Tokens) -> list[Batch]:
        """Batches of the unquantized model before a layer."""
        if name not in self.inputs:
            self.inputs[name] = self.decoder.embed(tokens)
        return self.batches(index, name, self.inputs[name])

    def batches(self, index: int, name: str, fresh: Sequence[Batch]) -> list[Batch]:
        """Batches before a layer, from those before the first layer or from disk."""
        if not index:
            return [replace(batch) for batch in fresh]
        before = self.work.before(index)
        return [before.load(name, number, batch) for number, batch in enumerate(fresh)]

    def fresh(self, variant: Variant) -> list[Batch]:
        """Batches of a variant before the first layer; their tokens and further inputs serve at any layer."""
        if not variant.is_table:
            return self.inputs[_UNCHANGED]
        if variant.name not in self.inputs:
            self.inputs[variant.name] = sensitivity_tables.embedded(
                self.decoder, self.text.probed, variant.names[0], self.probes[variant.name]
            )
        return self.inputs[variant.name]

    def layer(self, index: int) -> None:
        """Send everything through a layer."""
        decoder, work, checkpoint = self.decoder, self.work, self.decoder.checkpoint
        batches = self.loaded(index, _UNCHANGED, self.text.probed)
        calibrating = self.loaded(index, _CALIBRATING, self.text.calibrating)
        if not index:
            self.choose_for_tables()
        module, target = decoder.layer(index), work.opened(index + 1)
        begun = {v.names[0]: v for v in self.variants if v.first == index and not v.is_table}
        unchanged = [replace(batch) for batch in batches]
        after, cases = sensitivity_layers.through(
            decoder,
            index,
            module,
            batches=unchanged,
            calibrating=calibrating,
            tensors=[checkpoint.tensors[name] for name in begun],
        )
        for number, (batch, hidden) in enumerate(zip(unchanged, after, strict=True)):
            target.save(_UNCHANGED, number, replace(batch, hidden=hidden))
        for number, batch in enumerate(calibrating):
            target.save(_CALIBRATING, number, batch)
        for name, of_tensor in cases.items():
            variant = begun[name]
            self.probes[variant.name], self.errors[variant.name] = sensitivity_layers.errors_of(
                decoder, of_tensor, self.encodings(variant), settings=self.solving, once=self.coarse
            )
        del cases, unchanged, after, calibrating
        self.variants_through(index, module, batches, target)
        work.close(index + 1, {"probes": self.probes, "errors": self.errors})

    def variants_through(self, index: int, module: torch.nn.Module, batches: Sequence[Batch], target: Layer) -> None:
        """Send all variants that have departed from the unquantized model through a layer.

        Args:
            index: number of the layer.
            module: the layer.
            batches: batches of the unquantized model before it.
            target: keeps what comes out.
        """
        decoder, alike = self.decoder, list[tuple[Variant, int, "Batch"]]()
        before = self.work.before(index)

        def through(module: torch.nn.Module, jobs: list[tuple[Variant, int, Batch]]) -> None:
            def run(job: tuple[Variant, int, Batch]) -> None:
                variant, number, like = job
                batch = replace(like) if variant.first == index else before.load(variant.name, number, like)
                batch.hidden = decoder.checked(index, decoder.forward(module, index, batch))
                target.save(variant.name, number, batch)

            decoder.device.map(run, jobs)

        for variant in self.variants:
            if variant.first > index:
                continue
            begins = variant.first == index and not variant.is_table
            jobs = [(variant, number, b) for number, b in enumerate(batches if begins else self.fresh(variant))]
            inside = of_layers(decoder.checkpoint, variant).get(index)
            if not inside:
                alike += jobs
                continue
            probe = self.probes[variant.name]
            types = {tensor.place.part: (tensor, probe) for tensor in inside}
            through(sensitivity_layers.changed(decoder, index, module, types), jobs)
        through(module, alike)

    def choose_for_tables(self) -> None:
        """The type that every table is run in."""
        for variant in self.variants:
            if variant.is_table:
                tensor = self.decoder.checkpoint.tensors[variant.names[0]]
                rows = self.decoder.rows(tensor, np.unique(self.text.probed)[:256])
                self.probes[variant.name] = sensitivity_tables.probe(self.encodings(variant), rows)

    def states(self, name: str, fresh: Sequence[Batch], first: int) -> torch.Tensor:
        """Inputs of the head for the tokens of sequences from a first one on, f32 [tokens, hidden]."""
        import torch

        decoder, end = self.decoder, self.work.before(self.decoder.layers)

        def run(job: tuple[int, Batch]) -> torch.Tensor:
            return decoder.normed(end.load(name, *job).hidden[:, first:]).flatten(0, 1)

        return torch.cat(decoder.device.map(run, enumerate(fresh)))

    def groups(self, progress: ProgressCallback) -> tuple[Group, ...]:
        """The losses, once everything is behind the last layer."""
        decoder, first = self.decoder, self.text.first
        unchanged = self.states(_UNCHANGED, self.loaded(0, _UNCHANGED, self.text.probed), first)
        calibrating = self.states(_CALIBRATING, self.loaded(0, _CALIBRATING, self.text.calibrating), 0)
        size = calibrating.shape[1]
        import torch

        hessian = torch.zeros(size, size, device=calibrating.device)
        add_products(hessian, calibrating, decoder.device)
        judged = sensitivity_tables.Judged(reference(decoder, unchanged), unchanged, mirror(hessian))
        found = []
        for number, variant in enumerate(self.variants):
            progress(Progress("comparing predictions", number, len(self.variants)))
            found.append(self.group(variant, judged))
        progress(Progress("comparing predictions", len(found), len(found)))
        return tuple(found)

    def group(self, variant: Variant, judged: sensitivity_tables.Judged) -> Group:
        """The losses of a group."""
        decoder, probe = self.decoder, self.probes[variant.name]
        behind = variant.first < decoder.layers
        states = self.states(variant.name, self.fresh(variant), self.text.first) if behind else judged.states
        if not variant.is_table:
            loss = judged.reference.divergence(states)
            return Group(variant.names, scaled(loss, self.errors[variant.name], probe), (probe,))
        tensor = decoder.checkpoint.tensors[variant.names[0]]
        table = sensitivity_tables.table(decoder, tensor, self.text.probed, judged.reference.ids)
        losses = sensitivity_tables.losses(
            decoder, table, self.encodings(variant), states=states, measured=probe, judged=judged
        )
        return Group(variant.names, losses, (probe,))

    def read(self, index: int) -> None:
        """Take up what was found in the layers before one."""
        found = self.work.found(index)
        self.probes, self.errors = found.get("probes", {}), found.get("errors", {})
