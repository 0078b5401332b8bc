"""How soon the live page shows what a slider is moved to, in a browser: from the event to the frame after drawing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

import numpy as np

from benchmarks.table import table

MOVES = 60
QUANTILES = (0.5, 0.95)
EXPERIMENTS = {
    "DeepSeek-V3, a stage a rank, DualPipe": ("deepseek_v3_stage_level", "compare=[]", "forward"),
    "the same, beside 1F1B and ZB-H1": ("deepseek_v3_stage_level", "compare=[dualpipe, 1f1b, zb-h1]", "forward"),
    "1F1B, layer by layer": ("deepseek_v3", "compare=[]&schedule=1f1b", "infiniband bandwidth"),
    "DualPipe, layer by layer": ("deepseek_v3", "compare=[]", "infiniband bandwidth"),
}
"""Configuration, what is set beside it, and the slider that moves; all of 16 ranks and 120 micro-batches."""

SETTLED = "document.body.dataset.ready === 'yes' && document.getElementById('results').ariaBusy === 'false'"
MOVE = """async ([label, share]) => {
  const slider = document.querySelector(`input[aria-label="${label} slider"]`);
  const results = document.getElementById("results");
  const begun = performance.now();
  slider.value = Number(slider.min) + share * (slider.max - slider.min);
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  slider.dispatchEvent(new Event("change", { bubbles: true }));
  await new Promise((done) => {
    const drawn = () => requestAnimationFrame(() => requestAnimationFrame(done));
    const look = () => (results.ariaBusy === "false" ? drawn() : setTimeout(look, 2));
    setTimeout(look, 2);
  });
  return performance.now() - begun;
}"""


def live_page() -> str:
    """Return a table of how many milliseconds moves of the bandwidth take; empty without a browser."""
    if shutil.which("chromium") is None:
        return "No Chromium here."
    rows = [[name, *_answered_ms(*what)] for name, what in EXPERIMENTS.items()]
    heads = [f"{100 * share:.0f} % within, ms" for share in QUANTILES]
    return table(["16 × 120", *heads, "within 150 ms"], rows)


def _answered_ms(config: str, query: str, slider: str) -> list[object]:
    from playwright.sync_api import sync_playwright

    with _served(config) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(f"{address}?{urlencode({'config': config})}&{query}")
        while not tab.evaluate(SETTLED):
            tab.wait_for_timeout(50)
        places = np.random.default_rng(0)
        took = [tab.evaluate(MOVE, [slider, float(places.uniform(0.2, 0.8))]) for _ in range(MOVES + 5)][5:]
        browser.close()
    took.sort()
    return [*(took[int(share * (MOVES - 1))] for share in QUANTILES), f"{sum(one <= 150 for one in took) / MOVES:.0%}"]


@contextmanager
def _served(config: str) -> Iterator[str]:
    command = [sys.executable, "-m", "dualpipe_sim", "explore", config, "--port", "0", "--no-open"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()
