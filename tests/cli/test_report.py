"""The command report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import CommandLine


def test_the_command_writes_the_page_with_its_configuration(command_line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    done = command_line("report", "figure5", "-o", file, "--set", "pipeline.micro_batches=40")
    assert done.returncode == 0, done.stderr
    html = file.read_text(encoding="utf-8")
    (data,) = re.findall('<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert "<h1>figure5</h1>" in html
    assert "# --set pipeline.micro_batches=40</pre>" in html
    assert json.loads(data)["runs"][0]["micro_batches"] == 40


@pytest.mark.parametrize(
    ("config", "file", "said"),
    [
        ("no_such", "report.pdf", "report.pdf: a report is a page; end its name in .html"),
        ("no_such", "report.html", "no such file, and no packaged config of this name"),
        ("figure5", "no/such/folder.html", "no/such/folder.html: cannot be written: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_the_file_s_name_is_looked_at_first(
    command_line: CommandLine, config: str, file: str, said: str
) -> None:
    done = command_line("report", config, "-o", file)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
