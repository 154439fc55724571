"""Tables of `gemmaq estimate-vram --published`: which are shown, and what is beside them."""

from __future__ import annotations

import json

from inprocess import run


def test_every_table_goes_by_its_publisher_and_date() -> None:
    titles = [line for line in run("estimate-vram", "--published").stdout.splitlines() if line.startswith("Google's")]
    assert len(titles) == 5
    assert titles[-2:] == [
        "Google's documentation: memory to load, GB, read November 2026",
        "Google's figures for Gemma 4, GB, at the QAT announcement, 5 June 2026",
    ]


def test_ranges_and_round_figures_are_quoted_as_they_stand() -> None:
    shown = run("estimate-vram", "--published").stdout
    assert "17-18" in shown and "about 24" in shown


def test_remarks_are_no_part_of_the_json() -> None:
    done = run("estimate-vram", "--published", "--json")
    assert done.stderr == "" and "3.35" not in done.stdout
    assert list(json.loads(done.stdout)["quoted"]) == ["documentation_load_gb", "mobile_int4_gb", "tables"]
