// @ts-check
// The tip: what the pointer is on.

// What the pointer is on, its op and task, or those of the gap's end; -1 for none.
/** @param {Chart} chart @param {Run} run @param {PointerEvent} event @returns {{task: number, op: number, lines: Line[] | null}} */
function ganttLines(chart, run, event) {
  const frame = chart.canvas.getBoundingClientRect();
  const rank = Math.floor((event.clientY - frame.top) / chart.row);
  const share = (event.clientY - frame.top) / chart.row - rank;
  const time = chart.time(event.clientX - frame.left);
  if (rank < 0 || rank >= run.ranks || time < chart.from || time > Math.min(chart.to, run.makespan_s)) return { task: -1, op: -1, lines: null };
  const band = chart.bands.find(({ place: [top, height] }) => share >= top - 0.03 && share <= top + height + 0.03);
  const lines = (band && bandLines(run, band, rank, time)) ?? opLines(run, rank, time);
  const task = firstAfter(run.task.end, time, run.task.starts[rank], run.task.starts[rank + 1]);
  if (task >= run.task.starts[rank + 1]) return { task: -1, op: -1, lines };
  return { task, op: opAt(run, task, time), lines };
}

/** @param {Run} run @param {Band} band @param {number} rank @param {number} time */
function bandLines(run, band, rank, time) {
  if (band.name === "copies") return copyLines(run, rank, time);
  return band.name === "compute" || band.name === "all-to-all" ? phaseLines(run, band, rank, time) : null;
}

/** @param {Run} run @param {number} rank @param {number} time @returns {Line[] | null} */
function copyLines(run, rank, time) {
  const { begin, end, starts, row } = run.copies;
  const place = firstAfter(end, time, starts[rank], starts[rank + 1]);
  if (place >= starts[rank + 1] || time < begin[place]) return null;
  const op = row[place];
  const words = `${run.words[run.kind[op]]}: micro-batch ${numberOf(run, op)}, stage ${run.stage[op]}, rank ${rank}`;
  return [[opName(run, op), words], ...timeLines(run, begin[place], end[place])];
}

/** @param {Run} run @param {number} rank @param {number} time @returns {Line[]} */
function opLines(run, rank, time) {
  const { task } = run;
  const place = firstAfter(task.end, time, task.starts[rank], task.starts[rank + 1]);
  if (place >= task.starts[rank + 1])
    return [
      ["idle", "after its last op: drain"],
      ["since", formatTime(run.units, run.makespan_s - task.end[place - 1])],
    ];
  if (time < task.begin[place]) return [["idle", `before ${taskName(run, place)}`], ...gapLines(run, rank, place)];
  return taskLines(run, place, opAt(run, place, time));
}

// The op of a task at a time, of a pair's two the one whose half of the box it is in.
/** @param {Run} run @param {number} task @param {number} time */
const opAt = ({ firstOp, ops }, task, time) =>
  Math.min(firstAfter(ops.end, time, firstOp[task], firstOp[task + 1] ?? ops.end.length), (firstOp[task + 1] ?? ops.end.length) - 1);

/** @param {Run} run @param {number} place @param {number} [op] the one of the task that is meant @returns {Line[]} */
function taskLines(run, place, op = run.firstOp[place]) {
  const { task } = run;
  const rank = run.rank[op];
  const stage = run.stage[op];
  const pipe = new Set(run.pipe_of_stage).size > 1 ? ` of pipe ${run.pipe_of_stage[stage]}` : "";
  return [
    [opName(run, op), `${run.words[run.kind[op]]} of micro-batch ${numberOf(run, op)}${pipe}, stage ${stage}, rank ${rank}`],
    .../** @type {Line[]} */ (run.paired[op] ? [["pair", taskName(run, place)]] : []),
    ...timeLines(run, task.begin[place], task.end[place]),
    ...gapLines(run, rank, place),
    ...linkLines(run, place),
  ];
}

const NAMED = 4; // ops of a list that are named; of the others there is a number
// The ops of other ranks that a task takes tensors of, and that take its own.
/** @param {Run} run @param {number} task @returns {Line[]} */
function linkLines(run, task) {
  const { from, to } = run.transfers;
  /** @param {string} word @param {Int32Array} ops @returns {Line[]} */
  const line = (word, ops) => {
    const names = Array.from(ops.subarray(0, NAMED), (op) => `${opName(run, op)} of rank ${run.rank[op]}`);
    if (ops.length > NAMED) names.push(`${ops.length - NAMED} more`);
    return names.length ? [[word, names.join(", ")]] : [];
  };
  return [
    ...line(
      "needs",
      rowsOf(run.links.into, task).map((one) => from[one]),
    ),
    ...line(
      "needed by",
      rowsOf(run.links.outOf, task).map((one) => to[one]),
    ),
  ];
}

// Lines as a sentence for who hears them.
/** @param {Line[]} lines */
const spoken = ([[title, said], ...rest]) => `${title} ${said}. ${rest.map(([word, text]) => `${word}: ${text}`).join("; ")}`;

/** @param {Run} run @param {number} begin @param {number} end @returns {Line[]} */
const timeLines = (run, begin, end) => [
  ["time", `${formatMoment(run.units, begin, run.makespan_s)} to ${formatMoment(run.units, end, run.makespan_s)}`],
  ["lasts", formatTime(run.units, end - begin)],
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
  if (first) return [["gap before", `${formatTime(run.units, gap)}: warm-up${from && `, waits${from}`}`]];
  const name = opName(run, source);
  const causes = /** @type {const} */ ([
    ["waiting", `waiting${from}`],
    ["exposed_alltoall", `exposed all-to-all of ${name}`],
    ["blocked", `${name} blocked by the order of messages`],
    ["exposed_transfer", `exposed transfer of ${name}`],
    ["exposed_gather", "exposed gathering of weights"],
    ["host", "not issued by the host yet"],
  ]);
  const parts = causes
    .map(([cause, words]) => /** @type {const} */ ([run.gaps[cause][place] * run.second, words]))
    .filter(([seconds]) => seconds > 2 * run.second)
    .map(([seconds, words]) => `${formatTime(run.units, seconds)} ${words}`);
  return [["gap before", `${formatTime(run.units, gap)}: ${parts.join(", ")}`]];
}

/** @param {Run} run @param {LaneBand} band @param {number} rank @param {number} time */
function phaseLines(run, band, rank, time) {
  const { begin, end, starts, row } = band.boxes;
  const place = firstAfter(end, time, starts[rank], starts[rank + 1]);
  const { phases } = run;
  if (!phases || place >= starts[rank + 1] || time < begin[place]) return null;
  const [name, kind, layer] = run.looks[phases.look[row[place]]];
  const op = opOfPhase(run, phases, row[place]);
  const lane = band.name === "all-to-all" ? run.collectives : band.name;
  /** @type {Line[]} */
  const lines = [
    [name, `${KINDS[kind]}${layer >= 0 ? ` of layer ${layer}` : ""}, ${lane} lane of rank ${rank}`],
    ["op", `${opName(run, op)}${run.paired[op] ? ` in ${taskName(run, phases.task[row[place]])}` : ""}`],
    ...timeLines(run, begin[place], end[place]),
  ];
  if (band.name === "all-to-all") lines.push(["exposed", formatTime(run.units, exposedIn(phases.exposed, rank, begin[place], end[place]))]);
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

// Why the compute lane stood still before a phase: inside a task only a collective holds it up.
/** @param {Run} run @param {Int32Array} tasks @param {Lane} lane @param {number} rank @param {number} place */
function laneGap(run, tasks, { begin, end, starts, row }, rank, place) {
  const task = tasks[row[place]];
  const free = place > starts[rank] && tasks[row[place - 1]] === task ? end[place - 1] : run.task.begin[task];
  const gap = begin[place] - free;
  if (gap > 2 * run.second) return `${formatTime(run.units, gap)}: exposed ${run.collectives}`;
  const outside = place === starts[rank] || tasks[row[place - 1]] !== task;
  return outside ? gapLines(run, rank, task)[0][1] : "none";
}

/** @param {Chart} chart @param {Run} run @param {PointerEvent} event @returns {Line[] | null} */
function memoryLines(chart, run, event) {
  const frame = chart.canvas.getBoundingClientRect();
  const rank = Math.floor((event.clientY - frame.top) / chart.row);
  const time = chart.time(event.clientX - frame.left);
  if (rank < 0 || rank >= run.ranks || time < chart.from || time > chart.to) return null;
  const { at, starts, amounts, total, peaks } = run.occupancy;
  const moment = firstAfter(at, time, starts[rank], starts[rank + 1]) - 1;
  /** @param {Float32Array | Float64Array} values */
  const amountOf = (values) => formatOccupancy(run, moment < starts[rank] ? 0 : values[moment]);
  return [
    [amountOf(total), `on rank ${rank} at ${formatMoment(run.units, time, run.makespan_s)}`],
    .../** @type {Line[]} */ (run.kinds.length > 1 ? run.kinds.map((kind, place) => [kind, amountOf(amounts[place])]).reverse() : []),
    ["peak", formatOccupancy(run, peaks[rank])],
  ];
}

// How many ranks are idle at a moment for which cause, and what the fullest holds then.
/** @param {Chart} chart @param {Run} run @param {PointerEvent} event @param {PageData["causes"]} causes @returns {Line[] | null} */
function stripLines(chart, run, event, causes) {
  const time = chart.time(event.clientX - chart.canvas.getBoundingClientRect().left);
  if (time < chart.from || time > Math.min(chart.to, run.makespan_s)) return null;
  const names = Object.keys(causes);
  const { begin, end, starts, code } = run.idle;
  const { at, starts: moments, total } = run.occupancy;
  /** @type {Map<string, number>} */
  const idle = new Map();
  let fullest = 0;
  for (let rank = 0; rank < run.ranks; rank += 1) {
    const one = firstAfter(end, time, starts[rank], starts[rank + 1]);
    if (one < starts[rank + 1] && begin[one] <= time) idle.set(names[code[one]], (idle.get(names[code[one]]) ?? 0) + 1);
    const moment = firstAfter(at, time, moments[rank], moments[rank + 1]) - 1;
    if (moment >= moments[rank]) fullest = Math.max(fullest, total[moment]);
  }
  const count = [...idle.values()].reduce((sum, one) => sum + one, 0);
  return [
    [`${count} of ${run.ranks} ranks`, `idle at ${formatMoment(run.units, time, run.makespan_s)}`],
    .../** @type {Line[]} */ ([...idle].map(([cause, ranks]) => [causes[cause].words, `${ranks}`])),
    ["the fullest rank holds", formatOccupancy(run, fullest)],
  ];
}

// Say this beside the pointer; nothing where there is nothing to say.
/** @param {HTMLElement} tip @param {PointerEvent | null} event @param {Line[] | null} lines */
function showTip(tip, event, lines) {
  tip.hidden = !lines;
  if (!lines || !event) return;
  const [[title, said], ...rest] = lines;
  tip.replaceChildren(
    element("b", {}, title),
    ` ${said}`,
    element("dl", {}, ...rest.flatMap(([word, text]) => [element("dt", {}, word), element("dd", {}, text)])),
  );
  const left = event.clientX + 14;
  const below = event.clientY + 18;
  tip.style.left = `${clamp(left + tip.offsetWidth > window.innerWidth ? event.clientX - tip.offsetWidth - 10 : left, 4, Math.max(4, window.innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${below + tip.offsetHeight > window.innerHeight ? Math.max(4, event.clientY - tip.offsetHeight - 10) : below}px`;
}
