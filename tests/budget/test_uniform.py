"""The best uniform type: none that fits is predicted to lose less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import made_up
import wide_models
from gemmaq.budget.choose import Source, choose
from gemmaq.budget.goal import Bits
from gemmaq.budget.uniform import best
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import GemmaqError
from gemmaq.planning.recipe import TYPES, of
from gemmaq.planning.request import Request
from gemmaq.sources.open import open_source


def test_no_other_type_or_mixture_that_fits_is_predicted_to_lose_less(tmp_path: Path) -> None:
    checkpoint = open_source(str(wide_models.write("like-4B", tmp_path / "model")))
    request = Request(of("q4_0"), ("gguf",))
    source = Source(checkpoint, request, Bits(5.2), made_up.sensitivities(checkpoint), {})
    chosen = choose(source)
    found = best(source, chosen)
    assert found is not None and found.predicted is not None and chosen.predicted is not None
    assert found.room >= 0 and chosen.predicted < found.predicted
    fitting = 0
    for name in TYPES:
        for embedding in (None, name, "q8_0", "q6_k", "q5_k", "q5_0", "q4_0"):
            if embedding is not None and embedding not in ENCODINGS:
                continue
            try:
                plan = source.plan(of(name, embedding=embedding))
            except GemmaqError:
                continue
            if source.room(plan) >= 0:
                fitting += 1
                predicted = source.losses.predicted(plan)
                assert predicted is not None and predicted >= found.predicted, (name, embedding)
    assert fitting > 20


def test_types_of_tables_that_the_user_has_chosen_stay(tmp_path: Path) -> None:
    checkpoint = open_source(str(wide_models.write("like-1B", tmp_path / "model")))
    request = Request(of("q4_0", embedding="q6_k"), ("gguf",))
    source = Source(checkpoint, request, Bits(5.6), made_up.sensitivities(checkpoint), {})
    found = best(source, choose(source))
    assert found is not None and found.plan.recipe.embedding == ENCODINGS["q6_k"]
    assert best(replace(source, goal=Bits(1)), choose(source)) is None
