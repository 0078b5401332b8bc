// @ts-check
// The page: which run is shown, which part of it, and what the pointer is on.

const KIND_WORDS = ["forward", "backward", "backward for input", "backward for weights"];
/** @type {<Id extends keyof PageElements>(id: Id) => PageElements[Id]} */
const find = (id) => /** @type {any} page.html has them all */ (document.getElementById(id));

async function main() {
  /** @type {PageData} */
  const data = JSON.parse(find("data").textContent);
  const whole = Math.max(...data.runs.map((run) => run.makespan_s)) || 1;
  /** @type {View} */
  const view = { from: 0, to: whole, whole, fits: "run" };
  const charts = { gantt: new Chart(find("gantt")), overview: new Chart(find("overview")), memory: new Chart(find("memory")) };
  /** @type {Promise<Run>[]} */
  const unpacked = [];
  /** @param {number} place */
  const runAt = (place) => {
    unpacked[place] ??= unpack(data.runs[place], data.memory_fills);
    return unpacked[place];
  };
  const longest = Math.max(...data.runs.flatMap((run) => idleByRank(run))) || 1;
  let shown = data.first;
  let run = await runAt(shown);
  let lanes = false;
  let asked = false;
  let hovered = -1; // the task that the pointer is on

  function draw() {
    asked = false;
    drawGantt(charts.gantt, run, lanes, view, hovered);
    drawOverview(charts.overview, run, view);
    drawMemory(charts.memory, run, view);
    Object.assign(charts.gantt.canvas.dataset, { from: view.from, to: view.to, run: run.label });
  }
  const redraw = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(draw);
  };

  /** @param {number} place */
  async function choose(place) {
    shown = place;
    const chosen = await runAt(place);
    if (shown !== place) return; // another one was chosen meanwhile
    run = chosen;
    hovered = -1; // only now: until here the pointer was on the run before
    hideTip();
    lanes = run.phases !== null && find("lanes").checked;
    if (view.fits) fit(view.fits);
    else view.whole = Math.max(view.whole, run.makespan_s);
    document.querySelectorAll("#runs button").forEach((button, one) => {
      button.setAttribute("aria-pressed", `${one === place}`);
    });
    document.querySelectorAll("#table tbody tr").forEach((row) => {
      row.classList.toggle("chosen", row.firstElementChild?.textContent === run.label);
    });
    find("lanes-choice").hidden = run.phases === null;
    find("memory-title").textContent = run.in_bytes ? "Memory" : "Activations in flight";
    showLegends(run, data, lanes);
    showCauses(find("causes"), run, data.causes, longest);
    redraw();
  }

  /** @param {number} from @param {number} to */
  function zoomTo(from, to) {
    const length = clamp(to - from, view.whole * 1e-7, view.whole);
    view.from = clamp(from, 0, view.whole - length);
    view.to = view.from + length;
    if (length < view.whole) view.fits = "";
    hideTip();
    redraw();
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

  data.runs.forEach((one, place) => {
    const button = element("button", { type: "button", onclick: () => choose(place) }, one.label);
    button.append(element("small", {}, ` ${formatTime(one.makespan_s)}`));
    find("runs").append(button);
  });
  find("lanes").onchange = () => choose(shown);
  find("zoom-in").onclick = () => zoom(0.5);
  find("zoom-out").onclick = () => zoom(2);
  find("fit-run").onclick = () => fit("run");
  find("fit-all").onclick = () => fit("all");
  find("fit-all").hidden = data.runs.length < 2;
  window.addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => choose(shown));
  listenTo(charts.gantt, { view, zoom, pan, fitAgain, tip: (event) => hover(ganttTip(charts.gantt, run, event)) });
  listenTo(charts.memory, { view, zoom, pan, fitAgain, tip: (event) => memoryTip(charts.memory, run, event) });
  find("gantt").addEventListener("pointerleave", () => hover(-1));
  listenToOverview(charts.overview, view, zoomTo, fitAgain);
  await choose(data.first);
  document.body.dataset.ready = "yes";
}

/** @param {RunHead} run */
const idleByRank = (run) => Array.from({ length: run.ranks }, (_, rank) => Object.values(run.causes).reduce((sum, one) => sum + one[rank], 0));

// Wheel, drag, pinch, keys, pointer: the same on every chart with the page's time axis.
/** @param {Chart} chart @param {Moves} page */
function listenTo(chart, page) {
  const { canvas } = chart;
  /** @type {Map<number, number>} */
  const pointers = new Map();
  /** @param {MouseEvent} event */
  const at = (event) => event.clientX - canvas.getBoundingClientRect().left;

  canvas.addEventListener(
    "wheel",
    (event) => {
      const all = page.view.from <= 0 && page.view.to >= page.view.whole;
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
        if (all) return;
        page.pan((event.deltaX || event.deltaY) / chart.span);
      } else {
        if (all && event.deltaY > 0) return; // nothing to zoom out of: the page scrolls
        page.zoom(Math.exp(clamp(event.deltaY, -240, 240) / 400), chart.time(clamp(at(event), chart.gutter, chart.gutter + chart.span)));
      }
      event.preventDefault();
    },
    { passive: false },
  );

  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, at(event));
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (before === undefined) return page.tip(event);
    const now = at(event);
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, x]) => x);
    if (other === undefined) {
      if (now !== before) page.pan((before - now) / chart.span);
    } else if (Math.abs(now - other) > 4) {
      page.zoom(Math.abs((before - other) / (now - other)), chart.time((now + other) / 2));
    }
    pointers.set(event.pointerId, now);
  });
  for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) {
    canvas.addEventListener(name, (event) => {
      pointers.delete(event.pointerId);
      if (event.pointerType === "touch" && name === "pointerup") page.tip(event);
    });
  }
  canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && hideTip());
  canvas.addEventListener("dblclick", page.fitAgain);
  canvas.addEventListener("keydown", (event) => {
    /** @type {Record<string, () => void>} */
    const acts = {
      "+": () => page.zoom(0.5),
      "=": () => page.zoom(0.5),
      "-": () => page.zoom(2),
      0: page.fitAgain,
      ArrowLeft: () => page.pan(-0.2),
      ArrowRight: () => page.pan(0.2),
      Escape: hideTip,
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

// On the overview: drag the window, or drag out a new one beside it.
/** @param {Chart} chart @param {View} view @param {(from: number, to: number) => void} zoomTo @param {() => void} fitAgain */
function listenToOverview(chart, view, zoomTo, fitAgain) {
  const { canvas } = chart;
  /** @type {{at: number, from: number, to: number, inside: boolean} | null} */
  let start = null;
  /** @param {PointerEvent} event */
  const time = (event) => clamp(chart.time(event.clientX - canvas.getBoundingClientRect().left), 0, view.whole);
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const inside = time(event) > view.from && time(event) < view.to && view.to - view.from < 0.999 * view.whole;
    start = { at: time(event), from: view.from, to: view.to, inside };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!start) return;
    const now = time(event);
    if (start.inside) zoomTo(start.from + now - start.at, start.to + now - start.at);
    else if (Math.abs(now - start.at) > 0.003 * view.whole) zoomTo(Math.min(now, start.at), Math.max(now, start.at));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      start = null;
    });
  }
  canvas.addEventListener("dblclick", fitAgain);
}

// What the pointer is on.

/** @param {Run} run @param {number} op */
const opName = (run, op) => `${run.stage[op]}${KINDS[run.kind[op]]}${run.micro_batch[op]}`;
/** @param {Run} run @param {number} task */
const taskName = (run, task) => {
  const first = run.firstOp[task];
  return run.paired[first] ? `(${opName(run, first)};${opName(run, first + 1)})OVERLAP_F_B` : opName(run, first);
};

// Say what the pointer is on, and return its task, or that of the gap's end; -1 for none.
/** @param {Chart} chart @param {Run} run @param {PointerEvent} event */
function ganttTip(chart, run, event) {
  const frame = chart.canvas.getBoundingClientRect();
  const rank = Math.floor((event.clientY - frame.top) / chart.row);
  const share = (event.clientY - frame.top) / chart.row - rank;
  const time = chart.time(event.clientX - frame.left);
  if (rank < 0 || rank >= run.ranks || time < chart.from || time > Math.min(chart.to, run.makespan_s)) {
    hideTip();
    return -1;
  }
  const band = chart.bands.find(({ place: [top, height] }) => share >= top - 0.03 && share <= top + height + 0.03);
  const lines = band?.name === "compute" || band?.name === "all-to-all" ? phaseLines(run, band, rank, time) : null;
  showTip(event, lines ?? opLines(run, rank, time));
  const task = firstAfter(run.task.end, time, run.task.starts[rank], run.task.starts[rank + 1]);
  return task < run.task.starts[rank + 1] ? task : -1;
}

/** @param {Run} run @param {number} rank @param {number} time @returns {Line[]} */
function opLines(run, rank, time) {
  const { task, ops } = run;
  const place = firstAfter(task.end, time, task.starts[rank], task.starts[rank + 1]);
  if (place >= task.starts[rank + 1])
    return [
      ["idle", "after its last op: drain"],
      ["since", formatTime(run.makespan_s - task.end[place - 1])],
    ];
  if (time < task.begin[place]) return [["idle", `before ${taskName(run, place)}`], ...gapLines(run, rank, place)];
  const op = firstAfter(ops.end, time, run.firstOp[place], run.firstOp[place + 1] ?? ops.end.length);
  const stage = run.stage[op];
  const pipe = new Set(run.pipe_of_stage).size > 1 ? ` of pipe ${run.pipe_of_stage[stage]}` : "";
  return [
    [opName(run, op), `${KIND_WORDS[run.kind[op]]} of micro-batch ${run.micro_batch[op]}${pipe}, stage ${stage}, rank ${rank}`],
    .../** @type {Line[]} */ (run.paired[op] ? [["pair", taskName(run, place)]] : []),
    ...timeLines(run, task.begin[place], task.end[place]),
    ...gapLines(run, rank, place),
  ];
}

/** @param {Run} run @param {number} begin @param {number} end @returns {Line[]} */
const timeLines = (run, begin, end) => [
  ["time", `${formatMoment(begin, run.makespan_s)} to ${formatMoment(end, run.makespan_s)}`],
  ["lasts", formatTime(end - begin)],
];

// The gap before a task and its cause, as docs/model.md has it: the tensor that came last, and the op that made it.
/** @param {Run} run @param {number} rank @param {number} place @returns {Line[]} */
function gapLines(run, rank, place) {
  const { task } = run;
  const first = place === task.starts[rank];
  const gap = task.begin[place] - (first ? 0 : task.end[place - 1]);
  const source = run.waitsFor[place];
  const from = source < 0 ? "" : ` for ${opName(run, source)} of rank ${run.rank[source]}`;
  if (gap <= 2 * run.second) return [["gap before", "none"]];
  if (first) return [["gap before", `${formatTime(gap)}: warm-up${from && `, waits${from}`}`]];
  const underWay = Math.min(gap, run.underWay[place] * run.second);
  const parts = [];
  if (gap - underWay > 2 * run.second) parts.push(`${formatTime(gap - underWay)} waiting${from}`);
  if (underWay > 0) parts.push(`${formatTime(underWay)} exposed transfer of ${opName(run, source)}`);
  return [["gap before", `${formatTime(gap)}: ${parts.join(", ")}`]];
}

/** @param {Run} run @param {LaneBand} band @param {number} rank @param {number} time */
function phaseLines(run, band, rank, time) {
  const { begin, end, starts, row } = band.boxes;
  const place = firstAfter(end, time, starts[rank], starts[rank + 1]);
  const { phases } = run;
  if (!phases || place >= starts[rank + 1] || time < begin[place]) return null;
  const [name, kind, layer] = run.looks[phases.look[row[place]]];
  const op = opOfPhase(run, phases, row[place]);
  /** @type {Line[]} */
  const lines = [
    [name, `${KINDS[kind]}${layer >= 0 ? ` of layer ${layer}` : ""}, ${band.name} lane of rank ${rank}`],
    ["op", `${opName(run, op)}${run.paired[op] ? ` in ${taskName(run, phases.task[row[place]])}` : ""}`],
    ...timeLines(run, begin[place], end[place]),
  ];
  if (band.name === "all-to-all") lines.push(["exposed", formatTime(exposedIn(phases.exposed, rank, begin[place], end[place]))]);
  else lines.push(["gap before", laneGap(run, phases.task, band.boxes, rank, place)]);
  return lines;
}

/** @param {Boxes} exposed @param {number} rank @param {number} from @param {number} to */
function exposedIn({ begin, end, starts }, rank, from, to) {
  let seconds = 0;
  for (let place = firstAfter(end, from, starts[rank], starts[rank + 1]); place < starts[rank + 1] && begin[place] < to; place += 1) {
    seconds += Math.max(0, Math.min(end[place], to) - Math.max(begin[place], from));
  }
  return seconds;
}

// Why the compute lane stood still before a phase: inside a task only all-to-all holds it up.
/** @param {Run} run @param {Int32Array} tasks @param {Lane} lane @param {number} rank @param {number} place */
function laneGap(run, tasks, { begin, end, starts, row }, rank, place) {
  const task = tasks[row[place]];
  const free = place > starts[rank] && tasks[row[place - 1]] === task ? end[place - 1] : run.task.begin[task];
  const gap = begin[place] - free;
  if (gap > 2 * run.second) return `${formatTime(gap)}: exposed all-to-all`;
  const outside = place === starts[rank] || tasks[row[place - 1]] !== task;
  return outside ? gapLines(run, rank, task)[0][1] : "none";
}

/** @param {Chart} chart @param {Run} run @param {PointerEvent} event */
function memoryTip(chart, run, event) {
  const frame = chart.canvas.getBoundingClientRect();
  const rank = Math.floor((event.clientY - frame.top) / chart.row);
  const time = chart.time(event.clientX - frame.left);
  if (rank < 0 || rank >= run.ranks || time < chart.from || time > chart.to) return hideTip();
  const { at, starts, amounts, total, peaks } = run.occupancy;
  const moment = firstAfter(at, time, starts[rank], starts[rank + 1]) - 1;
  /** @param {Float32Array | Float64Array} values */
  const amountOf = (values) => formatOccupancy(run, moment < starts[rank] ? 0 : values[moment]);
  showTip(event, [
    [amountOf(total), `on rank ${rank} at ${formatMoment(time, run.makespan_s)}`],
    .../** @type {Line[]} */ (run.kinds.length > 1 ? run.kinds.map((kind, place) => [kind, amountOf(amounts[place])]).reverse() : []),
    ["peak", formatOccupancy(run, peaks[rank])],
  ]);
}

/** @param {PointerEvent} event @param {Line[]} lines */
function showTip(event, lines) {
  const tip = find("tip");
  const [[title, said], ...rest] = lines;
  tip.replaceChildren(
    element("b", {}, title),
    ` ${said}`,
    element("dl", {}, ...rest.flatMap(([word, text]) => [element("dt", {}, word), element("dd", {}, text)])),
  );
  tip.hidden = false;
  const left = event.clientX + 14;
  const below = event.clientY + 18;
  tip.style.left = `${clamp(left + tip.offsetWidth > window.innerWidth ? event.clientX - tip.offsetWidth - 10 : left, 4, Math.max(4, window.innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${below + tip.offsetHeight > window.innerHeight ? Math.max(4, event.clientY - tip.offsetHeight - 10) : below}px`;
}

function hideTip() {
  find("tip").hidden = true;
}

// Legends.

/** @param {Run} run @param {PageData} data @param {boolean} lanes */
function showLegends(run, data, lanes) {
  /** @param {string[]} colours @param {string} words */
  const swatch = (colours, words) => {
    const sample = element("i", {});
    sample.style.background =
      colours.length > 1
        ? `linear-gradient(90deg, ${colours.map((one, place) => `${one} ${(100 * place) / colours.length}% ${(100 * (place + 1)) / colours.length}%`).join(", ")})`
        : colours[0];
    return element("span", { className: "swatch" }, sample, words);
  };
  const kinds = new Set(run.kind);
  if (lanes) for (const look of run.looks) kinds.add(look[1]);
  const entries = [...kinds].sort().map((kind) => swatch(run.fills[kind], KIND_WORDS[kind]));
  if (run.pairs.begin.length) {
    const [forward, backward] = run.fills;
    const pair = swatch([forward[0], backward[backward.length - 1]], "overlapped pair");
    pair.firstElementChild?.classList.add("framed");
    entries.push(pair);
  }
  if (lanes) entries.push(swatch([colourOf("hidden")], "all-to-all behind compute"), swatch([colourOf("exposed")], "exposed all-to-all"));
  find("gantt-legend").replaceChildren(...entries);
  const uses = run.kinds.length > 1 ? run.kinds.map((kind, place) => swatch([memoryColour(run, place)], kind)) : [];
  const limit = run.limit === null ? [] : [swatch([colourOf("limit")], `limit, ${formatOccupancy(run, run.limit)}`)];
  find("memory-legend").replaceChildren(...uses, ...limit);
  find("causes-legend").replaceChildren(
    ...Object.keys(run.causes)
      .filter((cause) => run.causes[cause].some((seconds) => seconds > 0))
      .map((cause) => swatch([data.causes[cause].fill], data.causes[cause].words)),
  );
}

main();
