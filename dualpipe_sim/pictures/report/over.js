// @ts-check
// What lies over a Gantt chart and changes while the chart stays: the op that is looked at, what it waits for and what waits
// for it, and while one steps through a run, which ops have begun.

/** @param {Chart} chart @param {Chart} gantt @param {Run} run @param {Marks} marks */
function drawMarks(chart, gantt, run, marks) {
  chart.resize(gantt.height);
  chart.show(gantt.from, gantt.to);
  chart.row = gantt.row;
  chart.bands = gantt.bands;
  chart.clip(gantt.row * run.ranks + 2);
  if (marks.now_s !== null) drawNow(chart, run, marks.now_s);
  if (marks.task >= 0) drawLinks(chart, run, marks.task);
  chart.pen.restore();
}

// A line at a moment, and a veil over all that begins later.
/** @param {Chart} chart @param {Run} run @param {number} now */
function drawNow(chart, run, now) {
  const { pen, row } = chart;
  const { begin, end, starts } = run.task;
  pen.fillStyle = chart.colour("veil");
  for (let rank = 0; rank < run.ranks; rank += 1) {
    const next = firstAfter(begin, now, starts[rank], starts[rank + 1]);
    const left = Math.max(chart.x(Math.max(now, next > starts[rank] ? end[next - 1] : 0)), chart.gutter);
    pen.fillRect(left, rank * row, Math.max(0, chart.gutter + chart.span - left), row);
  }
  pen.fillStyle = chart.colour("focus");
  pen.fillRect(chart.x(now) - 1, 0, 2, row * run.ranks);
}

// Marks are drawn twice, wider in the colour of the ground below, so that they are seen on ops of every colour.
/** @param {Chart} chart @param {Run} run @param {number} task */
function drawLinks(chart, run, task) {
  for (const [colour, wider] of /** @type {const} */ ([
    ["ground", 3],
    ["focus", 0],
  ])) {
    chart.pen.strokeStyle = chart.pen.fillStyle = chart.colour(colour);
    markLinks(chart, run, task, wider);
  }
}

/** @param {Chart} chart @param {Run} run @param {number} task @param {number} wider */
function markLinks(chart, run, task, wider) {
  const { from, to, begin, end } = run.transfers;
  const source = run.waitsFor[task];
  const [into, outOf] = [rowsOf(run.links.into, task), rowsOf(run.links.outOf, task)];
  const rank = run.rank[run.firstOp[task]];
  /** @param {number} op @param {number} width */
  const outline = (op, width) => box(chart, run.rank[op], run.ops.begin[op], run.ops.end[op], width + wider);
  /** @param {number} one @returns {Link} */
  const linkOf = (one) => ({
    begin: begin[one],
    from: run.rank[from[one]],
    end: end[one],
    to: run.rank[to[one]],
    until: run.task.begin[run.taskOfOp[to[one]]],
  });
  chart.pen.setLineDash(wider ? [] : [4, 3]);
  for (const one of outOf) {
    outline(to[one], 1);
    arrow(chart, linkOf(one), 1, wider);
  }
  chart.pen.setLineDash([]);
  for (const one of into) {
    const width = from[one] === source ? 2 : 1;
    outline(from[one], width);
    arrow(chart, linkOf(one), width, wider);
  }
  if (source >= 0 && !into.some((one) => from[one] === source)) {
    const now = run.task.begin[task];
    outline(source, 2);
    arrow(chart, { begin: run.ops.end[source], from: run.rank[source], end: now, to: rank, until: now }, 2, wider);
  }
  box(chart, rank, run.task.begin[task], run.task.end[task], 3 + wider);
}

/** @param {Chart} chart @param {number} rank @param {number} begin @param {number} end @param {number} width */
function box(chart, rank, begin, end, width) {
  const [top, height] = opsPlace(chart);
  const [left, right] = [chart.x(begin), chart.x(end)];
  chart.pen.lineWidth = width;
  chart.pen.strokeRect(left, (rank + top) * chart.row + 1.5, Math.max(2, right - left), height * chart.row - 3);
}

const [HEAD_PX, INSIDE_PX] = [8, 10];
// From within the op that makes a tensor into the one that needs it, so that a tensor that takes no time is seen, too; what
// comes before its op begins waits there.
/** @param {Chart} chart @param {Link} link @param {number} width @param {number} wider */
function arrow(chart, { begin, from, end, to, until }, width, wider) {
  const { pen, row } = chart;
  const [top, height] = opsPlace(chart);
  /** @param {number} rank */
  const y = (rank) => (rank + top + height / 2) * row;
  const waits = chart.x(until) - chart.x(end) > INSIDE_PX;
  const [x0, x1, x2] = [chart.x(begin) - INSIDE_PX, chart.x(end) + (waits ? 0 : INSIDE_PX), chart.x(until) + INSIDE_PX];
  const angle = waits ? 0 : Math.atan2(y(to) - y(from), x1 - x0);
  const tip = waits ? x2 : x1;
  pen.lineWidth = width + wider;
  pen.beginPath();
  pen.moveTo(x0, y(from));
  pen.lineTo(x1, y(to));
  pen.lineTo(tip, y(to));
  pen.stroke();
  pen.beginPath();
  pen.moveTo(tip, y(to));
  for (const side of [-0.4, 0.4]) pen.lineTo(tip - HEAD_PX * Math.cos(angle + side), y(to) - HEAD_PX * Math.sin(angle + side));
  pen.fill();
}
