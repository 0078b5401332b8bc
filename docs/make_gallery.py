"""The gallery of schedules: every one at several sizes in the report's viewer, one alone or beside another one.

``docs/hooks.py`` puts it into the site when that is built; ``python docs/make_gallery.py FOLDER`` writes it anywhere.
It opens from a folder without a server, where a page can load scripts but fetch no files: so the runs of each schedule
are a script that hands them over.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from string import Template
from typing import Any

sys.path.append(str(Path(__file__).parent))  # what stands beside this script

from schedule_charts import COSTS

from dualpipe_sim.base.show import in_html
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.pictures.report import Run, page_data, page_style, viewer_script
from dualpipe_sim.schedules.registry import ScheduleSpec, schedules
from dualpipe_sim.simulation import play

SIZES = ((4, 8), (8, 24), (16, 64))
FIRST, BESIDE, SIZE = "dualpipe", "1f1b", 1
_SCRIPT = Path(__file__).parent / "assets" / "gallery.js"

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="$policy">
<title>Every schedule, live</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<main>
<h1>Every schedule, live</h1>
<p>F = I = W = 1, transfers take no time. What each one is, and where it is the fastest:
<a href="../schedules/index.html">Schedules</a>.</p>
<p class="pick">
<label>schedule <select id="schedule">$schedules</select></label>
<label>beside <select id="beside"><option value="">none</option>$schedules</select></label>
<label>ranks × micro-batches <select id="size">$sizes</select></label>
</p>
<div id="viewer"></div>
</main>
<script src="viewer.js"></script>
<script src="gallery.js"></script>
</body>
</html>
""")
_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:"
)
"""Only the files beside it are loaded, also where it is opened from a folder."""
_PICK = """
.pick { display: flex; flex-wrap: wrap; gap: 0.4rem 1.2rem; margin: 0.6rem 0; }
.pick select {
  font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--faint-ink); border-radius: 6px;
  padding: 0.2rem 0.4rem; min-height: 2rem;
}
a { color: var(--focus); }
"""


def names() -> list[str]:
    """Return the schedules that it shows."""
    return list(schedules())


def files() -> dict[str, str]:
    """Return the gallery's files by their names."""
    page = _PAGE.substitute(
        policy=_POLICY,
        schedules="".join(f"<option>{in_html(name)}</option>" for name in names()),
        sizes="".join(f"<option>{size}</option>" for size in map(_size, SIZES)),
    )
    start = f"openGallery({json.dumps({'schedule': FIRST, 'beside': BESIDE, 'size': _size(SIZES[SIZE])})});\n"
    return {
        "index.html": page,
        "style.css": page_style() + _PICK,
        "viewer.js": viewer_script(),
        "gallery.js": _SCRIPT.read_text(encoding="utf-8") + start,
        **{f"{name}.js": _runs(spec) for name, spec in schedules().items()},
    }


def _runs(spec: ScheduleSpec) -> str:
    """Return the script that hands over a schedule's runs at each size."""
    runs = {_size(size): _played(spec, *size) for size in SIZES}
    return f"takeRuns({json.dumps(spec.name)},{json.dumps(runs, separators=(',', ':'))});\n"


def _played(spec: ScheduleSpec, ranks: int, micro_batches: int) -> dict[str, Any]:
    timeline = play(lower(spec.build(ranks, micro_batches, {}), COSTS))
    return page_data([Run(spec.name, timeline)])


def _size(size: tuple[int, int]) -> str:
    return "{} × {}".format(*size)


def write(folder: Path) -> None:
    """Write the gallery into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
