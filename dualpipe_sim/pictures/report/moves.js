// @ts-check
// How the window moves: wheel, drag, pinch, keys.

// Wheel, drag, pinch, keys, pointer: the same on every chart with the page's time axis.
/** @param {Chart} chart @param {Moves} page */
function listenTo(chart, page) {
  const { canvas } = chart;
  /** @type {Map<number, number>} */
  const pointers = new Map();
  let moved = false; // since the pointer is down: what was a drag is no click
  /** @param {MouseEvent} event */
  const at = (event) => event.clientX - canvas.getBoundingClientRect().left;

  canvas.addEventListener(
    "wheel",
    (event) => {
      const all = page.view.from <= 0 && page.view.to >= page.view.whole;
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
        if (all) return;
        page.pan((event.deltaX || event.deltaY) / chart.span);
      } else {
        if (all && event.deltaY > 0) return; // nothing to zoom out of: the page scrolls
        page.zoom(Math.exp(clamp(event.deltaY, -240, 240) / 400), chart.time(clamp(at(event), chart.gutter, chart.gutter + chart.span)));
      }
      event.preventDefault();
    },
    { passive: false },
  );

  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, at(event));
    moved = false;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (before === undefined) return void page.tip(event);
    const now = at(event);
    moved ||= Math.abs(now - before) > 1;
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, x]) => x);
    if (other === undefined) {
      if (now !== before) page.pan((before - now) / chart.span);
    } else if (Math.abs(now - other) > 4) {
      page.zoom(Math.abs((before - other) / (now - other)), chart.time((now + other) / 2));
    }
    pointers.set(event.pointerId, now);
  });
  for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) {
    canvas.addEventListener(name, (event) => {
      pointers.delete(event.pointerId);
      if (event.pointerType === "touch" && name === "pointerup") page.tip(event);
    });
  }
  canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && page.hideTip());
  canvas.addEventListener("click", () => moved || page.click?.());
  canvas.addEventListener("dblclick", page.fitAgain);
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    /** @type {Record<string, () => void>} */
    const acts = {
      "+": () => page.zoom(0.5),
      "=": () => page.zoom(0.5),
      "-": () => page.zoom(2),
      0: page.fitAgain,
    };
    if (event.shiftKey) Object.assign(acts, { ArrowLeft: () => page.pan(-0.2), ArrowRight: () => page.pan(0.2) });
    const act = acts[event.key];
    if (event.key === "Escape") page.hideTip();
    if (act) act();
    else if (!page.key?.(event.key)) return;
    event.preventDefault();
  });
}

// On the overview: drag the window, or drag out a new one beside it.
/** @param {Chart} chart @param {View} view @param {(from: number, to: number) => void} zoomTo @param {() => void} fitAgain */
function listenToOverview(chart, view, zoomTo, fitAgain) {
  const { canvas } = chart;
  /** @type {{at: number, from: number, to: number, inside: boolean} | null} */
  let start = null;
  /** @param {PointerEvent} event */
  const time = (event) => clamp(chart.time(event.clientX - canvas.getBoundingClientRect().left), 0, view.whole);
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const inside = time(event) > view.from && time(event) < view.to && view.to - view.from < 0.999 * view.whole;
    start = { at: time(event), from: view.from, to: view.to, inside };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!start) return;
    const now = time(event);
    if (start.inside) zoomTo(start.from + now - start.at, start.to + now - start.at);
    else if (Math.abs(now - start.at) > 0.003 * view.whole) zoomTo(Math.min(now, start.at), Math.max(now, start.at));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      start = null;
    });
  }
  canvas.addEventListener("dblclick", fitAgain);
}
