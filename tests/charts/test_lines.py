"""`estimate-vram --plot`: what the drawing says, the same bytes every time, and when there is none."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from damage import mounted, small_model
from gemmaq.charts import Labels
from gemmaq.charts import lines as charts
from inprocess import run

pytest.importorskip("matplotlib")

SVG = "{http://www.w3.org/2000/svg}"


def draw(path: Path, *options: object, code: int = 0) -> str:
    return run("estimate-vram", *options, "--plot", path, code=code).stderr


def texts(path: Path) -> list[str]:
    """What is written in a drawing; matplotlib draws letters as shapes and says beside them what they are."""
    return re.findall(r"<!-- (.+?) -->", path.read_text())


def test_what_a_drawing_says(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    said = draw(path, "27b", "--quant", "q4_0", "--quant", "q8_0", "--gpu", "4090", "--gpu", "m4 max 64gb")
    assert f"written: {path}" in said
    found = texts(path)
    for text in (
        "gemma-3-27b in llama.cpp, f16 KV cache",
        "context, tokens",
        "memory, GiB",
        "q4_0",
        "q8_0",
        "RTX 4090, 24.0 GiB",
        "M4 Max 64GB, 48.0 GiB",
        "2K",
        "8K",
        "128K",
    ):
        assert found.count(text) == 1, found


def test_names_of_lines_tell_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    draw(path, "1b", "270m", "--quant", "q4_0", "--kv-type", "q8_0,f16", "--engine", "libllama")
    assert {"Memory in llama.cpp as a library, q8_0,f16 KV cache", "1b q4_0", "270m q4_0"} <= set(texts(path))
    draw(path, "4b", "--quant", "q4_0", "--embedding", "f16", "--embedding", "q8_0", "--force")
    assert {"q4_0 / f16", "q4_0 / q8_0"} <= set(texts(path))


def test_a_line_is_the_memory_at_every_context(tmp_path: Path) -> None:
    """Heights in the drawing stand in the relation of the estimates."""
    path = tmp_path / "a.svg"
    draw(path, "27b", "--quant", "q4_0", "--gpu", "24GB")
    lines = [element.get("d", "") for element in ElementTree.parse(path).iter(f"{SVG}path")]
    (line,) = [line for line in lines if line.count("L") >= 10 and "Q" not in line and "z" not in line]
    points = [tuple(map(float, point)) for point in re.findall(r"([\d.]+) ([\d.]+)", line)]
    answer = run("estimate-vram", "27b", "--quant", "q4_0", "--json", *(f"--context={2048 * 2**n}" for n in range(7)))
    totals = [entry["bytes"]["total"] for entry in json.loads(answer.stdout)["estimates"]]
    heights = [y for _, y in points[::2]]
    assert len(heights) == len(totals) == 7
    shares = [(y - heights[0]) / (heights[-1] - heights[0]) for y in heights]
    assert shares == pytest.approx([(t - totals[0]) / (totals[-1] - totals[0]) for t in totals], abs=1e-3)
    steps = [after[0] - before[0] for before, after in pairwise(points[::2])]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-3)


@pytest.mark.parametrize("name", ["a.svg", "A.PNG"])
def test_the_same_bytes_every_time(tmp_path: Path, gemmaq, name: str) -> None:
    """In another process and another folder too: no date, no path, no chance."""
    command = ("4b", "--gpu", "8GB", "--plot")
    run("estimate-vram", *command, tmp_path / name)
    (tmp_path / "b").mkdir()
    gemmaq("estimate-vram", *command, name, cwd=tmp_path / "b", env={"PYTHONHASHSEED": "7"})
    content = (tmp_path / name).read_bytes()
    assert content == (tmp_path / "b" / name).read_bytes()
    assert str(tmp_path).encode() not in content


def test_a_png_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    draw(path, "1b")
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[12:16] == b"IHDR"
    width, height = struct.unpack(">II", content[16:24])
    assert width >= 1000 and height >= 600


def test_results_are_printed_all_the_same(tmp_path: Path) -> None:
    plain = run("estimate-vram", "27b", "--json").stdout
    assert run("estimate-vram", "27b", "--json", "--plot", tmp_path / "a.svg").stdout == plain
    contexts = ("--context", 4096, "--context", 131072)
    done = run("estimate-vram", "27b", *contexts, "-q", "--plot", tmp_path / "b.svg")
    assert done.stdout == run("estimate-vram", "27b", *contexts, "-q").stdout and done.stderr == ""
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()  # whatever contexts were asked for


def test_a_model_of_a_short_context(tmp_path: Path) -> None:
    """Its longest context is the shortest of others; matplotlib has nothing to warn of."""
    folder = small_model(tmp_path / "gemma-3-tiny")
    path = tmp_path / "a.svg"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(path, folder, "--context", 1024)
    assert {"1K", "2K", "bf16", "q4_0"} <= set(texts(path))


def test_a_card_far_above_is_left_out_unless_it_is_the_only_one(tmp_path: Path) -> None:
    draw(tmp_path / "a.svg", "270m", "--gpu", "4GB", "--gpu", "h200")
    assert "4 GB, 4.0 GiB" in texts(tmp_path / "a.svg")
    assert not any("H200" in text for text in texts(tmp_path / "a.svg"))
    draw(tmp_path / "b.svg", "270m", "--gpu", "h200")
    assert any("H200" in text for text in texts(tmp_path / "b.svg"))


def test_levels_are_what_the_engine_may_use(tmp_path: Path) -> None:
    draw(tmp_path / "a.svg", "27b", "--quant", "q4_0", "--engine", "vllm", "--gpu", "48GB")
    assert f"48 GB, {48 * 0.9:.1f} GiB" in texts(tmp_path / "a.svg")


@pytest.mark.parametrize("name", ["a.jpg", "a.pdf", "a", "svg", ".svg", "a.svg.txt"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    said = draw(tmp_path / name, "27b", code=2)
    assert name in said and ".svg or .png" in said and not list(tmp_path.iterdir())


def test_an_existing_file_stays_without_force(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text("mine")
    assert "--force" in draw(path, "27b", code=7)
    assert path.read_text() == "mine"
    draw(path, "27b", "--force")
    assert path.read_text().startswith("<?xml")
    assert [p.name for p in tmp_path.iterdir()] == ["a.svg"]


def test_a_link_is_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "a.svg").symlink_to(tmp_path / "elsewhere.svg")
    draw(tmp_path / "a.svg", "27b", code=7)
    assert not (tmp_path / "elsewhere.svg").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    said = draw(tmp_path / "nowhere/a.svg", "27b", code=7)
    assert "nowhere/a.svg cannot be written" in said and not list(tmp_path.iterdir())


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.svg").mkdir()
    assert "cannot be written" in draw(tmp_path / "a.svg", "27b", "--force", code=7)
    assert [p.name for p in tmp_path.iterdir()] == ["a.svg"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "readonly", "ro") as folder:
        assert "cannot be written" in draw(folder / "a.svg", "27b", code=7)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "cannot be written" in draw(tmp_path / "file/a.svg", "27b", code=7)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    assert "cannot be written" in draw(tmp_path / ("a" * 300 + ".svg"), "27b", code=7)


def test_more_lines_than_can_be_told_apart(tmp_path: Path) -> None:
    types = [part for kind in ("bf16", "q8_0", "q4_0") for part in ("--quant", kind)]
    said = draw(tmp_path / "a.svg", *types, code=2)
    assert "15 lines" in said and "12" in said and not list(tmp_path.iterdir())


def test_names_at_the_ends_of_lines_do_not_overlap(tmp_path: Path) -> None:
    """Twelve lines, some of nearly the same height."""
    types = [part for kind in ("q8_0", "q4_0", "q5_k_m") for part in ("--quant", kind)]
    path = tmp_path / "a.svg"
    draw(path, "270m", "1b", "4b", "12b", *types)
    places = dict(re.findall(r"<!-- (\d+m?b? q\w+) -->\s*<g [^>]*translate\([\d.]+ ([\d.]+)\)", path.read_text()))
    assert len(places) == 12
    heights = sorted(map(float, places.values()))
    assert min(after - before for before, after in pairwise(heights)) > 11


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else known(name))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = draw(tmp_path / "a.svg", "27b", code=2)
    assert "matplotlib" in said and "pip install matplotlib" in said and not list(tmp_path.iterdir())
    assert ".svg or .png" in draw(tmp_path / "a.jpg", "27b", code=2)
    run("estimate-vram", "27b")


@pytest.mark.parametrize("suffix", charts.SUFFIXES)
def test_a_chart_of_anything(suffix: str) -> None:
    lines = [charts.Line(f"line {n}", ((1024.0, n), (4096.0, n + 1.0))) for n in range(28)]
    drawn = charts.draw(suffix, Labels("title", "x", "y"), lines)
    assert len(drawn) > 10_000 and drawn != charts.draw(suffix, Labels("title", "x", "z"), lines)


def test_a_curve_and_its_mean(tmp_path: Path) -> None:
    """Linear, the values faint and without a name, cut off above `top`; one step is a curve, too."""
    values = charts.Line("each", tuple((float(x), 1.0 + x % 2) for x in range(1, 41)), faint=True)
    mean = charts.Line("mean", tuple((float(x), 1.5) for x in range(2, 41)))
    path = tmp_path / "a.svg"
    path.write_bytes(charts.draw(".svg", Labels("loss", "step", "KL"), [mean, values], top=2.0))
    shown = texts(path)
    assert "mean" in shown and "each" not in shown and "1K" not in shown and "40" in shown
    one = charts.Line("mean", ((1.0, 0.0),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert charts.draw(".png", Labels("loss"), [one], top=0.0)
