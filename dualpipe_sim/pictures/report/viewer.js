// The page: which run is shown, which part of it, and what the pointer is on.

const KIND_WORDS = ["forward", "backward", "backward for input", "backward for weights"];
const find = (id) => document.getElementById(id);

async function main() {
  const data = JSON.parse(find("data").textContent);
  const whole = Math.max(...data.runs.map((run) => run.makespan_s)) || 1;
  const view = { from: 0, to: whole, whole, fits: "run" }; // fits: the run, all runs, or nothing once zoomed
  const charts = { gantt: new Chart(find("gantt")), overview: new Chart(find("overview")), memory: new Chart(find("memory")) };
  const unpacked = new Map();
  const longest = Math.max(...data.runs.flatMap((run) => idleByRank(run))) || 1;
  let shown = data.first;
  let run = null;
  let lanes = false;
  let asked = false;
  let hovered = -1; // the task that the pointer is on

  function draw() {
    asked = false;
    const before = performance.now();
    drawGantt(charts.gantt, run, lanes, view, hovered);
    drawOverview(charts.overview, run, view);
    drawMemory(charts.memory, run, view);
    Object.assign(charts.gantt.canvas.dataset, { from: view.from, to: view.to, run: run.label, drawMs: performance.now() - before });
  }
  const redraw = () => {
    if (asked || !run) return;
    asked = true;
    requestAnimationFrame(draw);
  };

  async function choose(place) {
    shown = place;
    hovered = -1;
    if (!unpacked.has(place)) unpacked.set(place, await unpack(data.runs[place]));
    run = { ...unpacked.get(place), memory_fills: data.runs[place].kinds.map((kind) => data.memory_fills[kind] ?? "#888888") };
    lanes = run.looks.length > 0 && find("lanes").checked;
    if (view.fits) fit(view.fits);
    document.querySelectorAll("#runs button").forEach((button, one) => button.setAttribute("aria-pressed", one === place));
    document.querySelectorAll("#table tbody tr").forEach((row) => row.classList.toggle("chosen", row.cells[0].textContent === run.label));
    find("lanes").parentElement.hidden = run.looks.length === 0;
    find("memory-title").textContent = run.in_bytes ? "Memory" : "Activations in flight";
    showLegends(run, data, lanes);
    showCauses(find("causes"), run, data.causes, longest);
    redraw();
  }

  function zoomTo(from, to) {
    const length = clamp(to - from, view.whole * 1e-7, view.whole);
    view.from = clamp(from, 0, view.whole - length);
    view.to = view.from + length;
    if (length < view.whole) view.fits = "";
    hideTip();
    redraw();
  }
  // Show all of this run, or the time that the longest of all takes, so that runs can be compared.
  function fit(what) {
    view.fits = what;
    view.whole = (what === "run" && run.makespan_s) || whole;
    zoomTo(0, view.whole);
  }
  function hover(task) {
    if (task === hovered) return;
    hovered = task;
    redraw();
  }
  const fitAgain = () => fit(view.whole === whole && run.makespan_s < whole ? "all" : "run");
  const zoom = (factor, around = (view.from + view.to) / 2) =>
    zoomTo(around - (around - view.from) * factor, around + (view.to - around) * factor);
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

const idleByRank = (run) => Array.from({ length: run.ranks }, (_, rank) => Object.values(run.causes).reduce((sum, one) => sum + one[rank], 0));

// Wheel, drag, pinch, keys, pointer: the same on every chart with the page's time axis.
function listenTo(chart, page) {
  const { canvas } = chart;
  const pointers = new Map();
  const at = (event) => event.clientX - canvas.getBoundingClientRect().left;

  canvas.addEventListener("wheel", (event) => {
    const all = page.view.from <= 0 && page.view.to >= page.view.whole;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
      if (all) return;
      page.pan((event.deltaX || event.deltaY) / chart.span);
    } else {
      if (all && event.deltaY > 0) return; // nothing to zoom out of: the page scrolls
      page.zoom(Math.exp(clamp(event.deltaY, -240, 240) / 400), chart.time(clamp(at(event), chart.gutter, chart.gutter + chart.span)));
    }
    event.preventDefault();
  }, { passive: false });

  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, at(event));
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return page.tip(event);
    const before = pointers.get(event.pointerId);
    const now = at(event);
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, x]) => x);
    if (other === undefined) {
      if (now !== before) page.pan((before - now) / chart.span);
    } else if (Math.abs(now - other) > 4) {
      page.zoom(Math.abs((before - other) / (now - other)), chart.time((now + other) / 2));
    }
    pointers.set(event.pointerId, now);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      pointers.delete(event.pointerId);
      if (event.pointerType === "touch" && name === "pointerup") page.tip(event);
    });
  }
  canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && hideTip());
  canvas.addEventListener("dblclick", page.fitAgain);
  canvas.addEventListener("keydown", (event) => {
    const act = {
      "+": () => page.zoom(0.5), "=": () => page.zoom(0.5), "-": () => page.zoom(2), 0: page.fitAgain,
      ArrowLeft: () => page.pan(-0.2), ArrowRight: () => page.pan(0.2), Escape: hideTip,
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

// On the overview: drag the window, or drag out a new one beside it.
function listenToOverview(chart, view, zoomTo, fitAgain) {
  const { canvas } = chart;
  let start = null;
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
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (start = null));
  canvas.addEventListener("dblclick", fitAgain);
}

// What the pointer is on.

const opName = (run, op) => `${run.stage[op]}${KINDS[run.kind[op]]}${run.micro_batch[op]}`;
const taskName = (run, task) => {
  const first = run.firstOp[task];
  return run.paired[first] ? `(${opName(run, first)};${opName(run, first + 1)})OVERLAP_F_B` : opName(run, first);
};

// Say what the pointer is on, and return its task, or that of the gap's end; -1 for none.
function ganttTip(chart, run, event) {
  const frame = chart.canvas.getBoundingClientRect();
  const rank = Math.floor((event.clientY - frame.top) / chart.row);
  const share = (event.clientY - frame.top) / chart.row - rank;
  const time = chart.time(event.clientX - frame.left);
  if (rank < 0 || rank >= run.ranks || time < chart.from || time > Math.min(chart.to, run.makespan_s)) {
    hideTip();
    return -1;
  }
  const band = chart.bands.find(({ place: [top, height], name }) => name !== "exposed" && share >= top - 0.03 && share <= top + height + 0.03);
  const lines = band && band.name !== "ops" ? phaseLines(run, band, rank, time) : null;
  showTip(event, lines ?? opLines(run, rank, time));
  const task = firstAfter(run.task.end, time, run.task.starts[rank], run.task.starts[rank + 1]);
  return task < run.task.starts[rank + 1] ? task : -1;
}

function opLines(run, rank, time) {
  const { task, ops } = run;
  const place = firstAfter(task.end, time, task.starts[rank], task.starts[rank + 1]);
  if (place >= task.starts[rank + 1]) return [["idle", "after its last op: drain"], ["since", formatTime(run.makespan_s - task.end[place - 1])]];
  if (time < task.begin[place]) return [["idle", `before ${taskName(run, place)}`], ...gapLines(run, rank, place)];
  const op = firstAfter(ops.end, time, run.firstOp[place], run.firstOp[place + 1] ?? ops.end.length);
  const stage = run.stage[op];
  const pipe = new Set(run.pipe_of_stage).size > 1 ? ` of pipe ${run.pipe_of_stage[stage]}` : "";
  return [
    [opName(run, op), `${KIND_WORDS[run.kind[op]]} of micro-batch ${run.micro_batch[op]}${pipe}, stage ${stage}, rank ${rank}`],
    ...(run.paired[op] ? [["pair", taskName(run, place)]] : []),
    ...timeLines(run, task.begin[place], task.end[place]),
    ...gapLines(run, rank, place),
  ];
}

const timeLines = (run, begin, end) => [
  ["time", `${formatMoment(begin, run.makespan_s)} to ${formatMoment(end, run.makespan_s)}`],
  ["lasts", formatTime(end - begin)],
];

// The gap before a task and its cause, as docs/model.md has it: the tensor that came last, and the op that made it.
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

function phaseLines(run, band, rank, time) {
  const { begin, end, starts, row } = band.boxes;
  const place = firstAfter(end, time, starts[rank], starts[rank + 1]);
  if (place >= starts[rank + 1] || time < begin[place]) return null;
  const [name, kind, layer] = run.looks[run.phase.look[row[place]]];
  const op = opOfPhase(run, row[place]);
  const lines = [
    [name, `${KINDS[kind]}${layer >= 0 ? ` of layer ${layer}` : ""}, ${band.name} lane of rank ${rank}`],
    ["op", `${opName(run, op)}${run.paired[op] ? ` in ${taskName(run, run.phase.task[row[place]])}` : ""}`],
    ...timeLines(run, begin[place], end[place]),
  ];
  if (band.name === "all-to-all") lines.push(["exposed", formatTime(exposedIn(run, rank, begin[place], end[place]))]);
  else lines.push(["gap before", laneGap(run, band, rank, place)]);
  return lines;
}

function exposedIn(run, rank, from, to) {
  const { begin, end, starts } = run.exposed;
  let seconds = 0;
  for (let place = firstAfter(end, from, starts[rank], starts[rank + 1]); place < starts[rank + 1] && begin[place] < to; place += 1) {
    seconds += Math.max(0, Math.min(end[place], to) - Math.max(begin[place], from));
  }
  return seconds;
}

// Why the compute lane stood still before a phase: inside a task only all-to-all holds it up.
function laneGap(run, band, rank, place) {
  const { begin, end, starts, row } = band.boxes;
  const task = run.phase.task[row[place]];
  const free = place > starts[rank] && run.phase.task[row[place - 1]] === task ? end[place - 1] : run.task.begin[task];
  const gap = begin[place] - free;
  if (gap > 2 * run.second) return `${formatTime(gap)}: exposed all-to-all`;
  const outside = place === starts[rank] || run.phase.task[row[place - 1]] !== task;
  return outside ? gapLines(run, rank, task)[0][1] : "none";
}

function memoryTip(chart, run, event) {
  const frame = chart.canvas.getBoundingClientRect();
  const rank = Math.floor((event.clientY - frame.top) / chart.row);
  const time = chart.time(event.clientX - frame.left);
  if (rank < 0 || rank >= run.ranks || time < chart.from || time > chart.to) return hideTip();
  const { at, starts, amounts, total, peaks } = run.held;
  const moment = firstAfter(at, time, starts[rank], starts[rank + 1]) - 1;
  const held = (values) => formatHeld(run, moment < starts[rank] ? 0 : values[moment]);
  showTip(event, [
    [held(total), `on rank ${rank} at ${formatMoment(time, run.makespan_s)}`],
    ...(run.kinds.length > 1 ? run.kinds.map((kind, place) => [kind, held(amounts[place])]).reverse() : []),
    ["peak", formatHeld(run, peaks[rank])],
  ]);
}

function showTip(event, lines) {
  const tip = find("tip");
  const [[title, said], ...rest] = lines;
  tip.replaceChildren(
    element("b", {}, title), ` ${said}`,
    element("dl", {}, ...rest.flatMap(([word, text]) => [element("dt", {}, word), element("dd", {}, text)]))
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

function showLegends(run, data, lanes) {
  const swatch = (colours, words) => {
    const sample = element("i", {});
    sample.style.background = colours.length > 1 ? `linear-gradient(90deg, ${colours.map((one, place) => `${one} ${(100 * place) / colours.length}% ${(100 * (place + 1)) / colours.length}%`).join(", ")})` : colours[0];
    return element("span", { className: "swatch" }, sample, words);
  };
  const kinds = new Set(run.kind);
  if (lanes) run.looks.forEach((look) => kinds.add(look[1]));
  const entries = [...kinds].sort().map((kind) => swatch(run.fills[kind], KIND_WORDS[kind]));
  if (run.pairs.begin.length) {
    const pair = swatch([run.fills[0][0], run.fills[1].at(-1)], "overlapped pair");
    pair.firstChild.classList.add("framed");
    entries.push(pair);
  }
  if (lanes) entries.push(swatch([colourOf("hidden")], "all-to-all behind compute"), swatch([colourOf("exposed")], "exposed all-to-all"));
  find("gantt-legend").replaceChildren(...entries);
  const kindsHeld = run.kinds.length > 1 ? run.kinds.map((kind, place) => swatch([memoryColour(run, place)], kind)) : [];
  const limit = run.limit === null ? [] : [swatch([colourOf("limit")], `limit, ${formatHeld(run, run.limit)}`)];
  find("memory-legend").replaceChildren(...kindsHeld, ...limit);
  find("causes-legend").replaceChildren(...Object.keys(run.causes).filter((cause) => run.causes[cause].some((seconds) => seconds > 0)).map((cause) => swatch([data.causes[cause].fill], data.causes[cause].words)));
}

main();
