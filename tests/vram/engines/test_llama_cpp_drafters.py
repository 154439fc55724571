"""Memory of drafters in llama.cpp itself: buffers to the printed 0.01 MiB, weights to the byte, no cache."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

import gemma4
import gemma4_drafter
import llama_server
import sparse_models
from allocator import COMPUTE, MIB, PRINTED, Allocator, Setting, file_of, grid, load, scattered
from gemmaq.containers import gguf
from gemmaq.models.config import TextConfig
from gemmaq.models.families import require_size
from gemmaq.models.gemma4_drafter.sizes import SIZES
from gemmaq.models.size import Size
from gemmaq.vram.weights import builds, checkpoint_of
from oracles import need, need_ggml

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.label)
def test_drafters_beside_their_targets_in_every_setting(
    size: Size, tmp_path: Path, require: Callable[[bool, str], None]
) -> None:
    need_ggml(require)
    shape = sparse_models.SHAPES[size.name.removesuffix("-it-assistant").removesuffix("-A4B")]
    chance = random.Random(size.label)
    settings = chance.sample(grid(shape.context), 25) + list(islice(scattered(shape.context, chance), 10))
    settings = [setting for setting in settings if not setting.library]
    (build,) = builds(checkpoint_of(size), gguf.FORMAT, ["q4_0"], None)
    target, drafter = sparse_models.write(tmp_path / "model.gguf", shape), file_of(size, tmp_path / "mtp-model.gguf")
    with load(target) as model, load(drafter) as drafting:
        assert drafting.size == build.model.weights
        accepted = [check(drafting, model, setting, shape.config, size.config) for setting in settings]
    assert 0.5 * len(accepted) < sum(accepted) < len(accepted)


def check(drafting: Allocator, model: Allocator, setting: Setting, config: TextConfig, drafter: TextConfig) -> bool:
    """Compare; whether llama.cpp makes such contexts."""
    theirs, ours = drafting.allocate_drafter(model, setting), setting.estimate(config, drafter)
    assert (theirs is None) == (ours is None), f"{setting}: llama.cpp {theirs}, gemmaq {ours}"
    if theirs is None or ours is None:
        return False
    away = (*theirs[0].away(ours), ours.draft_compute / MIB - theirs[1].compute)
    assert max(map(abs, away)) <= PRINTED, f"{setting}: {away} MiB from {theirs}"
    return True


@pytest.mark.parametrize(("slots", "ubatch"), [(1, 512), (16, 64)])
def test_llama_server_itself(slots: int, ubatch: int, tmp_path: Path, require: Callable[[bool, str], None]) -> None:
    """With the options of a card's line; many sequences have their tokens chosen from a copy of the logits.

    Its build is another one, where a tensor of 0.03 MiB lies elsewhere.
    """
    need(require, "xllamacpp", "gguf")
    config, drafter = (replace(kinds["dense"], vocab_size=262144) for kinds in (gemma4.KINDS, gemma4_drafter.KINDS))
    target, beside = (
        file_of(replace(size, config=made), tmp_path / f"{size.name}.gguf")
        for size, made in ((require_size("gemma-4-31B"), config), (SIZES[-1], drafter))
    )
    words = ["-m", str(target), "-md", str(beside), "--spec-type", "draft-mtp", "-fa", "on", "--no-kv-unified"]
    settings = {"n_ctx": 4096, "n_parallel": slots, "n_ubatch": ubatch}
    log = llama_server.log({**llama_server.line(words), "settings": settings})
    ours = Setting(4096, slots=slots, unified=False, ubatch=ubatch).estimate(config, drafter)
    assert ours is not None and "KV buffer" not in log.partition("loading draft model")[2]
    assert float(COMPUTE.findall(log)[-1]) == pytest.approx(ours.draft_compute / MIB, abs=0.04)
