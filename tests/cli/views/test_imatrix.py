"""Statistics of an importance matrix for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemmaq.calibration.imatrix import Entry, Imatrix, document
from gemmaq.cli.console import Output
from gemmaq.cli.views.imatrix import show_statistics


def test_kinds_have_a_row_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = np.ones(1, np.float32), np.array([4, 0], np.float32)
    entries = {
        "blk.0.attn_q.weight": Entry(np.array([3, 4], np.float32), one),
        "blk.1.attn_q.weight": Entry(np.array([0, 5], np.float32), one),
        "blk.0.ffn_up_exps.weight": Entry(np.array([4, 8, 0, 0], np.float32), two),
    }
    path = tmp_path / "some.gguf"
    path.write_bytes(document(Imatrix(entries, (), 3, 0)))
    show_statistics(path, Output("imatrix", False, False))
    shown = " ".join(capsys.readouterr().out.split())
    assert "some.gguf: texts unknown, 3 sequences" in shown
    assert "attn_q 2 6 78.6% 75.0% 1 columns 0.800" in shown
    assert "ffn_up_exps 1 3 66.7% 100.0% 1 of 2 experts" in shown
    show_statistics(path, Output("imatrix", False, True))
    assert capsys.readouterr().out == f"{path}\n"
