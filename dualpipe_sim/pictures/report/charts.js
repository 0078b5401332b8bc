// The page's charts: Gantt, overview, memory, causes.

const AXIS_PX = 24;
const GANTT_BANDS = { ops: [0.03, 0.29], compute: [0.34, 0.36], alltoall: [0.72, 0.24] }; // top and height in a row
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function rowHeight(run, lanes) {
  const room = Math.max(360, 0.62 * window.innerHeight) / run.ranks;
  return lanes ? clamp(room, 44, 84) : clamp(room, 14, 40);
}

// What each band of a rank's row shows: its place in the row, its boxes, how they look.
function ganttBands(run, lanes) {
  const ops = {
    name: "ops", boxes: run.ops, palette: run.palette, place: lanes ? GANTT_BANDS.ops : [0, 1], gap: true,
    label: (op) => `${run.micro_batch[op]}`,
  };
  if (!lanes) return [ops];
  const [compute, alltoall] = run.lanes;
  const nameIn = (lane) => (place) => run.looks[run.phase.look[lane.row[place]]][0];
  const { alltoall: place } = GANTT_BANDS;
  return [
    ops,
    { name: "compute", boxes: compute, palette: run.palette, place: GANTT_BANDS.compute, gap: true, label: nameIn(compute) },
    { name: "all-to-all", boxes: alltoall, palette: [colourOf("hidden")], place, gap: true, label: nameIn(alltoall) },
    { name: "exposed", boxes: run.exposed, palette: [colourOf("exposed")], place },
  ];
}

function drawGantt(chart, run, lanes, view, hovered) {
  const row = rowHeight(run, lanes);
  const bottom = row * run.ranks + 2;
  chart.resize(bottom + AXIS_PX);
  chart.show(view.from, view.to);
  chart.row = row;
  chart.bands = ganttBands(run, lanes);
  chart.pen.fillStyle = colourOf("over");
  const end = chart.x(run.makespan_s);
  if (end < chart.width - chart.right) chart.pen.fillRect(Math.max(end, chart.gutter), 0, chart.width - chart.right - Math.max(end, chart.gutter), bottom);
  chart.clip(bottom);
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
    chart.pen.fillStyle = colourOf("row-line");
    if (rank) chart.pen.fillRect(chart.gutter, rank * row - 1, chart.span, 1);
  }
  chart.axis(bottom, view.whole, "idle");
}

// Mark a task and, where it waited for a tensor, the op that made it, and the tensor on its way.
function drawCause(chart, run, task, [top, height]) {
  const { pen, row } = chart;
  const middle = (rank) => (rank + top + height / 2) * row;
  const outline = (rank, begin, end) => pen.strokeRect(chart.x(begin), (rank + top) * row, Math.max(2, chart.x(end) - chart.x(begin)), height * row);
  const rank = run.rank[run.firstOp[task]];
  pen.strokeStyle = colourOf("focus");
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
function drawOverview(chart, run, view) {
  chart.resize(OVERVIEW_PX);
  chart.show(0, view.whole);
  const drawn = [run, chart.width, view.whole];
  if (!drawn.every((one, place) => one === chart.drawn?.[place])) {
    chart.busy = busyRanks(chart, run);
    chart.drawn = drawn;
  }
  const { pen } = chart;
  pen.drawImage(chart.busy, chart.gutter, 0);
  pen.fillStyle = colourOf("ink");
  pen.textAlign = "right";
  pen.fillText("busy", chart.gutter - 6, OVERVIEW_PX / 2);
  const [left, right] = [chart.x(view.from), chart.x(view.to)];
  pen.fillStyle = colourOf("veil");
  pen.fillRect(chart.gutter, 0, left - chart.gutter, OVERVIEW_PX);
  pen.fillRect(right, 0, chart.gutter + chart.span - right, OVERVIEW_PX);
  pen.strokeStyle = colourOf("ink");
  pen.lineWidth = 1.5;
  pen.strokeRect(left + 0.75, 0.75, Math.max(3, right - left - 1.5), OVERVIEW_PX - 1.5);
}

// Columns of pixels, as high as the share of ranks that are busy, kind on kind.
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
  const pen = canvas.getContext("2d");
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
const memoryColour = (run, kind) => (run.kinds.length === 1 ? colourOf("memory") : run.memory_fills[kind]);
const formatHeld = (run, amount) => (run.in_bytes ? `${(amount / 1e9).toPrecision(3)} GB` : `${Number(amount.toPrecision(3))}`);

function drawMemory(chart, run, view) {
  const row = clamp(420 / run.ranks, 18, 48);
  const bottom = row * run.ranks + 2;
  chart.resize(bottom + AXIS_PX);
  chart.show(view.from, view.to);
  chart.row = row;
  const { held } = run;
  const scale = (MEMORY_TOP * row) / (Math.max(...held.peaks, run.limit ?? 0) || 1);
  chart.clip(bottom);
  for (let rank = 0; rank < run.ranks; rank += 1) drawHeld(chart, run, rank, (rank + 1) * row, scale);
  chart.pen.restore();
  const step = Math.ceil(13 / row);
  for (let rank = 0; rank < run.ranks; rank += 1) {
    chart.label(rank, (rank + 0.6) * row, step);
    const over = run.limit !== null && held.peaks[rank] > run.limit;
    chart.note(rank, (rank + 0.6) * row, step, formatHeld(run, held.peaks[rank]), over ? "limit" : "ink");
  }
  chart.axis(bottom, view.whole, "peak");
}

// The fullest moment of each column of pixels, each kind on top of those before it.
function drawHeld(chart, run, rank, floor, scale) {
  const { at, starts, amounts, total } = run.held;
  const { pen } = chart;
  const columns = fullestMoments(chart, at, total, starts[rank], starts[rank + 1]);
  const level = new Float64Array(columns.length);
  amounts.forEach((amount, kind) => {
    pen.fillStyle = memoryColour(run, kind);
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
    pen.fillStyle = colourOf("limit");
    for (let x = chart.gutter; x < chart.gutter + chart.span; x += 7) pen.fillRect(x, floor - run.limit * scale, 4, 1);
  }
  pen.fillStyle = colourOf("row-line");
  pen.fillRect(chart.gutter, floor, chart.span, 1);
}

function fullestMoments(chart, at, total, first, last) {
  const columns = new Array(Math.max(1, Math.ceil(chart.span)));
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
function showCauses(place, run, causes, longest) {
  place.replaceChildren(
    ...Array.from({ length: run.ranks }, (_, rank) => {
      const row = element("div", { className: "bar" }, element("span", { className: "name" }, `rank ${rank}`));
      let idle = 0;
      for (const [cause, seconds] of Object.entries(run.causes)) {
        idle += seconds[rank];
        const part = element("span", { className: "part", title: `${causes[cause].words}: ${formatTime(seconds[rank])}` });
        part.style.cssText = `background:${causes[cause].fill};width:calc((100% - 12.5rem) * ${seconds[rank] / longest})`;
        row.append(part);
      }
      row.append(element("span", { className: "share" }, `${formatTime(idle)}, ${((100 * idle) / run.makespan_s).toFixed(1)} %`));
      return row;
    })
  );
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
