// @ts-check
// The page: which run is shown, and which part of it.

async function main() {
  /** @type {PageData} */
  const data = JSON.parse(find("data").textContent);
  if (data.runs.every((run) => run.unitless)) writeNoUnit();
  const whole = Math.max(...data.runs.map((run) => run.makespan_s)) || 1;
  /** @type {View} */
  const view = { from: 0, to: whole, whole, fits: "run" };
  const charts = { gantt: new Chart(find("gantt")), overview: new Chart(find("overview")), memory: new Chart(find("memory")) };
  /** @type {Promise<Run>[]} */
  const unpacked = [];
  /** @param {number} place */
  const runAt = (place) => {
    unpacked[place] ??= unpack(data.runs[place], data.memory_fills);
    return unpacked[place];
  };
  const longest = Math.max(...data.runs.flatMap((run) => idleByRank(run))) || 1;
  let shown = data.first;
  let run = await runAt(shown);
  let lanes = false;
  let asked = false;
  let hovered = -1; // the task that the pointer is on

  function draw() {
    asked = false;
    drawGantt(charts.gantt, run, lanes, view, hovered);
    drawOverview(charts.overview, run, view);
    drawMemory(charts.memory, run, view);
    Object.assign(charts.gantt.canvas.dataset, { from: view.from, to: view.to, run: run.label });
  }
  const redraw = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(draw);
  };

  /** @param {number} place */
  async function choose(place) {
    shown = place;
    const chosen = await runAt(place);
    if (shown !== place) return; // another one was chosen meanwhile
    run = chosen;
    hovered = -1; // only now: until here the pointer was on the run before
    hideTip();
    lanes = run.phases !== null && find("lanes").checked;
    if (view.fits) fit(view.fits);
    else view.whole = Math.max(view.whole, run.makespan_s);
    document.querySelectorAll("#runs button").forEach((button, one) => {
      button.setAttribute("aria-pressed", `${one === place}`);
    });
    document.querySelectorAll("#table tbody tr").forEach((row) => {
      row.classList.toggle("chosen", row.firstElementChild?.textContent === run.label);
    });
    find("lanes-choice").hidden = run.phases === null;
    find("memory-title").textContent = run.in_bytes ? "Memory" : "Activations in flight";
    showLegends(run, data, lanes);
    showCauses(find("causes"), run, data.causes, longest);
    redraw();
  }

  /** @param {number} from @param {number} to */
  function zoomTo(from, to) {
    const length = clamp(to - from, view.whole * 1e-7, view.whole);
    view.from = clamp(from, 0, view.whole - length);
    view.to = view.from + length;
    if (length < view.whole) view.fits = "";
    hideTip();
    redraw();
  }
  // Show all of this run, or the time that the longest of all takes, so that runs can be compared.
  /** @param {"run" | "all"} what */
  function fit(what) {
    view.fits = what;
    view.whole = (what === "run" && run.makespan_s) || whole;
    zoomTo(0, view.whole);
  }
  /** @param {number} task */
  function hover(task) {
    if (task === hovered) return;
    hovered = task;
    redraw();
  }
  const fitAgain = () => fit(view.whole === whole && run.makespan_s < whole ? "all" : "run");
  /** @param {number} factor */
  const zoom = (factor, around = (view.from + view.to) / 2) => zoomTo(around - (around - view.from) * factor, around + (view.to - around) * factor);
  /** @param {number} share */
  const pan = (share) => zoomTo(view.from + share * (view.to - view.from), view.to + share * (view.to - view.from));

  data.runs.forEach((one, place) => {
    const button = element("button", { type: "button", onclick: () => choose(place) }, one.label);
    button.append(element("small", {}, ` ${formatTime(one.makespan_s)}`));
    find("runs").append(button);
  });
  find("lanes").onchange = () => choose(shown);
  find("zoom-in").onclick = () => zoom(0.5);
  find("zoom-out").onclick = () => zoom(2);
  find("fit-run").onclick = () => fit("run");
  find("fit-all").onclick = () => fit("all");
  find("fit-all").hidden = data.runs.length < 2;
  window.addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => choose(shown));
  listenTo(charts.gantt, { view, zoom, pan, fitAgain, tip: (event) => hover(ganttTip(charts.gantt, run, event)) });
  listenTo(charts.memory, { view, zoom, pan, fitAgain, tip: (event) => memoryTip(charts.memory, run, event) });
  find("gantt").addEventListener("pointerleave", () => hover(-1));
  listenToOverview(charts.overview, view, zoomTo, fitAgain);
  await choose(data.first);
  document.body.dataset.ready = "yes";
}

/** @param {RunHead} run */
const idleByRank = (run) => Array.from({ length: run.ranks }, (_, rank) => Object.values(run.causes).reduce((sum, one) => sum + one[rank], 0));

// Wheel, drag, pinch, keys, pointer: the same on every chart with the page's time axis.
/** @param {Chart} chart @param {Moves} page */
function listenTo(chart, page) {
  const { canvas } = chart;
  /** @type {Map<number, number>} */
  const pointers = new Map();
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
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (before === undefined) return page.tip(event);
    const now = at(event);
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
  canvas.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && hideTip());
  canvas.addEventListener("dblclick", page.fitAgain);
  canvas.addEventListener("keydown", (event) => {
    /** @type {Record<string, () => void>} */
    const acts = {
      "+": () => page.zoom(0.5),
      "=": () => page.zoom(0.5),
      "-": () => page.zoom(2),
      0: page.fitAgain,
      ArrowLeft: () => page.pan(-0.2),
      ArrowRight: () => page.pan(0.2),
      Escape: hideTip,
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
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

// Legends.

/** @param {Run} run @param {PageData} data @param {boolean} lanes */
function showLegends(run, data, lanes) {
  /** @param {string[]} colours @param {string} words */
  const swatch = (colours, words) => {
    const sample = element("i", {});
    sample.style.background =
      colours.length > 1
        ? `linear-gradient(90deg, ${colours.map((one, place) => `${one} ${(100 * place) / colours.length}% ${(100 * (place + 1)) / colours.length}%`).join(", ")})`
        : colours[0];
    return element("span", { className: "swatch" }, sample, words);
  };
  const kinds = new Set(run.kind);
  if (lanes) for (const look of run.looks) kinds.add(look[1]);
  const entries = [...kinds].sort().map((kind) => swatch(run.fills[kind], run.words[kind]));
  if (run.pairs.begin.length) {
    const [forward, backward] = run.fills;
    const pair = swatch([forward[0], backward[backward.length - 1]], "overlapped pair");
    pair.firstElementChild?.classList.add("framed");
    entries.push(pair);
  }
  const word = run.collectives;
  if (lanes) entries.push(swatch([colourOf("hidden")], `${word} behind compute`), swatch([colourOf("exposed")], `exposed ${word}`));
  find("gantt-legend").replaceChildren(...entries);
  const uses = run.kinds.length > 1 ? run.kinds.map((kind, place) => swatch([memoryColour(run, place)], kind)) : [];
  const limit = run.limit === null ? [] : [swatch([colourOf("limit")], `limit, ${formatOccupancy(run, run.limit)}`)];
  find("memory-legend").replaceChildren(...uses, ...limit);
  find("causes-legend").replaceChildren(
    ...Object.keys(run.causes)
      .filter((cause) => run.causes[cause].some((seconds) => seconds > 0))
      .map((cause) => swatch([data.causes[cause].fill], data.causes[cause].words)),
  );
}

main();
