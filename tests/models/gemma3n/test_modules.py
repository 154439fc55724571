"""Gemma 3n is not run, and says what works."""

from __future__ import annotations

import pytest

import gemma3n
from gemmaq.errors import UsageError
from gemmaq.models.gemma3n.modules import hf_config


def test_running_it_is_refused_with_what_works() -> None:
    with pytest.raises(UsageError, match="does not run Gemma 3n: its layers work on 4 streams") as refused:
        hf_config(gemma3n.CONFIG)
    assert "nearest and lattice" in str(refused.value.hint)
