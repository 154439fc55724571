"""The page of an evaluation: what is in it, and how a real browser shows it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from gemmaq.evaluate.report import render
from pages import browser, look, page_of

FEW = (["gemma-3-4b-Q8_0", "gemma-3-4b-Q4_0", "gemma-3-4b-Q4_0-gptq"], [0.0009, 0.31, 0.09])
LONG = "a-model-whose-name-is-much-longer-than-any-chart-has-room-for"
PAGES = {
    "few": FEW,
    "one": (["gemma-3-4b-Q4_0"], [0.3]),
    "many": ([f"gemma-3-27b-Q4_0-{n}" for n in range(11)], [0.05 + 0.001 * n for n in range(11)]),
    "exact": (["gemma-3-4b-BF16", "gemma-3-4b-Q4_0", "gemma-3-4b-F32"], [0.0, 0.3, 0.0]),
    "nothing": (["gemma-3-4b-BF16"], [0.0]),
    "long": ([LONG, LONG + "-2", "short"], [0.01, 0.012, 0.3]),
}


class _Checked(HTMLParser):
    """Fails on tags that are not closed, and collects what might load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_whole_and_loads_nothing(name):
    text = render(page_of(*PAGES[name]))
    checked = _Checked()
    checked.feed(text)
    checked.close()
    assert checked.open == []
    assert checked.addresses == []
    assert not checked.tags & {"script", "link", "img", "iframe", "object", "base"}
    assert not re.search(r"https?:|@import|url\(|nan|inf\b", text, re.IGNORECASE)
    assert text == render(page_of(*PAGES[name]))


def test_names_are_only_text():
    page = page_of(["<script>alert(1)</script>", '"><b>&amp;'], [0.1, 0.2])
    text = render(page)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<b>" not in text
    checked = _Checked()
    checked.feed(text)
    assert checked.open == []


def test_numbers_are_in_the_page():
    page = page_of(*FEW)
    text = render(page)
    for row in page.table:
        assert all(cell in text for cell in row)
    kl = page.models[1].score.kl
    assert f"{kl.mean():.4f}" in text
    running = kl.reshape(32, -1).mean(1).cumsum() / np.arange(1, 33)
    assert f"{running[0]:.4f}" in text
    wanted = next(tensor for tensor in page.errors[1] if "layers.7.mlp.up_proj" in tensor.name)
    assert f"layer 7, up: {100 * wanted.error:.2f} %" in text
    assert text.count("<svg") == 2 + 1 + len(page.models)
    assert text.count("<title>") == text.count("</title>")


@pytest.mark.parametrize(("layers", "chunks"), [(62, 1), (1, 300)])
def test_sizes_of_models_and_texts(layers, chunks):
    text = render(page_of(*FEW, layers=layers, chunks=chunks))
    assert f"layer {layers - 1}, down" in text
    assert len(text) < 1_000_000


@pytest.mark.oracle
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_it_well(name, dark):
    program = browser() or pytest.skip("no browser here")
    text = render(page_of(*PAGES[name], layers=62 if name == "many" else 18))
    found = look(program, text, dark)
    assert found["charts"] >= 2
    assert found["overlaps"] == []
    assert found["outside"] == []
    assert found["faint"] == []
    assert found["requests"] == []
    assert found["wider"] <= 0
    assert (found["paper"] < 0.1) == dark


@pytest.mark.oracle
@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_names_and_points(name):
    """Tables scroll under the names of models, which are not broken into letters; charts are as wide as the screen."""
    program = browser() or pytest.skip("no browser here")
    found = look(program, render(page_of(*PAGES[name])), dark=False, width=500)
    assert found["wider"] <= 0
    assert found["names"] >= 100 and found["hidden"] == 0
