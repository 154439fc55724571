"""Which scheme a folder is said to have, and schemes that are not read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantized_folders as folders
from inprocess import refused
from quantized_folders import AWQ, CT, GPTQ


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "torchao"}, ("torchao", "cannot read")),
        (GPTQ | {"checkpoint_format": "marlin"}, ("gptq (marlin)", "cannot read")),
        (AWQ | {"version": "gemv"}, ("awq (gemv)", "cannot read")),
        ({"quant_method": "compressed-tensors", "format": "marlin-24"}, ("compressed-tensors (marlin-24)",)),
        (CT(4, 128) | {"transform_config": {"config_groups": {"R1": {}}}}, ("compressed-tensors", "cannot read")),
        (
            {"quant_method": "auto-round", "packing_format": "auto_round:llm_compressor"},
            ("auto-round", "llm_compressor"),
        ),
        ({"quant_method": ["x"]}, ("cannot read",)),
        ([1], ("no object",)),
        (None, ("GPTQ and AWQ", "quantize_config.json")),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(settings: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    folders.write(tmp_path / "model", settings, folders.gptq())
    for command in (("inspect",), ("convert",)):
        refused(3, words, *command, tmp_path / "model", under=tmp_path)


def test_settings_in_a_file_of_their_own_are_found(tmp_path: Path) -> None:
    for name, make, settings in (
        ("quantize_config.json", folders.gptq(sym=False), {"bits": 4, "group_size": 128, "desc_act": False}),
        ("quant_config.json", folders.awq(), {"w_bit": 4, "q_group_size": 128, "zero_point": True, "version": "GEMM"}),
    ):
        folder = tmp_path / name
        expected = folders.write(folder, None, make)
        (folder / name).write_text(json.dumps(settings))
        for tensor, wanted in expected.items():
            np.testing.assert_array_equal(folders.weights_of(folder, tensor), wanted)
