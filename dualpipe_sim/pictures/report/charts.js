// @ts-check
// The page's charts: Gantt, overview, memory, causes.

const AXIS_PX = 24;
/** @type {Record<string, [top: number, height: number]>} as shares of a row */
const GANTT_BANDS = { ops: [0.03, 0.29], compute: [0.34, 0.36], alltoall: [0.72, 0.24] };
/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** @param {Run} run @param {boolean} lanes */
function rowHeight(run, lanes) {
  const room = Math.max(360, 0.62 * window.innerHeight) / run.ranks;
  return lanes ? clamp(room, 44, 84) : clamp(room, 14, 40);
}

const COPIES = 0.26; // share of the ops' band that copies to the host and back take, below those that they run beside

// The ops, and where there are any the copies.
/** @param {Run} run @param {[top: number, height: number]} place @returns {Band[]} */
function opBands(run, [top, height]) {
  const { ops, copies, palette } = run;
  /** @type {Band} */
  const band = { name: "ops", boxes: ops, palette, place: [top, height], gap: true, label: (op) => numberOf(run, op) };
  if (!copies.row.length) return [band];
  band.place = [top, (1 - COPIES) * height];
  return [band, { name: "copies", boxes: copies, palette, place: [top + (1 - COPIES) * height, 0.9 * COPIES * height], gap: true }];
}

/** @param {Chart} chart @param {Run} run @param {boolean} lanes @returns {Band[]} */
function ganttBands(chart, run, lanes) {
  const ops = opBands(run, lanes ? GANTT_BANDS.ops : [0, 1]);
  const { phases } = run;
  if (!lanes || !phases) return ops;
  const { compute, alltoall, exposed } = phases;
  /** @param {Lane} lane @returns {(place: number) => string} */
  const nameIn = (lane) => (place) => run.looks[phases.look[lane.row[place]]][0];
  const { alltoall: place } = GANTT_BANDS;
  return [
    ...ops,
    { name: "compute", boxes: compute, palette: run.palette, place: GANTT_BANDS.compute, gap: true, label: nameIn(compute) },
    { name: "all-to-all", boxes: alltoall, palette: [chart.colour("hidden")], place, gap: true, label: nameIn(alltoall) },
    { name: "exposed", boxes: exposed, palette: [chart.colour("exposed")], place },
  ];
}

/** @param {Chart} chart @param {Run} run @param {boolean} lanes @param {View} view @param {number} hovered */
function drawGantt(chart, run, lanes, view, hovered) {
  const row = rowHeight(run, lanes);
  const bottom = row * run.ranks + 2;
  chart.resize(bottom + AXIS_PX);
  chart.show(view.from, view.to);
  chart.row = row;
  chart.bands = ganttBands(chart, run, lanes);
  chart.pen.fillStyle = chart.colour("over");
  const end = chart.x(run.makespan_s);
  if (end < chart.width - chart.right) chart.pen.fillRect(Math.max(end, chart.gutter), 0, chart.width - chart.right - Math.max(end, chart.gutter), bottom);
  chart.clip(bottom);
  /** @type {PlacedBand[]} */
  const bands = [];
  for (let rank = 0; rank < run.ranks; rank += 1) {
    for (const band of chart.bands) {
      const [top, height] = band.place;
      bands.push({ ...band, row: rank, y: Math.round(rank * row + top * row), height: Math.max(1, Math.round(height * row) - (lanes ? 0 : 1)) });
    }
  }
  drawBands(chart, bands);
  for (const band of bands) if (band.name === "ops") drawFrames(chart, run.pairs, band.row, band.y, band.height, "#000");
  if (hovered >= 0) drawCause(chart, run, hovered, chart.bands[0].place);
  chart.pen.restore();
  const step = Math.ceil(13 / row);
  const idle = idleByRank(run);
  for (let rank = 0; rank < run.ranks; rank += 1) {
    chart.label(rank, (rank + 0.5) * row, step);
    chart.note(rank, (rank + 0.5) * row, step, `${((100 * idle[rank]) / (run.makespan_s || 1)).toFixed(1)} %`, "soft-ink");
    chart.pen.fillStyle = chart.colour("row-line");
    if (rank) chart.pen.fillRect(chart.gutter, rank * row - 1, chart.span, 1);
  }
  chart.axis(bottom, run.units, view.whole, "idle");
}

// Mark a task and, where it waited for a tensor, the op that made it, and the tensor on its way.
/** @param {Chart} chart @param {Run} run @param {number} task @param {[top: number, height: number]} place */
function drawCause(chart, run, task, [top, height]) {
  const { pen, row } = chart;
  /** @param {number} rank */
  const middle = (rank) => (rank + top + height / 2) * row;
  /** @param {number} rank @param {number} begin @param {number} end */
  const outline = (rank, begin, end) => pen.strokeRect(chart.x(begin), (rank + top) * row, Math.max(2, chart.x(end) - chart.x(begin)), height * row);
  const rank = run.rank[run.firstOp[task]];
  pen.strokeStyle = chart.colour("focus");
  pen.lineWidth = 2;
  outline(rank, run.task.begin[task], run.task.end[task]);
  const { from, to, begin, end } = run.transfers;
  const source = run.waitsFor[task];
  const sent = from.findIndex((op, place) => op === source && run.taskOfOp[to[place]] === task);
  if (source < 0 || sent < 0) return;
  outline(run.rank[source], run.ops.begin[source], run.ops.end[source]);
  pen.beginPath();
  pen.moveTo(chart.x(begin[sent]), middle(run.rank[source]));
  pen.lineTo(chart.x(end[sent]), middle(rank));
  pen.stroke();
}

// How many ranks are busy with what over the whole run, and the part of it that the Gantt shows.
const OVERVIEW_PX = 44;
/** @param {Chart} chart @param {Run} run @param {View} view */
function drawOverview(chart, run, view) {
  chart.resize(OVERVIEW_PX);
  chart.show(0, view.whole);
  const of = [run, chart.width, view.whole];
  if (!of.every((one, place) => one === chart.kept.of[place])) chart.kept = { of, image: busyRanks(chart, run) };
  const { pen } = chart;
  pen.drawImage(chart.kept.image, chart.gutter, 0);
  pen.fillStyle = chart.colour("ink");
  pen.textAlign = "right";
  pen.fillText("busy", chart.gutter - 6, OVERVIEW_PX / 2);
  const [left, right] = [chart.x(view.from), chart.x(view.to)];
  pen.fillStyle = chart.colour("veil");
  pen.fillRect(chart.gutter, 0, left - chart.gutter, OVERVIEW_PX);
  pen.fillRect(right, 0, chart.gutter + chart.span - right, OVERVIEW_PX);
  pen.strokeStyle = chart.colour("ink");
  pen.lineWidth = 1.5;
  pen.strokeRect(left + 0.75, 0.75, Math.max(3, right - left - 1.5), OVERVIEW_PX - 1.5);
}

// Columns of pixels, as high as the share of ranks that are busy, kind on kind.
/** @param {Chart} chart @param {Run} run */
function busyRanks(chart, run) {
  const canvas = element("canvas", { width: Math.max(1, Math.round(chart.span)), height: OVERVIEW_PX });
  const shares = run.fills.map(() => new Float64Array(canvas.width));
  for (let op = 0; op < run.kind.length; op += 1) {
    const [left, right] = [run.ops.begin[op], run.ops.end[op]].map((time) => (time / chart.to) * canvas.width);
    const share = shares[run.kind[op]];
    for (let column = Math.floor(left); column < right && column < canvas.width; column += 1) {
      share[column] += Math.min(right, column + 1) - Math.max(left, column);
    }
  }
  const pen = penOf(canvas);
  const floors = new Float64Array(canvas.width).fill(OVERVIEW_PX - 2);
  shares.forEach((share, kind) => {
    [pen.fillStyle] = run.fills[kind];
    share.forEach((ranks, column) => {
      const height = (ranks / run.ranks) * (OVERVIEW_PX - 4);
      floors[column] -= height;
      if (height) pen.fillRect(column, floors[column], 1, height);
    });
  });
  return canvas;
}

const MEMORY_TOP = 0.92; // share of a row that the most any rank holds takes
/** @param {Chart} chart @param {Run} run @param {number} kind */
const memoryColour = (chart, run, kind) => (run.kinds.length === 1 ? chart.colour("memory") : run.memoryFills[kind]);
/** @param {RunHead} run @param {number} amount */
const formatOccupancy = (run, amount) => (run.in_bytes ? `${(amount / 1e9).toPrecision(3)} GB` : `${Number(amount.toPrecision(3))}`);

/** @param {Chart} chart @param {Run} run @param {View} view */
function drawMemory(chart, run, view) {
  const row = clamp(420 / run.ranks, 18, 48);
  const bottom = row * run.ranks + 2;
  chart.resize(bottom + AXIS_PX);
  chart.show(view.from, view.to);
  chart.row = row;
  const { peaks } = run.occupancy;
  const scale = (MEMORY_TOP * row) / (Math.max(...peaks, run.limit ?? 0) || 1);
  chart.clip(bottom);
  for (let rank = 0; rank < run.ranks; rank += 1) drawOccupancy(chart, run, rank, (rank + 1) * row, scale);
  chart.pen.restore();
  const step = Math.ceil(13 / row);
  for (let rank = 0; rank < run.ranks; rank += 1) {
    chart.label(rank, (rank + 0.6) * row, step);
    const over = run.limit !== null && peaks[rank] > run.limit;
    chart.note(rank, (rank + 0.6) * row, step, formatOccupancy(run, peaks[rank]), over ? "limit" : "ink");
  }
  chart.axis(bottom, run.units, view.whole, "peak");
}

// The fullest moment of each column of pixels, each kind on top of those before it.
/** @param {Chart} chart @param {Run} run @param {number} rank @param {number} floor @param {number} scale */
function drawOccupancy(chart, run, rank, floor, scale) {
  const { at, starts, amounts, total } = run.occupancy;
  const { pen } = chart;
  const columns = fullestMoments(chart, at, total, starts[rank], starts[rank + 1]);
  const level = new Float64Array(columns.length);
  amounts.forEach((amount, kind) => {
    pen.fillStyle = memoryColour(chart, run, kind);
    /** @param {number} column */
    const heightOf = (column) => (columns[column] < 0 ? 0 : amount[columns[column]] * scale);
    let column = 0;
    while (column < columns.length) {
      const [height, below, first] = [heightOf(column), level[column], column];
      while (column < columns.length && heightOf(column) === height && level[column] === below) {
        level[column] += height;
        column += 1;
      }
      if (height) pen.fillRect(chart.gutter + first, floor - below - height, column - first, height);
    }
  });
  if (run.limit !== null) {
    pen.fillStyle = chart.colour("limit");
    for (let x = chart.gutter; x < chart.gutter + chart.span; x += 7) pen.fillRect(x, floor - run.limit * scale, 4, 1);
  }
  pen.fillStyle = chart.colour("row-line");
  pen.fillRect(chart.gutter, floor, chart.span, 1);
}

/** @param {Chart} chart @param {Float64Array} at @param {Float64Array} total @param {number} first @param {number} last */
function fullestMoments(chart, at, total, first, last) {
  const columns = new Int32Array(Math.max(1, Math.ceil(chart.span)));
  let moment = Math.max(first, firstAfter(at, chart.from, first, last) - 1);
  for (let column = 0; column < columns.length; column += 1) {
    const until = chart.time(chart.gutter + column + 1);
    let fullest = at[moment] < until ? moment : -1;
    while (moment + 1 < last && at[moment + 1] < until) {
      moment += 1;
      if (fullest < 0 || total[moment] > total[fullest]) fullest = moment;
    }
    columns[column] = fullest;
  }
  return columns;
}

// Bars of idle time by cause, to one scale for all schedules.
/** @param {HTMLElement} place @param {Run} run @param {PageData["causes"]} causes @param {number} longest */
function showCauses(place, run, causes, longest) {
  place.replaceChildren(
    ...Array.from({ length: run.ranks }, (_, rank) => {
      const row = element("div", { className: "bar" }, element("span", { className: "name" }, `rank ${rank}`));
      let idle = 0;
      for (const [cause, seconds] of Object.entries(run.causes)) {
        idle += seconds[rank];
        const part = element("span", { className: "part", title: `${causes[cause].words}: ${formatTime(run.units, seconds[rank])}` });
        part.style.cssText = `background:${causes[cause].fill};width:calc((100% - 12.5rem) * ${seconds[rank] / longest})`;
        row.append(part);
      }
      row.append(element("span", { className: "share" }, `${formatTime(run.units, idle)}, ${((100 * idle) / run.makespan_s).toFixed(1)} %`));
      return row;
    }),
  );
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Partial<HTMLElementTagNameMap[Tag]>} properties @param {...(Node | string)} children
 */
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
