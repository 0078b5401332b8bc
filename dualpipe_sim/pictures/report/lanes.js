// @ts-check
// What ranks hold, and why they are idle: on a time axis, as bars and as a table.

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
  drawAmounts(chart, run, fullestMoments(chart, at, total, starts[rank], starts[rank + 1]), amounts, floor, scale);
}

// What is held at one moment of each column of pixels (-1 for none), and what there is of memory.
/** @param {Chart} chart @param {Run} run @param {Int32Array} moments @param {Float32Array[]} amounts @param {number} floor @param {number} scale */
function drawAmounts(chart, run, moments, amounts, floor, scale) {
  const levels = amounts.map((amount) => {
    const level = new Float64Array(moments.length); // (in a loop: it is several times as fast as Float64Array.from)
    for (let column = 0; column < level.length; column += 1) level[column] = moments[column] < 0 ? 0 : amount[moments[column]];
    return level;
  });
  const colours = amounts.map((_, kind) => memoryColour(chart, run, kind));
  stack(chart, colours, levels, floor, scale);
  if (run.limit === null) return;
  chart.pen.fillStyle = chart.colour("limit");
  for (let x = chart.gutter; x < chart.gutter + chart.span; x += 7) chart.pen.fillRect(x, floor - run.limit * scale, 4, 1);
}

// Columns of pixels on each other, neighbours of one height in one stroke.
/** @param {Chart} chart @param {string[]} colours @param {Float64Array[]} levels @param {number} floor @param {number} scale */
function stack(chart, colours, levels, floor, scale) {
  const { pen } = chart;
  const below = new Float64Array(levels[0]?.length ?? 0);
  levels.forEach((level, one) => {
    pen.fillStyle = colours[one];
    let column = 0;
    while (column < level.length) {
      const [height, under, first] = [level[column] * scale, below[column], column];
      while (column < level.length && level[column] * scale === height && below[column] === under) {
        below[column] += height;
        column += 1;
      }
      if (height > 0) pen.fillRect(chart.gutter + first, floor - under - height, column - first, height);
    }
  });
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

// Bars of idle time by cause, to one scale: of each rank of a run, or of each of several runs in the mean.
/** @param {HTMLElement} place @param {IdleRow[]} rows @param {PageData["causes"]} causes @param {number} longest */
function showCauses(place, rows, causes, longest) {
  place.replaceChildren(
    ...rows.map(({ name, seconds, makespan_s, units }) => {
      const bar = element("div", { className: "bar" }, element("span", { className: "name" }, name));
      for (const [cause, one] of Object.entries(seconds)) {
        const part = element("span", { className: "part", title: `${causes[cause].words}: ${formatTime(units, one)}` });
        part.style.cssText = `background:${causes[cause].fill};width:calc((100% - var(--beside)) * ${one / longest})`;
        bar.append(part);
      }
      const idle = Object.values(seconds).reduce((sum, one) => sum + one, 0);
      bar.append(element("span", { className: "share" }, `${formatTime(units, idle)}, ${((100 * idle) / makespan_s).toFixed(1)} %`));
      return bar;
    }),
  );
}

// The same as a table, with what is held at most.
/** @param {HTMLTableElement} table @param {IdleRow[]} rows @param {PageData["causes"]} causes @param {string} word what rows are */
function tabulate(table, rows, causes, word) {
  const shown = Object.keys(causes).filter((cause) => rows.some(({ seconds }) => seconds[cause] > 0));
  /** @param {"th" | "td"} tag @param {string[]} cells */
  const line = (tag, cells) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  table.tHead?.replaceChildren(line("th", [word, ...shown.map((cause) => causes[cause].words), "holds at most"]));
  table.tBodies[0].replaceChildren(
    ...rows.map(({ name, seconds, peak, units }) => line("td", [name, ...shown.map((cause) => formatTime(units, seconds[cause] ?? 0)), peak])),
  );
}

/** @param {Run} run @returns {IdleRow[]} */
const idleOfRanks = (run) =>
  Array.from({ length: run.ranks }, (_, rank) => ({
    name: `rank ${rank}`,
    seconds: Object.fromEntries(Object.entries(run.causes).map(([cause, seconds]) => [cause, seconds[rank]])),
    peak: formatOccupancy(run, run.occupancy.peaks[rank]),
    makespan_s: run.makespan_s || 1,
    units: run.units,
  }));

/** @param {Run[]} runs @returns {IdleRow[]} */
const idleOfRuns = (runs) =>
  runs.map((run) => ({
    name: run.label,
    seconds: Object.fromEntries(Object.entries(run.causes).map(([cause, seconds]) => [cause, seconds.reduce((sum, one) => sum + one, 0) / run.ranks])),
    peak: formatOccupancy(run, Math.max(...run.occupancy.peaks)),
    makespan_s: run.makespan_s || 1,
    units: run.units,
  }));

/** @param {RunHead} run */
const idleByRank = (run) => Array.from({ length: run.ranks }, (_, rank) => Object.values(run.causes).reduce((sum, one) => sum + one[rank], 0));
