// @ts-check
// The viewer: which runs are shown, which part of them, and which op. All of it is inside one element, so that a page can
// have several.

const VIEWER = `
<nav class="runs" aria-label="schedule"></nav>
<div class="tools">
<span class="group layout" role="group" aria-label="layout">
<button type="button" class="one">one</button><button type="button" class="side">side by side</button></span>
<span class="group" role="group" aria-label="zoom">
<button type="button" class="zoom-in" title="zoom in" aria-label="zoom in">+</button>
<button type="button" class="zoom-out" title="zoom out" aria-label="zoom out">−</button>
<button type="button" class="fit-run">whole run</button>
<button type="button" class="fit-all" title="as long as the longest of all runs">same axis for all</button></span>
<span class="group" role="group" aria-label="step through the run">
<button type="button" class="back" title="the op before (p)" aria-label="the op before">◂</button>
<button type="button" class="play" title="play, pause (space)">play</button>
<button type="button" class="next" title="the next op (n)" aria-label="the next op">▸</button>
<button type="button" class="stop" hidden>all of it</button></span>
<form class="group search"><input type="text" class="op" size="8" placeholder="op, as 3B7" aria-label="name of an op: stage, kind, micro-batch, as 3B7" autocomplete="off" spellcheck="false"><button>find</button></form>
<span class="group" role="group" aria-label="save what is shown">
<button type="button" class="png">PNG</button><button type="button" class="svg">SVG</button></span>
<label><input type="checkbox" class="idle" checked> idle time by cause</label>
<label><input type="checkbox" class="path"> critical path</label>
<label class="lanes-choice" hidden><input type="checkbox" class="lanes" checked> lanes of compute and collectives</label>
</div>
<div class="legend gantt-legend"></div>
<div class="chart"><canvas class="overview" role="img" aria-label="the whole run and the part of it shown"></canvas></div>
<div class="panels"></div>
<p class="said" role="status"></p>
<p class="faint">Wheel or pinch zooms, drag moves, double click shows all; hover or tap for details, click to keep an op. On a chart the
arrow keys go from op to op, with shift they move the window; n and p step through the run, space plays it.</p>
<section class="memory-section">
<h2 class="memory-title">Memory</h2>
<div class="legend memory-legend"></div>
<div class="chart"><canvas class="memory" tabindex="0" role="img" aria-label="what each rank holds over time"></canvas></div>
</section>
<section>
<h2>Idle time by cause</h2>
<div class="legend causes-legend"></div>
<div class="causes" aria-hidden="true"></div>
<details><summary>as a table</summary><div class="wide" tabindex="0" role="region" aria-label="idle time by cause"><table class="idle-table"><thead></thead><tbody></tbody></table></div></details>
</section>
<div class="tip" hidden></div>`;

const SEEN_PX = 16; // width from which an op is seen well

class Viewer {
  /** @param {HTMLElement} root @param {PageData} data @param {MountOptions} options */
  constructor(root, data, options) {
    this.data = data;
    this.options = options;
    root.classList.add("viewer");
    root.innerHTML = VIEWER;
    this.root = root;
    /** @type {Find} */
    this.find = (name) => /** @type {any} all are in VIEWER */ (root.querySelector(`.${name}`));
    this.ended = new AbortController();
    this.overview = new Chart(this.find("overview"));
    this.memory = new Chart(this.find("memory"));
    /** @type {View} */
    this.view = { from: 0, to: 1, whole: 1, fits: "run" };
    /** @type {Wanted} */
    this.look = { side: false, lanes: true, idle: true, path: false };
    /** @type {Panel[]} */
    this.panels = [];
    /** @type {Chosen | null} the op that is looked at until another one is */
    this.chosen = null;
    /** @type {number | null} the moment up to which one has stepped */
    this.now_s = null;
    this.shown = 0; // the place of the run that is shown alone, or was last
    /** @type {Set<number>} */
    this.beside = new Set();
    this.asked = 0; // how often something else was to be shown
    this.frame = 0;
    /** @type {Panel | null} the run that is looked at, of those shown */
    this.active = null;
    /** @type {Player | null} */
    this.player = null;
    this.most = 1; // that any rank shown holds
    this.units = SECONDS;
    /** @type {string[]} of causes */
    this.fills = [];
    /** @type {Promise<Run>[]} */
    this.unpacked = [];
    this.moves = {
      view: this.view,
      zoom: this.zoom.bind(this),
      pan: this.pan.bind(this),
      fitAgain: this.fitAgain.bind(this),
      hideTip: () => this.tip(null, null),
    };
  }

  /** @param {PageData} data */
  take(data) {
    this.data = data;
    this.units = data.runs.every((one) => one.unitless) ? NO_UNIT : SECONDS;
    this.fills = Object.values(data.causes).map(({ fill }) => fill);
    this.unpacked = [];
    this.find("runs").replaceChildren(
      ...data.runs.map((one, place) => {
        const button = element("button", { type: "button", onclick: () => this.toggle(place) }, one.label);
        button.append(element("small", {}, ` ${formatTime(this.units, one.makespan_s)}`));
        return button;
      }),
    );
    const alone = data.runs.length < 2;
    this.find("layout").hidden = alone;
    if (alone) this.look.side = false;
  }

  /** @param {number} place */
  runAt(place) {
    this.unpacked[place] ??= unpack(this.data.runs[place], this.data, this.units);
    return this.unpacked[place];
  }

  // Show this run alone; among others, show it too, or no longer.
  /** @param {number} place */
  toggle(place) {
    const { beside } = this;
    if (!this.look.side) this.shown = place;
    else if (!beside.delete(place)) beside.add(place);
    if (!beside.size) beside.add(place);
    return this.arrange();
  }

  // Give each run that is to be shown its panel, once all are unpacked.
  async arrange() {
    this.asked += 1;
    const { asked, look } = this;
    const places = look.side ? [...this.beside].sort((a, b) => a - b) : [this.shown];
    const runs = await Promise.all(places.map((place) => this.runAt(place)));
    if (asked !== this.asked || this.ended.signal.aborted) return; // something else was asked for meanwhile
    const kept = this.chosen?.panel.run;
    this.panels = this.panelsFor(runs);
    this.panels.forEach((panel, place) => {
      panel.hovered = -1; // only now: until here the pointer was on the run before
      panel.show(runs[place], look);
    });
    if (this.chosen && (this.chosen.panel.run !== kept || !this.panels.includes(this.chosen.panel))) this.chosen = null;
    if (!this.active || !this.panels.includes(this.active)) this.active = this.panels[0];
    this.most = Math.max(...runs.map((run) => Math.max(run.limit ?? 0, ...run.occupancy.peaks)));
    this.tip(null, null);
    if (this.view.fits) this.fit(this.view.fits);
    else this.view.whole = Math.max(this.view.to, this.longest());
    showControls(this, places);
    this.redraw();
    this.tell();
  }

  // A panel for each run: the one that shows it already, else one whose run is shown no longer, else a new one.
  /** @param {Run[]} runs */
  panelsFor(runs) {
    const free = this.panels.filter(({ run }) => !run || !runs.includes(run));
    const panels = runs.map((run) => this.panels.find((panel) => panel.run === run) ?? free.shift() ?? new Panel(this));
    for (const panel of free) panel.remove();
    const place = this.find("panels");
    panels.forEach(({ element: one }, at) => {
      if (place.children[at] !== one) place.insertBefore(one, place.children[at] ?? null);
    });
    return panels;
  }

  // How long the longest of the runs on one axis takes: of those side by side, of one alone itself.
  longest(all = false) {
    const runs = all && !this.look.side ? this.data.runs : this.panels.map(({ run }) => run);
    return Math.max(...runs.map((run) => run?.makespan_s ?? 0)) || 1;
  }

  redraw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    const run = this.active?.run;
    if (!run || this.ended.signal.aborted || !this.root.clientWidth) return;
    for (const panel of this.panels) panel.draw();
    drawOverview(this.overview, run, this.view);
    if (!this.look.side) drawMemory(this.memory, run, this.view);
  }

  drawMarks() {
    for (const panel of this.panels) panel.drawMarks();
  }

  /** @param {number} from @param {number} to */
  zoomTo(from, to) {
    const { view } = this;
    const length = clamp(to - from, view.whole * 1e-7, view.whole);
    view.from = clamp(from, 0, view.whole - length);
    view.to = view.from + length;
    if (length < view.whole) view.fits = "";
    this.tip(null, null);
    this.redraw();
    this.tell();
  }

  // Show all of what is shown, or the time that the longest of all runs takes, so that they can be compared.
  /** @param {"run" | "all"} what */
  fit(what) {
    this.view.fits = what;
    this.view.whole = this.longest(what === "all");
    this.zoomTo(0, this.view.whole);
  }

  fitAgain() {
    this.fit(this.view.whole === this.longest(true) && this.longest() < this.view.whole ? "all" : "run");
  }

  /** @param {number} factor */
  zoom(factor, around = (this.view.from + this.view.to) / 2) {
    this.zoomTo(around - (around - this.view.from) * factor, around + (this.view.to - around) * factor);
  }

  /** @param {number} share */
  pan(share) {
    const { from, to } = this.view;
    this.zoomTo(from + share * (to - from), to + share * (to - from));
  }

  /** @param {PointerEvent | null} event @param {Line[] | null} lines */
  tip(event, lines) {
    showTip(this.find("tip"), event, lines);
  }

  /** @param {Panel} panel */
  activate(panel) {
    if (this.active === panel) return;
    this.active = panel;
    this.redraw();
    this.tell();
  }

  /** @param {Panel} panel */
  marked(panel) {
    return this.chosen?.panel === panel ? this.chosen.task : -1;
  }

  // Look at a task, or at none, and say what it is; while one steps through the run, go to its begin.
  /** @param {Panel} panel @param {number} task @param {number} [op] the one of the task that is meant */
  mark(panel, task, op) {
    const { run } = panel;
    if (!run) return;
    this.active = panel;
    this.chosen = task < 0 ? null : { panel, task, op: op ?? run.firstOp[task] };
    if (task >= 0 && this.now_s !== null) this.now_s = run.task.begin[task];
    this.say(task < 0 ? "" : spoken(taskLines(run, task, op)));
    this.drawMarks();
    this.tell();
  }

  // Bring a task into the window, and where it could hardly be seen, so wide that it can.
  /** @param {Panel} panel @param {number} task */
  show(panel, task) {
    const { run } = panel;
    if (!run) return;
    const { view } = this;
    const [begin, end] = [run.task.begin[task], run.task.end[task]];
    const narrow = panel.gantt.x(end) - panel.gantt.x(begin) < SEEN_PX;
    const length = narrow ? Math.min(view.to - view.from, 40 * (end - begin) || view.to - view.from) : view.to - view.from;
    if (begin < view.from || end > view.to || length < view.to - view.from) this.zoomTo((begin + end - length) / 2, (begin + end + length) / 2);
    panel.element.scrollIntoView({ block: "nearest" });
  }

  /** @param {string} text */
  say(text) {
    this.find("said").textContent = text;
  }

  tell() {
    const { active, chosen, view } = this;
    if (!active?.run) return;
    this.options.onselect?.({ run: active.run.label, from_s: view.from, to_s: view.to, op: chosen ? chosenOp(chosen) : null });
  }

  destroy() {
    this.ended.abort();
    for (const panel of this.panels) panel.remove();
    cancelAnimationFrame(this.frame);
    this.root.replaceChildren();
    this.root.classList.remove("viewer");
  }
}

// What is told of an op outside: its name, and where and when it runs.
/** @param {Chosen} chosen @returns {ShownOp | null} */
function chosenOp({ panel: { run }, task, op }) {
  if (!run) return null;
  return { name: opName(run, op), rank: run.rank[op], begin_s: run.task.begin[task], end_s: run.task.end[task] };
}

/** @param {HTMLElement} root @param {PageData} data @param {MountOptions} [options] @returns {Promise<ViewerHandle>} */
async function mountViewer(root, data, options = {}) {
  const viewer = new Viewer(root, data, options);
  viewer.take(data);
  viewer.shown = data.first;
  viewer.beside = new Set(data.runs.keys());
  await restoreState(viewer, options.state ?? "");
  listenToControls(viewer);
  return {
    async update(next) {
      await keepShown(viewer, next);
    },
    state: () => writeState(viewer),
    restore: (state) => restoreState(viewer, state),
    select: (text) => findOp(viewer, text),
    destroy: () => viewer.destroy(),
  };
}
