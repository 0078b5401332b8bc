// @ts-check
// A pen that writes SVG, as far as charts use one of a canvas.

/** @param {number} value */
const short = (value) => `${Math.round(100 * value) / 100}`;
/** @param {string} text */
const escaped = (text) => text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);

class SvgPen {
  /** @param {CanvasRenderingContext2D} ruler what measures texts */
  constructor(ruler) {
    this.ruler = ruler;
    /** @type {string[]} */
    this.parts = [];
    this.fillStyle = this.strokeStyle = "#000";
    this.lineWidth = 1;
    this.textAlign = "left";
    this.textBaseline = "middle";
    this.font = "";
    this.path = "";
    this.dash = "";
    this.clips = 0;
    /** @type {{groups: number, style: object}[]} */
    this.saved = [];
  }

  save() {
    const { fillStyle, strokeStyle, lineWidth, textAlign, font, dash } = this;
    this.saved.push({ groups: 0, style: { fillStyle, strokeStyle, lineWidth, textAlign, font, dash } });
  }
  restore() {
    const last = this.saved.pop();
    if (!last) return;
    this.parts.push("</g>".repeat(last.groups));
    Object.assign(this, last.style);
  }
  /** @param {string} attributes */
  group(attributes) {
    this.parts.push(`<g ${attributes}>`);
    this.saved[this.saved.length - 1].groups += 1;
  }
  /** @param {number} x @param {number} y */
  translate(x, y) {
    this.group(`transform="translate(${short(x)} ${short(y)})"`);
  }
  clip() {
    this.clips += 1;
    this.parts.push(`<clipPath id="clip${this.clips}"><path d="${this.path}"/></clipPath>`);
    this.group(`clip-path="url(#clip${this.clips})"`);
  }

  beginPath() {
    this.path = "";
  }
  /** @param {number} x @param {number} y */
  moveTo(x, y) {
    this.path += `M${short(x)} ${short(y)}`;
  }
  /** @param {number} x @param {number} y */
  lineTo(x, y) {
    this.path += `L${short(x)} ${short(y)}`;
  }
  /** @param {number} x @param {number} y @param {number} width @param {number} height */
  rect(x, y, width, height) {
    this.path += `M${short(x)} ${short(y)}h${short(width)}v${short(height)}h${short(-width)}z`;
  }
  get stroked() {
    return `fill="none" stroke="${this.strokeStyle}" stroke-width="${short(this.lineWidth)}"${this.dash && ` stroke-dasharray="${this.dash}"`}`;
  }
  stroke() {
    this.parts.push(`<path d="${this.path}" ${this.stroked}/>`);
  }
  fill() {
    this.parts.push(`<path d="${this.path}" fill="${this.fillStyle}"/>`);
  }
  /** @param {number[]} dash */
  setLineDash(dash) {
    this.dash = dash.join(" ");
  }
  /** @param {number} x @param {number} y @param {number} width @param {number} height */
  fillRect(x, y, width, height) {
    this.parts.push(`<rect x="${short(x)}" y="${short(y)}" width="${short(Math.max(0, width))}" height="${short(height)}" fill="${this.fillStyle}"/>`);
  }
  /** @param {number} x @param {number} y @param {number} width @param {number} height */
  strokeRect(x, y, width, height) {
    this.parts.push(`<rect x="${short(x)}" y="${short(y)}" width="${short(Math.max(0, width))}" height="${short(Math.max(0, height))}" ${this.stroked}/>`);
  }

  /** @param {string} text */
  measureText(text) {
    this.ruler.font = this.font;
    return this.ruler.measureText(text);
  }
  /** @param {string} text @param {number} x @param {number} y */
  fillText(text, x, y) {
    const anchor = { left: "start", center: "middle", right: "end" }[this.textAlign] ?? "start";
    const place = `x="${short(x)}" y="${short(y)}" text-anchor="${anchor}" dominant-baseline="central"`;
    this.parts.push(`<text ${place} style="font:${escaped(this.font)}" fill="${this.fillStyle}">${escaped(text)}</text>`);
  }

  // A part of an image at a place in a size, or all of it at a place; left out where it is empty.
  /** @param {HTMLCanvasElement} image @param {number[]} places */
  drawImage(image, ...places) {
    const { width, height } = image;
    const [left, top, wide, high, x, y, toWidth, toHeight] = places.length > 2 ? places : [0, 0, width, height, ...places, width, height];
    const part = element("canvas", { width: wide, height: high });
    const pen = penOf(part);
    pen.drawImage(image, -left, -top);
    if (!pen.getImageData(0, 0, wide, high).data.some((one) => one)) return;
    const place = `x="${short(x)}" y="${short(y)}" width="${short(toWidth)}" height="${short(toHeight)}"`;
    this.parts.push(`<image ${place} preserveAspectRatio="none" style="image-rendering:pixelated" href="${part.toDataURL()}"/>`);
  }

  /** @param {number} width @param {number} height */
  text(width, height) {
    const size = `width="${short(width)}" height="${short(height)}" viewBox="0 0 ${short(width)} ${short(height)}"`;
    return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>${this.parts.join("\n")}</svg>\n`;
  }
}
