// @ts-check
// Two strips below a Gantt chart among others: how many ranks are idle for which cause, and what the fullest rank holds.

const STRIP_PX = 26;

/** @param {Chart} chart @param {Run} run @param {View} view @param {string[]} causes @param {number} most */
function drawStrips(chart, run, view, causes, most) {
  chart.resize(2 * STRIP_PX + 8 + AXIS_PX);
  chart.show(view.from, view.to);
  const bottom = 2 * STRIP_PX + 8;
  drawOver(chart, run, bottom);
  chart.clip(bottom);
  drawIdleStrip(chart, run, causes, STRIP_PX + 2);
  drawMemoryStrip(chart, run, bottom, (STRIP_PX - 2) / (most || 1));
  chart.pen.restore();
  const { pen } = chart;
  const idle = idleByRank(run).reduce((sum, one) => sum + one, 0) / run.ranks / (run.makespan_s || 1);
  const said = [
    ["idle", `${(100 * idle).toFixed(1)} %`],
    [chart.gutter < 60 ? "mem" : "memory", formatOccupancy(run, Math.max(...run.occupancy.peaks))],
  ];
  said.forEach(([word, text], line) => {
    const y = line * (STRIP_PX + 6) + STRIP_PX / 2 + 2;
    pen.fillStyle = chart.colour("soft-ink");
    pen.textAlign = "right";
    pen.fillText(word, chart.gutter - 6, y);
    pen.textAlign = "left";
    pen.fillText(text, chart.gutter + chart.span + 5, y);
  });
  chart.axis(bottom, run.units, view.whole, "");
}

// Columns of pixels as high as the share of ranks that are idle, cause on cause.
/** @param {Chart} chart @param {Run} run @param {string[]} causes @param {number} floor */
function drawIdleStrip(chart, run, causes, floor) {
  const columns = Math.max(1, Math.ceil(chart.span));
  const shares = causes.map(() => new Float64Array(columns));
  const { begin, end, code, starts } = run.idle;
  const scale = columns / (chart.to - chart.from);
  for (let rank = 0; rank < run.ranks; rank += 1) {
    for (let one = firstAfter(end, chart.from, starts[rank], starts[rank + 1]); one < starts[rank + 1] && begin[one] < chart.to; one += 1) {
      const [left, right] = [(begin[one] - chart.from) * scale, (end[one] - chart.from) * scale];
      const share = shares[code[one]];
      for (let column = Math.max(0, Math.floor(left)); column < right && column < columns; column += 1) {
        share[column] += (Math.min(right, column + 1) - Math.max(left, column)) / run.ranks;
      }
    }
  }
  stack(chart, causes, shares, floor, STRIP_PX - 2);
}

// What the fullest rank holds in each column of pixels, kind on kind.
/** @param {Chart} chart @param {Run} run @param {number} floor @param {number} scale */
function drawMemoryStrip(chart, run, floor, scale) {
  const { at, starts, amounts, total } = run.occupancy;
  const columns = Math.max(1, Math.ceil(chart.span));
  const fullest = new Int32Array(columns).fill(-1);
  for (let rank = 0; rank < run.ranks; rank += 1) {
    fullestMoments(chart, at, total, starts[rank], starts[rank + 1]).forEach((moment, column) => {
      if (moment >= 0 && (fullest[column] < 0 || total[moment] > total[fullest[column]])) fullest[column] = moment;
    });
  }
  drawAmounts(chart, run, fullest, amounts, floor, scale);
}
