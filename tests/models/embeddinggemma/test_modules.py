"""Layers of EmbeddingGemma: the vectors are those of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedding import write_model
from gemmaq.inference.decoder import decoder
from gemmaq.inference.device import open_device
from gemmaq.sources.open import open_source


@pytest.mark.slow
def test_every_token_sees_both_sides_as_in_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    folder = write_model(tmp_path / "m", heads=False)
    tokens = np.arange(2, 82)[None]
    loaded = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad(), open_device("cpu", 2) as device, decoder(open_source(str(folder)), device) as made:
        wanted = loaded(input_ids=torch.from_numpy(tokens)).last_hidden_state.numpy()
        hidden = made.embed(tokens)
        for index in range(made.layers):
            made.through(made.layer(index), index, hidden)
        found = made.normed(torch.cat([batch.hidden for batch in hidden])).numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())
