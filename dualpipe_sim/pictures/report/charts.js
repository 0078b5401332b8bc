// @ts-check
// The Gantt chart, and the overview of all of it.

const AXIS_PX = 24;
/** @type {Record<string, [top: number, height: number]>} as shares of a row */
const GANTT_BANDS = { ops: [0.03, 0.29], compute: [0.34, 0.36], alltoall: [0.72, 0.24] };
/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// A rank's height: its share of the window, or of what several runs below each other may take of it.
/** @param {Run} run @param {Wanted} look @param {number} runs */
function rowHeight(run, look, runs) {
  const room = Math.max(360, 0.62 * window.innerHeight) / run.ranks;
  if (look.side) return clamp((0.8 * room) / runs, 5, 24);
  return look.lanes ? clamp(room, 44, 84) : clamp(room, 14, 40);
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

// Idle time among ops is so pale that they stay the figure.
/** @param {Chart} chart @param {PageData["causes"]} causes @param {string} cause */
const idleColour = (chart, causes, cause) => chart.colour(`idle-${cause}`) || causes[cause].fill;

/** @param {Chart} chart @param {Run} run @param {Wanted} look @param {PageData["causes"]} causes @returns {Band[]} */
function ganttBands(chart, run, look, causes) {
  const lanes = look.lanes && run.phases !== null && !look.side;
  const ops = opBands(run, lanes ? GANTT_BANDS.ops : [0, 1]);
  const palette = Object.keys(causes).map((cause) => idleColour(chart, causes, cause));
  if (look.idle) ops.unshift({ name: "idle", boxes: run.idle, palette, place: ops[0].place });
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

/** @param {Chart} chart @param {Run} run @param {Wanted} look @param {View} view @param {PageData} data @param {number} runs */
function drawGantt(chart, run, look, view, { causes, parts }, runs) {
  const row = rowHeight(run, look, runs);
  const bottom = row * run.ranks + 2;
  chart.resize(bottom + (look.side ? 0 : AXIS_PX));
  chart.show(view.from, view.to);
  chart.row = row;
  chart.bands = ganttBands(chart, run, look, causes);
  drawOver(chart, run, bottom);
  chart.clip(bottom);
  /** @type {PlacedBand[]} */
  const bands = [];
  const gap = chart.bands.length > 3 || row < 8 ? 0 : 1;
  for (let rank = 0; rank < run.ranks; rank += 1) {
    for (const band of chart.bands) {
      const [top, height] = band.place;
      bands.push({ ...band, row: rank, y: Math.round(rank * row + top * row), height: Math.max(1, Math.round(height * row) - gap) });
    }
  }
  drawBands(chart, bands);
  for (const band of bands) if (band.name === "ops") drawFrames(chart, run.pairs, band.row, band.y, band.height, "#000");
  if (look.path) drawPath(chart, run, Object.keys(parts));
  chart.pen.restore();
  const step = Math.ceil(13 / row);
  const idle = idleByRank(run);
  for (let rank = 0; rank < run.ranks; rank += 1) {
    chart.label(rank, (rank + 0.5) * row, step);
    chart.note(rank, (rank + 0.5) * row, step, `${((100 * idle[rank]) / (run.makespan_s || 1)).toFixed(1)} %`, "soft-ink");
    chart.pen.fillStyle = chart.colour("row-line");
    if (rank && row >= 8) chart.pen.fillRect(chart.gutter, rank * row - 1, chart.span, 1);
  }
  if (!look.side) chart.axis(bottom, run.units, view.whole, "idle");
}

// Where a run on a longer axis is over.
/** @param {Chart} chart @param {Run} run @param {number} bottom */
function drawOver(chart, run, bottom) {
  const end = Math.max(chart.x(run.makespan_s), chart.gutter);
  chart.pen.fillStyle = chart.colour("over");
  if (end < chart.width - chart.right) chart.pen.fillRect(end, 0, chart.width - chart.right - end, bottom);
}

// The critical path, below what is written on ops: along its ranks, across where a tensor goes to another, in the colours of
// what it is spent on where that can be seen, in ink where it is too short.
/** @param {Chart} chart @param {Run} run @param {string[]} parts */
function drawPath(chart, run, parts) {
  const { pen, row } = chart;
  const { begin, end, rank, to, part } = run.path_of;
  const [top, height] = opsPlace(chart);
  /** @param {number} of */
  const y = (of) => Math.round((of + top + 0.84 * height) * row);
  const first = firstAfter(end, chart.from, 0, end.length);
  /** @param {string} colour @param {number} width @param {number} [of] the part to draw, where not all are */
  const draw = (colour, width, of) => {
    pen.beginPath();
    for (let one = first; one < end.length && begin[one] < chart.to; one += 1) {
      if (of !== undefined && (part[one] !== of || chart.x(end[one]) - chart.x(begin[one]) < NARROW_PX)) continue;
      pen.moveTo(chart.x(begin[one]), y(one ? to[one - 1] : rank[0]));
      pen.lineTo(chart.x(begin[one]), y(rank[one]));
      pen.lineTo(chart.x(end[one]), y(to[one]));
    }
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.stroke();
  };
  draw(chart.colour("ground"), 5);
  draw(chart.colour("ink"), 2);
  parts.forEach((name, one) => {
    if (run.path[name]) draw(chart.colour(`path-${name}`), 2, one);
  });
}

// Top and height of the ops' band, as shares of a row.
/** @param {Chart} chart */
const opsPlace = (chart) => chart.bands.find(({ name }) => name === "ops")?.place ?? [0, 1];

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

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Partial<HTMLElementTagNameMap[Tag]>} properties @param {...(Node | string)} children
 */
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
