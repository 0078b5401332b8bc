// @ts-check
// One run as the viewer shows it: its Gantt chart, what lies over it, and among others its strips and its critical path.

class Panel {
  /** @param {Viewer} owner */
  constructor(owner) {
    this.owner = owner;
    this.element = element("div", { className: "panel" });
    this.element.innerHTML = `
<h2 class="panel-name"></h2>
<div class="chart"><canvas class="gantt" tabindex="0" role="application" aria-roledescription="Gantt chart"></canvas><canvas class="over"></canvas></div>
<div class="chart"><canvas class="strips" role="img"></canvas></div>
<p class="path-parts"></p>`;
    const find = (/** @type {string} */ name) => /** @type {HTMLCanvasElement} */ (this.element.querySelector(`.${name}`));
    this.name = find("panel-name");
    this.parts = find("path-parts");
    this.gantt = new Chart(find("gantt"));
    this.over = new Chart(find("over"));
    this.strips = new Chart(find("strips"));
    this.hovered = this.hoveredOp = -1; // the task and the op that the pointer is on
    this.seen = true;
    this.stale = true;
    /** @type {Run | null} */
    this.run = null;
    const nearby = { rootMargin: "300px" };
    this.watch = new IntersectionObserver(([entry]) => {
      this.seen = entry.isIntersecting;
      if (this.seen && this.stale) owner.redraw();
    }, nearby);
    this.listen();
  }

  listen() {
    const { owner, gantt, strips } = this;
    const { moves } = owner;
    listenTo(gantt, {
      ...moves,
      tip: (event) => {
        if (!this.run) return;
        const { task, op, lines } = ganttLines(gantt, this.run, event);
        this.hover(task, op);
        owner.tip(event, lines);
      },
      click: () => owner.mark(this, this.hovered, this.hoveredOp),
      key: (key) => onKey(owner, this, key),
    });
    listenTo(strips, { ...moves, tip: (event) => this.run && owner.tip(event, stripLines(strips, this.run, event, owner.data.causes)) });
    gantt.canvas.addEventListener("pointerleave", () => this.hover(-1));
    gantt.canvas.addEventListener("focus", () => owner.activate(this));
    this.watch.observe(this.element);
  }

  /** @param {number} task @param {number} [op] */
  hover(task, op = -1) {
    this.hoveredOp = op;
    if (task === this.hovered) return;
    this.hovered = task;
    this.drawMarks();
  }

  /** @param {Run} run @param {Wanted} look */
  show(run, look) {
    if (this.run !== run) this.hovered = -1;
    this.run = run;
    this.name.hidden = !look.side;
    this.name.replaceChildren(run.label, element("small", {}, ` ${formatTime(run.units, run.makespan_s)}`));
    this.gantt.canvas.setAttribute("aria-label", `${run.label}: a row a rank. Arrows go from op to op, n and p step in time, plus, minus and 0 zoom`);
    this.strips.canvas.hidden = !look.side;
    this.strips.canvas.setAttribute("aria-label", `${run.label}: how many ranks are idle, and what the fullest one holds`);
    this.parts.hidden = !look.path;
    const shares = Object.entries(run.path).map(([part, seconds]) => {
      const share = `${formatTime(run.units, seconds)} (${((100 * seconds) / run.makespan_s).toFixed(1)} %)`;
      return swatch([this.gantt.colour(`path-${part}`)], `${this.owner.data.parts[part]} ${share} `, "thin");
    });
    this.parts.replaceChildren(element("b", {}, "critical path: "), ...shares);
    this.stale = true;
  }

  // Draw the run, once it can be seen.
  /** @param {boolean} [unseen] whether to draw it anyway */
  draw(unseen = false) {
    const { run, owner } = this;
    this.stale = true;
    if (!run || !(this.seen || unseen) || !this.element.clientWidth) return;
    this.stale = false;
    const { data, look, view, fills, panels, most } = owner;
    drawGantt(this.gantt, run, look, view, data, panels.length);
    if (look.side) drawStrips(this.strips, run, view, fills, most);
    Object.assign(this.gantt.canvas.dataset, { from: view.from, to: view.to, row: this.gantt.row, run: run.label });
    this.drawMarks();
  }

  drawMarks() {
    if (!this.run || this.stale) return;
    const marked = this.owner.marked(this);
    drawMarks(this.over, this.gantt, this.run, { task: this.hovered >= 0 ? this.hovered : marked, now_s: this.owner.now_s });
  }

  remove() {
    this.watch.disconnect();
    this.element.remove();
  }
}
