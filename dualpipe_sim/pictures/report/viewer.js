// @ts-check
// The viewer: which run is shown, and which part of it. All of it is inside one element, so that a page can have several.

const VIEWER = `
<nav class="runs" aria-label="schedule"></nav>
<section>
<div class="tools">
<button type="button" class="zoom-in" title="zoom in">+</button>
<button type="button" class="zoom-out" title="zoom out">−</button>
<button type="button" class="fit-run">whole run</button>
<button type="button" class="fit-all" title="as long as the longest of all runs">same axis for all</button>
<label class="lanes-choice" hidden><input type="checkbox" class="lanes" checked> lanes of compute and collectives</label>
<span class="faint">wheel or pinch zooms, drag moves, double click shows all; hover or tap for details</span>
</div>
<div class="legend gantt-legend"></div>
<div class="chart"><canvas class="overview" aria-label="the whole run and the part of it shown"></canvas></div>
<div class="chart"><canvas class="gantt" tabindex="0" role="img" aria-label="Gantt chart: a row a rank; plus, minus, arrows and 0 zoom and move"></canvas></div>
</section>
<section>
<h2 class="memory-title">Memory</h2>
<div class="legend memory-legend"></div>
<div class="chart"><canvas class="memory" tabindex="0" role="img" aria-label="what each rank holds over time"></canvas></div>
</section>
<section>
<h2>Idle time by cause</h2>
<div class="legend causes-legend"></div>
<div class="causes"></div>
</section>
<div class="tip" role="status" hidden></div>`;

/** @param {HTMLElement} root @param {PageData} given @param {MountOptions} [options] @returns {Promise<ViewerHandle>} */
async function mountViewer(root, given, options = {}) {
  root.classList.add("viewer");
  root.innerHTML = VIEWER;
  /** @type {Find} */
  const find = (name) => /** @type {any} all are in VIEWER */ (root.querySelector(`.${name}`));
  const charts = { gantt: new Chart(find("gantt")), overview: new Chart(find("overview")), memory: new Chart(find("memory")) };
  const ended = new AbortController();
  const asked = new URLSearchParams(options.state ?? "");

  let data = given;
  let units = SECONDS;
  let [whole, longest] = [1, 1]; // of all runs: the makespan, and the idle time of a rank
  /** @type {Promise<Run>[]} */
  let unpacked = [];
  let shown = 0;
  /** @type {Run} */
  let run;
  /** @type {View} */
  const view = { from: 0, to: 1, whole: 1, fits: "run" };
  let lanes = false;
  let drawing = false;
  let hovered = -1; // the task that the pointer is on

  /** @param {PageData} next */
  function take(next) {
    data = next;
    units = data.runs.every((one) => one.unitless) ? NO_UNIT : SECONDS;
    whole = Math.max(...data.runs.map((one) => one.makespan_s)) || 1;
    longest = Math.max(...data.runs.flatMap(idleByRank)) || 1;
    unpacked = [];
    find("runs").replaceChildren(
      ...data.runs.map((one, place) => {
        const button = element("button", { type: "button", onclick: () => choose(place) }, one.label);
        button.append(element("small", {}, ` ${formatTime(units, one.makespan_s)}`));
        return button;
      }),
    );
    find("fit-all").hidden = data.runs.length < 2;
  }

  function draw() {
    drawing = false;
    if (ended.signal.aborted) return;
    drawGantt(charts.gantt, run, lanes, view, hovered);
    drawOverview(charts.overview, run, view);
    drawMemory(charts.memory, run, view);
    Object.assign(charts.gantt.canvas.dataset, { from: view.from, to: view.to, run: run.label });
  }
  const redraw = () => {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(draw);
  };
  const hideTip = () => {
    find("tip").hidden = true;
  };
  const tell = () => options.onselect?.({ run: run.label, from_s: view.from, to_s: view.to });

  /** @param {number} place */
  async function choose(place) {
    shown = place;
    const from = data;
    unpacked[place] ??= unpack(data.runs[place], data.memory_fills, units);
    const chosen = await unpacked[place];
    if (shown !== place || data !== from || ended.signal.aborted) return; // another one was chosen meanwhile
    run = chosen;
    hovered = -1; // only now: until here the pointer was on the run before
    hideTip();
    lanes = run.phases !== null && find("lanes").checked;
    if (view.fits) fit(view.fits);
    else view.whole = Math.max(view.whole, run.makespan_s);
    find("runs")
      .querySelectorAll("button")
      .forEach((button, one) => {
        button.setAttribute("aria-pressed", `${one === place}`);
      });
    find("lanes-choice").hidden = run.phases === null;
    find("memory-title").textContent = run.in_bytes ? "Memory" : "Activations in flight";
    showLegends(find, charts.gantt, run, data, lanes);
    showCauses(find("causes"), run, data.causes, longest);
    redraw();
    tell();
  }

  /** @param {number} from @param {number} to */
  function zoomTo(from, to) {
    const length = clamp(to - from, view.whole * 1e-7, view.whole);
    view.from = clamp(from, 0, view.whole - length);
    view.to = view.from + length;
    if (length < view.whole) view.fits = "";
    hideTip();
    redraw();
    tell();
  }
  // Show all of this run, or the time that the longest of all takes, so that runs can be compared.
  /** @param {"run" | "all"} what */
  function fit(what) {
    view.fits = what;
    view.whole = (what === "run" && run.makespan_s) || whole;
    zoomTo(0, view.whole);
  }
  /** @param {number} task */
  function hover(task) {
    if (task === hovered) return;
    hovered = task;
    redraw();
  }
  const fitAgain = () => fit(view.whole === whole && run.makespan_s < whole ? "all" : "run");
  /** @param {number} factor */
  const zoom = (factor, around = (view.from + view.to) / 2) => zoomTo(around - (around - view.from) * factor, around + (view.to - around) * factor);
  /** @param {number} share */
  const pan = (share) => zoomTo(view.from + share * (view.to - view.from), view.to + share * (view.to - view.from));

  find("lanes").onchange = () => choose(shown);
  find("zoom-in").onclick = () => zoom(0.5);
  find("zoom-out").onclick = () => zoom(2);
  find("fit-run").onclick = () => fit("run");
  find("fit-all").onclick = () => fit("all");

  take(given);
  const labelled = data.runs.findIndex((one) => one.label === asked.get("run"));
  await choose(labelled < 0 ? data.first : labelled);
  if (asked.has("from")) zoomTo(Number(asked.get("from")), Number(asked.get("to")));

  const moves = { view, zoom, pan, fitAgain, hideTip };
  listenTo(charts.gantt, {
    ...moves,
    tip: (event) => {
      const { task, lines } = ganttLines(charts.gantt, run, event);
      hover(task);
      showTip(find("tip"), event, lines);
    },
  });
  listenTo(charts.memory, { ...moves, tip: (event) => showTip(find("tip"), event, memoryLines(charts.memory, run, event)) });
  find("gantt").addEventListener("pointerleave", () => hover(-1));
  listenToOverview(charts.overview, view, zoomTo, fitAgain);
  window.addEventListener("resize", redraw, { signal: ended.signal });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => choose(shown), { signal: ended.signal });

  return {
    async update(next) {
      const { label } = run;
      take(next);
      const again = data.runs.findIndex((one) => one.label === label);
      if (view.to > whole) view.fits ||= "run";
      await choose(again < 0 ? data.first : again);
    },
    state() {
      const held = new URLSearchParams({ run: run.label });
      if (!view.fits) {
        held.set("from", view.from.toPrecision(6));
        held.set("to", view.to.toPrecision(6));
      }
      return held.toString();
    },
    select() {},
    destroy() {
      ended.abort();
      root.replaceChildren();
      root.classList.remove("viewer");
    },
  };
}

/** @param {RunHead} run */
const idleByRank = (run) => Array.from({ length: run.ranks }, (_, rank) => Object.values(run.causes).reduce((sum, one) => sum + one[rank], 0));
