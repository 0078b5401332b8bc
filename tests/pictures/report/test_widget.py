"""The widget: what is chosen in the viewer comes to Python, and what Python sets is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import traitlets

from dualpipe_sim import compare, simulate
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.widget import Selected, ViewerWidget

if TYPE_CHECKING:
    from tests.pictures.report.conftest import Browser


@pytest.fixture
def widget() -> Iterator[ViewerWidget]:
    one = compare("figure5").widget(first="1f1b")
    yield one
    one.close()


def test_an_op_that_is_chosen_has_its_rank_and_times(widget: ViewerWidget) -> None:
    heard: list[Selected | None] = []
    widget.observe(lambda change: heard.append(change["new"]), "selected")
    widget.op = "3b7"
    # 1F1B on 8 ranks of F 1 and B 2: 7B7 ends at 7 + 8 x 3, and each rank above needs 2 more
    assert widget.selected == Selected("1f1b", "3B7", 3, 37.0, 39.0)
    widget.run = "zb-h1"  # which has I and W for it
    assert widget.op == ""
    assert heard == [Selected("1f1b", "3B7", 3, 37.0, 39.0), None]


def test_times_are_those_of_the_timeline_to_the_last_bit() -> None:
    result = simulate("deepseek_v3_pair")
    timeline = result.played
    widget = result.widget()
    schedule = timeline.graph.schedule
    for row in (0, len(schedule.kind) // 2, len(schedule.kind) - 1):
        widget.op = str(next(iter(schedule.order[int(schedule.rank[row])])).ops[0])
        first = timeline.first_task_of_rank[int(schedule.rank[row])]
        assert widget.selected is not None
        assert widget.selected.start_s == timeline.task_start_s[first]
        assert widget.selected.end_s == timeline.task_end_s[first]
    widget.close()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("op", "99F0", "1f1b has no op '99F0'"),
        ("op", "(0F7;7B3)OVERLAP_F_B", "is no single op; write one as 3B7: stage, kind, micro-batch"),
        ("op", "three", "'THREE' is no task; write an op as 5F3"),
        ("run", "gpipe", "there is no run 'gpipe'; there are dualpipe, zb-h1, chimera, 1f1b"),
        ("window", [3.0, 1.0], r"\[3.0, 1.0\] is no window; give its begin and end in seconds, or \[\]"),
    ],
)
def test_what_is_not_there_is_refused(widget: ViewerWidget, name: str, value: object, said: str) -> None:
    before = getattr(widget, name)
    with pytest.raises(traitlets.TraitError, match=said):
        setattr(widget, name, value)
    assert getattr(widget, name) == before


def test_without_anywidget_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "dualpipe_sim.pictures.widget")
    with pytest.raises(UserError, match=r"^the widget needs anywidget; pip install 'dualpipe-sim\[widget\]'$"):
        simulate("figure5").widget()


MODEL = """(state) => {
  const heard = {};
  window.model = {
    state, saved: 0,
    get: (name) => model.state[name],
    set: (name, value) => { model.state[name] = value; },
    save_changes: () => { model.saved += 1; },
    on: (event, act) => { heard[event] = act; },
    off: (event, act) => { if (heard[event] === act) delete heard[event]; },
    python: (name, value) => { model.state[name] = value; heard[`change:${name}`]?.(); },
    heard,
  };
}"""
"""A model as a notebook gives it to a widget; ``python`` sets what Python would."""


def render(browser: Browser, widget: ViewerWidget) -> None:
    """Load the widget's module into an empty page, with a model that has its traits."""
    file = browser.folder / "cell.html"
    style = f"<style>{widget._css}</style>"
    file.write_text(f"<!DOCTYPE html><meta charset=utf-8><title>cell</title>{style}<div id=cell></div>", "utf-8")
    browser.tab.goto(file.as_uri())
    browser.tab.evaluate(MODEL, {name: getattr(widget, name) for name in ("data", "run", "op", "window")})
    browser.tab.evaluate(
        """async (module) => {
            const { default: one } = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
            window.forget = await one.render({ model, el: document.querySelector("#cell") });
            document.body.dataset.ready = "yes";
        }""",
        str(widget._esm),
    )
    browser.opened()


def take(browser: Browser, widget: ViewerWidget) -> None:
    """Give Python what the model holds, as one message does."""
    with widget.hold_trait_notifications():
        for name, value in json.loads(browser.ask("JSON.stringify(model.state)")).items():
            if name != "data":
                setattr(widget, name, value)


def test_what_is_looked_at_comes_to_python(browser: Browser, widget: ViewerWidget) -> None:
    render(browser, widget)
    browser.tab.mouse.click(*browser.place(23, 0.5))
    browser.wait("model.state.op === '0B0'")
    take(browser, widget)
    assert widget.selected == Selected("1f1b", "0B0", 0, 22.0, 24.0)
    browser.choose("dualpipe")
    browser.click(".zoom-in")
    browser.wait("model.state.window[0] > 0 && model.state.run === 'dualpipe'")
    take(browser, widget)
    assert widget.run == "dualpipe"
    assert widget.window == [16.5, 49.5]


def test_what_python_sets_is_shown(browser: Browser, widget: ViewerWidget) -> None:
    widget.op = "2F1"
    render(browser, widget)
    assert browser.ask("said.textContent").startswith("2F1 ")
    browser.tab.evaluate("() => model.python('window', [10, 20])")
    browser.wait("gantt.dataset.from === '10'")
    assert browser.span() == (10, 20)
    browser.tab.evaluate("() => model.python('op', '0B3')")
    browser.wait("said.textContent.startsWith('0B3 ')")
    browser.tab.evaluate("() => model.python('run', 'zb-h1')")
    browser.wait("gantt.dataset.run === 'zb-h1'")
    browser.wait("model.state.op === ''")
    browser.ask("forget()")
    assert browser.ask("[document.querySelector('#cell').childElementCount, Object.keys(model.heard)]") == [0, []]


def test_what_is_told_once_is_not_told_again(browser: Browser, widget: ViewerWidget) -> None:
    render(browser, widget)
    browser.wait("model.state.window.length === 2")
    saved: Any = browser.ask("model.saved")
    browser.tab.evaluate("() => model.python('window', model.state.window.slice())")
    browser.tab.evaluate("() => new Promise((later) => setTimeout(later, 300))")
    assert browser.ask("model.saved") == saved
