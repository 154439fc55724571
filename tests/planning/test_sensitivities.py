"""Files of sensitivities: losses add up, and files of other models or with damage are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, NotFoundError
from gemmaq.planning.sensitivities import Group, Sensitivities, check, document, fingerprint, read

DOWN, UP = "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight"
GATE = "model.layers.0.mlp.gate_proj.weight"


@pytest.fixture
def found(checkpoint: Checkpoint) -> Sensitivities:
    losses = {"nearest": {"q4_0": 0.02, "q5_0": 0.005, "bf16": 0.0}, "gptq": {"q4_0": 0.008}}
    groups = (
        Group((DOWN,), losses, ("q4_0",)),
        Group((UP, GATE), {"nearest": {"q4_0": 0.1}}, ("q4_0",), (0.75, 0.25)),
    )
    return Sensitivities(checkpoint.name, fingerprint(checkpoint), ("a.txt", "ü.txt"), "0" * 64, 1024, 512, groups)


def test_losses_of_groups_add_up(found: Sensitivities) -> None:
    assert found.predicted({DOWN: "q4_0", UP: "q4_0", GATE: "q4_0"}, "nearest") == pytest.approx(0.12)
    assert found.predicted({DOWN: "q5_0"}, "nearest") == 0.005
    assert found.predicted({DOWN: "bf16"}, "nearest") == found.predicted({}, "gptq") == 0


def test_a_tensor_has_its_share_in_the_loss_of_its_group(found: Sensitivities) -> None:
    assert found.predicted({UP: "q4_0"}, "nearest") == pytest.approx(0.075)
    equal = replace(found, groups=(replace(found.groups[1], shares=()),))
    assert equal.predicted({UP: "q4_0"}, "nearest") == pytest.approx(0.05)


def test_what_a_method_does_not_write_is_rounded_to_nearest(found: Sensitivities) -> None:
    assert found.predicted({DOWN: "q4_0"}, "gptq") == 0.008
    assert found.predicted({DOWN: "q5_0", UP: "q4_0"}, "gptq") == pytest.approx(0.08)


def test_a_type_without_a_loss_is_refused(found: Sensitivities) -> None:
    with pytest.raises(InputError, match=f"q8_0 is known of {DOWN}"):
        found.predicted({DOWN: "q8_0"}, "nearest")


def test_a_file_is_read_as_it_was_written(found: Sensitivities, tmp_path: Path) -> None:
    path = tmp_path / "model.sensitivity.json"
    path.write_bytes(document(found))
    assert read(path) == found
    assert document(read(path)) == document(found)


def test_a_file_has_six_digits_of_a_loss(found: Sensitivities) -> None:
    group = replace(found.groups[0], losses={"nearest": {"q4_0": 0.012345678}})
    assert b'{"q4_0": 0.0123457}' in document(replace(found, groups=(group,)))


def test_the_model_is_checked(found: Sensitivities, checkpoint: Checkpoint) -> None:
    check(found, checkpoint)
    with pytest.raises(InputError, match="other weights"):
        check(replace(found, fingerprint="1" * 64), checkpoint)
    check(replace(found, fingerprint="1" * 64), replace(checkpoint, weights_here=False))
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name != UP}
    with pytest.raises(InputError, match=f"another model.*{UP}"):
        check(found, replace(checkpoint, tensors=tensors))


def test_fingerprints_tell_weights_apart(checkpoint: Checkpoint) -> None:
    before = fingerprint(checkpoint)
    assert fingerprint(replace(checkpoint, name="another name")) == before
    swapped = {**checkpoint.tensors}
    swapped[UP] = replace(swapped[GATE], name=UP)
    assert fingerprint(replace(checkpoint, tensors=swapped)) != before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d.pop("tokens"), "'tokens' is missing"),
        (lambda d: d.update(tokens=0), "0 is no number of tokens"),
        (lambda d: d.update(texts="a.txt"), "no list"),
        (lambda d: d.update(groups=[]), "no tensors"),
        (lambda d: d["groups"].append(d["groups"][0]), f"{DOWN} is in it twice"),
        (lambda d: d["groups"][0]["losses"].pop("nearest"), "no losses of method nearest"),
        (lambda d: d["groups"][0]["losses"]["nearest"].update(q4_0=-1), "-1 is no loss"),
        (lambda d: d["groups"][0]["losses"]["nearest"].update(q4_0=float("nan")), "nan is no loss"),
        (lambda d: d["groups"][1].update(shares=[1.0]), "1 shares of 2"),
        (lambda d: d.update(schema="gemmaq.artifact/2"), "gemmaq.artifact/2"),
    ],
)
def test_damage_is_named(found: Sensitivities, tmp_path: Path, change: Callable[[Any], None], problem: str) -> None:
    value = json.loads(document(found))
    change(value)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=problem) as raised:
        read(path)
    assert raised.value.path == str(path)


def test_a_file_that_is_missing_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read(tmp_path / "nothing.json")
    path = tmp_path / "text.json"
    path.write_text("text")
    with pytest.raises(InputError, match="not valid JSON"):
        read(path)
