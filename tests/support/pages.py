"""Pages of evaluations that never were, and a browser to look at them."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gemmaq.convert.compare import Compared
from gemmaq.evaluate.chunks import Chunks
from gemmaq.evaluate.report import Page
from gemmaq.evaluate.result import Result
from gemmaq.evaluate.score import Score

KINDS = {
    "self_attn.q_proj": "q_proj", "self_attn.k_proj": "k_proj", "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "o_proj", "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down",
}  # fmt: skip


def page_of(labels: list[str], divergences: list[float], layers: int = 18, chunks: int = 32) -> Page:
    """Models of these mean divergences; sizes fall with them."""
    random = np.random.default_rng(1)
    cut = Chunks(np.zeros((chunks, 512), np.int64), chunks + 9)
    names = ("reference", *labels)
    found, apart = [], []
    for number, (label, mean) in enumerate(zip(names, (0.0, *divergences), strict=True)):
        kl = random.gamma(0.5, 2 * mean, cut.scored) if mean else np.zeros(cut.scored)
        score = Score(random.normal(3, 1, cut.scored), kl, random.random(cut.scored) > mean)
        size = 54_000_000_000 if not number else round(8e9 + 2e9 * random.random() + 1e9 / (mean + 0.03))
        found.append(Result(label, label, size, 16.0, score, not number))
        if number:
            apart.append(_compared(random, mean, layers))
    rows = [
        (model.label, f"{model.bytes / 1e9:.1f} GB", "4.50", "12.345 ± 0.123", "0.1234", "0.0012", "1.2345", "95.12 %")
        for model in found
    ]
    columns = ("model", "size", "bits/weight", "perplexity", "mean KL", "KL ±", "99 % KL", "top-1")
    return Page(found, apart, cut, ("prose.txt", "code.txt"), "1.2.3", (columns, *rows))


def _compared(random: np.random.Generator, mean: float, layers: int) -> list[Compared]:
    found = [Compared("model.embed_tokens.weight", "embedding", None, "q8_0", 100, mean * 1e-4, 100.0)]
    for layer in range(layers):
        for name, kind in KINDS.items():
            error = mean * random.uniform(0.5, 1.5)
            found.append(Compared(f"model.layers.{layer}.{name}.weight", kind, layer, "q4_0", 100, error, 100.0))
        found.append(Compared(f"model.layers.{layer}.input_layernorm.weight", "norm", layer, "f32", 100, 0.0, 100.0))
    return found


def browser() -> str | None:
    """Chromium, under any of its names."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


LOOK = """
const shown = element => element.getClientRects().length > 0 && !element.closest('details:not([open])');
const light = color => {
  const even = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = color.match(/[\\d.]+/g).map(v => even(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = element => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (color !== 'rgba(0, 0, 0, 0)') return color;
  }
};
const found = {overlaps: [], outside: [], faint: [], charts: document.querySelectorAll('svg').length};
for (const svg of document.querySelectorAll('svg')) {
  const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  const frame = svg.getBoundingClientRect();
  texts.forEach(([name, a], at) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 2 || a.bottom > frame.bottom + 2)
      found.outside.push(name);
    for (const [other, b] of texts.slice(at + 1))
      if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3)
        found.overlaps.push([name, other]);
  });
}
for (const element of document.querySelectorAll('h1, h2, h3, p, th, td, summary, svg text')) {
  if (!shown(element)) continue;
  const style = getComputedStyle(element);
  const ink = light(element.closest('svg') ? style.fill : style.color), paper = light(behind(element));
  const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  if (contrast < 4.5) found.faint.push([element.textContent, contrast]);
}
found.wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
found.names = Math.min(...[...document.querySelectorAll('tbody th')].filter(shown).map(t => t.clientWidth));
found.hidden = [...document.querySelectorAll('svg circle')].filter(
  point => point.getBoundingClientRect().right > document.documentElement.clientWidth
).length;
found.paper = light(getComputedStyle(document.body).backgroundColor);
found.requests = performance.getEntriesByType('resource').map(entry => entry.name);
const pre = document.createElement('pre');
pre.id = 'found';
pre.textContent = JSON.stringify(found);
document.body.append(pre);
"""
"""What a browser is asked about a page."""


def look(program: str, page: str, dark: bool, width: int = 1000) -> dict[str, Any]:
    """Open a page in a real browser: labels that overlap or stick out, text of too little contrast, what it loads."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(page.replace("</body>", f"<script>{LOOK}</script></body>"))
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={width},1200", "--dump-dom"]
        command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    return result
