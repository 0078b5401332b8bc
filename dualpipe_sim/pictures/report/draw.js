// @ts-check
// Drawing on a canvas: a time axis below rows, and boxes in bands of rows, crowded or not.

const LETTER_PX = 11;
const NARROW_PX = 2; // boxes narrower than this are mixed into columns of pixels
const KINDS = ["F", "B", "I", "W", "R", "S", "T", "O", "L", "UNSHARD", "RESHARD", "REDUCE_GRAD"];

/** @type {Map<string, number[]>} "#rrggbb" to its three numbers */
const channels = new Map();
/** @param {string} colour */
function rgb(colour) {
  const known = channels.get(colour) ?? [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
  channels.set(colour, known);
  return known;
}

// Black or white, whichever contrasts more (WCAG 2).
/** @param {string} colour */
function inkOn(colour) {
  const [red, green, blue] = rgb(colour).map((one) => (one <= 10 ? one / 3294 : ((one / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

const DIGITS = new Intl.NumberFormat("en");
/** @type {Units} */
const SECONDS = [
  [" s", 1],
  [" ms", 1e-3],
  [" µs", 1e-6],
  [" ns", 1e-9],
];
/** @type {Units} Where times are units of no clock they are written without one. */
const NO_UNIT = [["", 1]];
/** @param {Units} units @param {number} seconds */
const unitOf = (units, seconds) => units.find(([, size]) => seconds >= size) ?? units[seconds ? units.length - 1 : 0];
/** @param {Units} units @param {number} seconds */
function formatTime(units, seconds) {
  const [name, size] = unitOf(units, Math.abs(seconds));
  return `${DIGITS.format(Number((seconds / size).toPrecision(4)))}${name}`;
}
// A moment to the nanosecond or seven digits, so that neighbours can be told apart.
/** @param {Units} units @param {number} seconds @param {number} until */
function formatMoment(units, seconds, until) {
  const [name, size] = unitOf(units, until);
  return `${(seconds / size).toFixed(6).replace(/\.?0+$/, "")}${name}`;
}

/** @param {HTMLCanvasElement} canvas */
function penOf(canvas) {
  const pen = canvas.getContext("2d");
  if (!pen) throw new Error("this browser cannot draw on a canvas");
  return pen;
}

class Chart {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.style = getComputedStyle(canvas);
    this.pen = penOf(canvas);
    this.mixed = document.createElement("canvas");
    /** @type {{of: unknown[], image: HTMLCanvasElement}} what was drawn last that costs time, and of what */
    this.kept = { of: [null], image: this.mixed };
    this.width = this.height = this.gutter = this.right = 0; // pixels
    this.from = this.to = 0;
    this.row = 1; // a rank's height
    /** @type {Band[]} */
    this.bands = [];
  }

  // A colour of the theme.
  /** @param {string} name */
  colour(name) {
    return this.style.getPropertyValue(`--${name}`).trim();
  }

  // Take the width that the page gives and as much height as the rows ask for.
  /** @param {number} height */
  resize(height) {
    const ratio = window.devicePixelRatio || 1;
    const { canvas } = this;
    this.width = canvas.parentElement?.clientWidth ?? canvas.clientWidth;
    this.height = height;
    this.gutter = this.width < 600 ? 48 : 64;
    this.right = this.width < 600 ? 56 : 64;
    const [wide, high] = [Math.round(this.width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wide || canvas.height !== high) {
      [canvas.width, canvas.height] = [wide, high];
      canvas.style.height = `${height}px`;
    }
    this.pen.setTransform(wide / this.width, 0, 0, high / height, 0, 0);
    this.pen.clearRect(0, 0, this.width, height);
    this.pen.font = `${LETTER_PX}px ${this.style.fontFamily}`;
    this.pen.textBaseline = "middle";
  }

  get span() {
    return this.width - this.gutter - this.right;
  }
  /** @param {number} time */
  x(time) {
    return this.gutter + ((time - this.from) / (this.to - this.from)) * this.span;
  }
  /** @param {number} x */
  time(x) {
    return this.from + ((x - this.gutter) / this.span) * (this.to - this.from);
  }

  /** @param {number} from @param {number} to */
  show(from, to) {
    [this.from, this.to] = [from, to];
  }

  /** @param {number} bottom @param {Units} units @param {number} until @param {string} notes */
  axis(bottom, units, until, notes) {
    const { pen } = this;
    const [name, size] = unitOf(units, until);
    const rough = (this.to - this.from) / size / Math.max(2, this.span / 110);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = ([1, 2, 5].find((one) => one * power >= rough) ?? 10) * power;
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    pen.strokeStyle = this.colour("row-line");
    pen.fillStyle = this.colour("ink");
    pen.textAlign = "center";
    for (let tick = Math.ceil(this.from / size / step); tick * step * size <= this.to; tick += 1) {
      const x = this.x(tick * step * size);
      pen.fillRect(x, bottom, 1, 4);
      const text = `${(tick * step).toFixed(digits)}${name}`;
      pen.fillText(text, Math.min(x, this.gutter + this.span - pen.measureText(text).width / 2), bottom + 12);
    }
    pen.textAlign = "left";
    pen.fillStyle = this.colour("soft-ink");
    pen.fillText(notes, this.gutter + this.span + 5, bottom + 12);
    pen.fillStyle = this.colour("faint-ink");
    pen.fillRect(this.gutter, bottom, this.span, 1);
  }

  /** @param {number} rank @param {number} y @param {number} step */
  label(rank, y, step) {
    if (rank % step) return;
    this.pen.fillStyle = this.colour("ink");
    this.pen.textAlign = "right";
    this.pen.fillText(this.gutter < 60 ? `${rank}` : `rank ${rank}`, this.gutter - 6, Math.max(y, LETTER_PX / 2));
  }

  // Say something of a rank at the right of its row.
  /** @param {number} rank @param {number} y @param {number} step @param {string} text @param {string} colour */
  note(rank, y, step, text, colour) {
    if (rank % step) return;
    this.pen.fillStyle = this.colour(colour);
    this.pen.textAlign = "left";
    this.pen.fillText(text, this.gutter + this.span + 5, Math.max(y, LETTER_PX / 2));
  }

  /** @param {number} height */
  clip(height) {
    this.pen.save();
    this.pen.beginPath();
    this.pen.rect(this.gutter, 0, this.span, height);
    this.pen.clip();
  }
}

// Bands are collected, then drawn together.
/** @param {Chart} chart @param {PlacedBand[]} bands */
function drawBands(chart, bands) {
  const columns = Math.max(1, Math.round(chart.span * (window.devicePixelRatio || 1)));
  const image = new ImageData(columns, bands.length);
  const sums = new Float32Array(4 * columns);
  const looked = bands.map((band, line) => mixBand(chart, band, columns, sums, image.data.subarray(4 * columns * line)));
  const { mixed, pen } = chart;
  [mixed.width, mixed.height] = [columns, bands.length];
  penOf(mixed).putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = false;
  bands.forEach((band, line) => {
    if (looked[line].crowded) pen.drawImage(mixed, 0, line, columns, 1, chart.gutter, band.y, chart.span, band.height);
  });
  bands.forEach((band, line) => {
    drawWide(chart, band, looked[line].wide);
  });
}

// Mix the narrow boxes of a band into a line of pixels, mean colour and covered share; say which are wide, and if any are narrow.
/** @param {Chart} chart @param {PlacedBand} band @param {number} columns @param {Float32Array} sums @param {Uint8ClampedArray} pixels */
function mixBand(chart, band, columns, sums, pixels) {
  const { begin, end, starts, code } = band.boxes;
  const colours = band.palette.map(rgb);
  const scale = columns / (chart.to - chart.from);
  /** @type {number[]} */
  const wide = [];
  let crowded = false;
  const last = starts[band.row + 1];
  for (let place = firstAfter(end, chart.from, starts[band.row], last); place < last && begin[place] < chart.to; place += 1) {
    const left = (begin[place] - chart.from) * scale;
    const right = (end[place] - chart.from) * scale;
    if (right - left >= NARROW_PX) {
      wide.push(place);
      continue;
    }
    const [red, green, blue] = colours[code[place]];
    crowded = true;
    for (let column = Math.max(0, Math.floor(left)); column < right && column < columns; column += 1) {
      const share = Math.min(right, column + 1) - Math.max(left, column);
      sums[4 * column] += share * red;
      sums[4 * column + 1] += share * green;
      sums[4 * column + 2] += share * blue;
      sums[4 * column + 3] += share;
    }
  }
  if (!crowded) return { wide, crowded };
  for (let column = 0; column < columns; column += 1) {
    const share = sums[4 * column + 3];
    if (share <= 0) continue;
    for (let channel = 0; channel < 3; channel += 1) pixels[4 * column + channel] = sums[4 * column + channel] / share;
    pixels[4 * column + 3] = 255 * Math.min(1, share);
  }
  sums.fill(0);
  return { wide, crowded };
}

/** @param {Chart} chart @param {PlacedBand} band @param {number[]} places */
function drawWide(chart, band, places) {
  const { pen } = chart;
  const { begin, end, code } = band.boxes;
  /** @type {number[][]} places by colour, since to change it costs time */
  const coloured = [];
  for (const place of places) {
    coloured[code[place]] ??= [];
    coloured[code[place]].push(place);
  }
  coloured.forEach((of, one) => {
    pen.fillStyle = band.palette[one];
    for (const place of of) {
      const [left, right] = [chart.x(begin[place]), chart.x(end[place])];
      pen.fillRect(left, band.y, right - left - (band.gap && right - left > 5 ? 1 : 0), band.height);
    }
  });
  if (band.label && band.height >= 11) labelWide(chart, band, places, band.label);
}

/** @type {Map<string, number>} of texts in the one font that charts have */
const widths = new Map();
/** @param {CanvasRenderingContext2D} pen @param {string} text */
function widthOf(pen, text) {
  const width = widths.get(text) ?? pen.measureText(text).width;
  widths.set(text, width);
  return width;
}

/** @param {Chart} chart @param {PlacedBand} band @param {number[]} places @param {(place: number) => string} label */
function labelWide(chart, band, places, label) {
  const { pen } = chart;
  const inks = band.palette.map(inkOn);
  pen.textAlign = "center";
  for (const place of places) {
    const left = Math.max(chart.x(band.boxes.begin[place]), chart.gutter);
    const right = Math.min(chart.x(band.boxes.end[place]), chart.gutter + chart.span);
    if (right - left < 12) continue;
    const text = label(place);
    if (text && widthOf(pen, text) < right - left - 3) {
      pen.fillStyle = inks[band.boxes.code[place]];
      pen.fillText(text, (left + right) / 2, band.y + band.height / 2 + 0.5);
    }
  }
}

// Borders around boxes, thin around narrow ones; left out where they would hide what they enclose.
/** @param {Chart} chart @param {Boxes} boxes @param {number} row @param {number} y @param {number} height @param {string} colour */
function drawFrames(chart, boxes, row, y, height, colour) {
  const { begin, end, starts } = boxes;
  const { pen } = chart;
  pen.strokeStyle = colour;
  for (let place = firstAfter(end, chart.from, starts[row], starts[row + 1]); place < starts[row + 1] && begin[place] < chart.to; place += 1) {
    const [left, right] = [chart.x(begin[place]), chart.x(end[place])];
    pen.lineWidth = Math.min(1.5, 0.05 * (right - left));
    if (pen.lineWidth >= 0.5) pen.strokeRect(left + 0.5, y + 0.75, right - left - 1.5, height - 1.5);
  }
}
