// @ts-check
// What is shown as a file: the same charts, drawn once more below each other by a pen of another kind.

const LINE_PX = 24;
const SHARP = 2; // pixels of a PNG to each of the page

// A chart like another one, whose pen is lent to it.
/** @param {Chart} chart @param {CanvasRenderingContext2D} pen @returns {Chart} */
function lent(chart, pen) {
  /** @type {Chart} */
  const copy = Object.create(chart);
  copy.pen = pen;
  copy.resize = (height) => {
    copy.height = height;
    pen.font = chart.pen.font;
    pen.textBaseline = "middle";
  };
  return copy;
}

/** @typedef {{height: number, draw: (pen: CanvasRenderingContext2D) => void}} Piece */

/** @param {Chart} chart @param {(chart: Chart) => void} draw @returns {Piece} */
const pieceOf = (chart, draw) => ({ height: chart.height + 4, draw: (pen) => draw(lent(chart, pen)) });

/** @param {Viewer} viewer @param {string} text @param {boolean} [bold] @returns {Piece} */
const lineOf = ({ overview }, text, bold = false) => ({
  height: LINE_PX,
  draw: (pen) => {
    pen.font = `${bold ? "bold 14px" : "12px"} ${overview.style.fontFamily}`;
    pen.fillStyle = overview.colour("ink");
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.fillText(text, 6, LINE_PX / 2);
  },
});

// A legend's entries, as many to a line as it has room for.
/** @param {Viewer} viewer @param {HTMLElement} legend @returns {Piece} */
function legendOf({ overview }, legend) {
  /** @type {{x: number, y: number, colours: string[], words: string}[]} */
  const entries = [];
  let [x, y] = [6, 0];
  for (const swatch of legend.querySelectorAll("span")) {
    const words = swatch.textContent?.trim() ?? "";
    const width = 40 + widthOf(overview.pen, words) * 1.1;
    if (x + width > overview.width && x > 6) [x, y] = [6, y + LINE_PX];
    entries.push({ x, y, words, colours: (swatch.dataset.colours ?? "").split(" ") });
    x += width;
  }
  return {
    height: entries.length ? y + LINE_PX : 0,
    draw: (pen) => {
      pen.font = overview.pen.font;
      pen.textBaseline = "middle";
      pen.textAlign = "left";
      for (const entry of entries) {
        entry.colours.forEach((colour, one) => {
          pen.fillStyle = colour;
          pen.fillRect(entry.x + (24 / entry.colours.length) * one, entry.y + 6, 24 / entry.colours.length, 12);
        });
        pen.fillStyle = overview.colour("ink");
        pen.fillText(entry.words, entry.x + 29, entry.y + LINE_PX / 2);
      }
    },
  };
}

/** @param {Viewer} viewer @returns {Piece[]} */
function piecesOf(viewer) {
  const { data, fills, find, look, memory, most, panels, view } = viewer;
  const pieces = [legendOf(viewer, find("gantt-legend"))];
  for (const panel of panels) {
    const { gantt, parts, run, strips } = panel;
    if (!run) continue;
    panel.draw(true);
    pieces.push(lineOf(viewer, panel.name.textContent ?? "", true));
    pieces.push(
      pieceOf(gantt, (chart) => {
        drawGantt(chart, run, look, view, data, panels.length);
        drawMarks(chart, gantt, run, { task: viewer.marked(panel), now_s: viewer.now_s });
      }),
    );
    if (look.side) pieces.push(pieceOf(strips, (chart) => drawStrips(chart, run, view, fills, most)));
    if (look.path) pieces.push(legendOf(viewer, parts));
  }
  const alone = panels[0].run;
  if (look.side || !alone) return pieces;
  const title = lineOf(viewer, find("memory-title").textContent ?? "", true);
  return [...pieces, title, legendOf(viewer, find("memory-legend")), pieceOf(memory, (chart) => drawMemory(chart, alone, view))];
}

/** @param {Viewer} viewer @param {CanvasRenderingContext2D} pen @param {Piece[]} pieces @param {number} height */
function drawPieces({ overview }, pen, pieces, height) {
  pen.fillStyle = overview.colour("ground");
  pen.fillRect(0, 0, overview.width, height);
  let y = 0;
  for (const piece of pieces) {
    pen.save();
    pen.translate(0, y);
    piece.draw(pen);
    pen.restore();
    y += piece.height;
  }
}

/** @param {Piece[]} pieces */
const heightOf = (pieces) => pieces.reduce((sum, { height }) => sum + height, 0);

/** @param {Viewer} viewer */
function savePng(viewer) {
  const pieces = piecesOf(viewer);
  const height = heightOf(pieces);
  const canvas = element("canvas", { width: SHARP * viewer.overview.width, height: SHARP * height });
  const pen = penOf(canvas);
  pen.scale(SHARP, SHARP);
  drawPieces(viewer, pen, pieces, height);
  canvas.toBlob((blob) => blob && save(viewer, blob, "png"));
}

/** @param {Viewer} viewer */
function saveSvg(viewer) {
  const pieces = piecesOf(viewer);
  const height = heightOf(pieces);
  const pen = new SvgPen(viewer.overview.pen);
  drawPieces(viewer, /** @type {any} it has what charts use */ (pen), pieces, height);
  save(viewer, new Blob([pen.text(viewer.overview.width, height)], { type: "image/svg+xml" }), "svg");
}

/** @param {Viewer} viewer @param {Blob} blob @param {string} suffix */
function save({ panels }, blob, suffix) {
  const names = panels.map(({ run }) => run?.label.replace(/[^\w.-]+/g, "-")).join("_");
  const link = element("a", { href: URL.createObjectURL(blob), download: `${names.slice(0, 80)}.${suffix}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
