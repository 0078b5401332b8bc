// @ts-check
// What buttons, keys and the search do, and which of them there are.

/** @param {Viewer} viewer */
function listenToControls(viewer) {
  const { find, look, memory, moves, view } = viewer;
  const { signal } = viewer.ended;
  find("one").onclick = () => layOut(viewer, false);
  find("side").onclick = () => layOut(viewer, true);
  find("zoom-in").onclick = () => viewer.zoom(0.5);
  find("zoom-out").onclick = () => viewer.zoom(2);
  find("fit-run").onclick = () => viewer.fit("run");
  find("fit-all").onclick = () => viewer.fit("all");
  for (const name of /** @type {const} */ (["idle", "path", "lanes"])) {
    find(name).onchange = () => {
      look[name] = find(name).checked;
      viewer.arrange();
    };
  }
  find("back").onclick = () => stepByHand(viewer, -1);
  find("next").onclick = () => stepByHand(viewer, 1);
  find("play").onclick = () => play(viewer);
  find("stop").onclick = () => stopStepping(viewer);
  find("search").onsubmit = (event) => {
    event.preventDefault();
    findOp(viewer, find("op").value);
  };
  find("png").onclick = () => savePng(viewer);
  find("svg").onclick = () => saveSvg(viewer);
  listenTo(memory, {
    ...moves,
    tip: (event) => viewer.active?.run && viewer.tip(event, memoryLines(memory, viewer.active.run, event)),
    key: (key) => viewer.active !== null && onKey(viewer, viewer.active, key),
  });
  listenToOverview(viewer.overview, view, viewer.zoomTo.bind(viewer), moves.fitAgain);
  window.addEventListener("resize", () => viewer.redraw(), { signal });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => viewer.arrange(), { signal });
  const resized = new ResizeObserver(() => viewer.redraw());
  resized.observe(viewer.root);
  signal.addEventListener("abort", () => resized.disconnect());
}

/** @param {Viewer} viewer @param {boolean} side */
function layOut(viewer, side) {
  if (viewer.look.side === side) return;
  viewer.look.side = side;
  if (!side)
    viewer.shown = Math.max(
      0,
      viewer.data.runs.findIndex(({ label }) => label === viewer.active?.run?.label),
    );
  if (viewer.view.fits) viewer.view.fits = "run";
  viewer.arrange();
}

// Buttons, legends and bars of what is shown now.
/** @param {Viewer} viewer @param {number[]} places of the runs shown */
function showControls(viewer, places) {
  const { find, look } = viewer;
  find("runs")
    .querySelectorAll("button")
    .forEach((button, place) => {
      button.setAttribute("aria-pressed", `${places.includes(place)}`);
    });
  find("one").setAttribute("aria-pressed", `${!look.side}`);
  find("side").setAttribute("aria-pressed", `${look.side}`);
  find("fit-all").hidden = look.side || viewer.data.runs.length < 2;
  find("memory-section").hidden = look.side;
  const runs = /** @type {Run[]} */ (viewer.panels.map(({ run }) => run));
  find("lanes-choice").hidden = look.side || runs[0].phases === null;
  find("memory-title").textContent = runs[0].in_bytes ? "Memory" : "Activations in flight";
  showLegends(find, viewer.overview, runs, look, viewer.data.causes);
  const rows = look.side ? idleOfRuns(runs) : idleOfRanks(runs[0]);
  const scale = look.side ? rows : viewer.data.runs.flatMap(idleByRank);
  const longest = Math.max(...scale.map((one) => (typeof one === "number" ? one : Object.values(one.seconds).reduce((sum, part) => sum + part, 0))));
  showCauses(find("causes"), rows, viewer.data.causes, longest || 1);
  tabulate(find("idle-table"), rows, viewer.data.causes, look.side ? "schedule" : "rank");
  showStepping(viewer);
}

/** @param {Viewer} viewer */
function showStepping(viewer) {
  viewer.find("stop").hidden = viewer.now_s === null;
  viewer.find("play").textContent = viewer.player?.playing ? "pause" : "play";
}

/** @param {Viewer} viewer @param {number} sign */
function step(viewer, sign) {
  const panel = viewer.active;
  if (!panel?.run) return false;
  const before = viewer.marked(panel);
  const task = stepFrom(panel.run, before, viewer.now_s, sign);
  viewer.now_s = panel.run.task.begin[task];
  follow(viewer);
  viewer.mark(panel, task);
  showStepping(viewer);
  return task !== before;
}

/** @param {Viewer} viewer @param {number} sign */
function stepByHand(viewer, sign) {
  viewer.player?.stop();
  step(viewer, sign);
}

/** @param {Viewer} viewer */
function play(viewer) {
  if (viewer.player?.playing) return viewer.player.stop();
  viewer.player ??= new Player({
    advance: (share) => {
      const end = viewer.longest();
      viewer.now_s = Math.min(end, (viewer.now_s ?? viewer.view.from) + share * (viewer.view.to - viewer.view.from));
      viewer.chosen = null;
      follow(viewer);
      viewer.drawMarks();
      return viewer.now_s < end && !viewer.ended.signal.aborted;
    },
    step: () => step(viewer, 1),
    ended: () => showStepping(viewer),
  });
  if (viewer.now_s !== null && viewer.now_s >= viewer.longest()) viewer.now_s = null; // once more
  viewer.player.start();
  showStepping(viewer);
}

/** @param {Viewer} viewer */
function stopStepping(viewer) {
  viewer.now_s = null;
  viewer.player?.stop();
  viewer.drawMarks();
  showStepping(viewer);
}

// Let the window go along where the moment has left it.
/** @param {Viewer} viewer */
function follow(viewer) {
  const { from, to } = viewer.view;
  const now = viewer.now_s ?? from;
  if (now < from || now > to) viewer.zoomTo(now - 0.1 * (to - from), now + 0.9 * (to - from));
}

/** @param {Viewer} viewer @param {Panel} panel @param {string} key */
function onKey(viewer, panel, key) {
  if (!panel.run) return false;
  if (key.startsWith("Arrow")) {
    const at = viewer.marked(panel);
    const task = at < 0 ? stepFrom(panel.run, -1, viewer.view.from - panel.run.second, 1) : taskBeside(panel.run, at, key);
    viewer.mark(panel, task);
    viewer.show(panel, task);
    return true;
  }
  /** @type {Record<string, () => unknown>} */
  const acts = {
    n: () => stepByHand(viewer, 1),
    ".": () => stepByHand(viewer, 1),
    p: () => stepByHand(viewer, -1),
    ",": () => stepByHand(viewer, -1),
    " ": () => play(viewer),
    Escape: () => {
      stopStepping(viewer);
      viewer.mark(panel, -1);
    },
  };
  acts[key]?.();
  return key in acts;
}

// Look for an op by its name, first in the run that is looked at, then in the others shown.
/** @param {Viewer} viewer @param {string} text */
function findOp(viewer, text) {
  if (!viewer.active) return false;
  if (!text.trim()) {
    viewer.mark(viewer.active, -1);
    return true;
  }
  const panels = [viewer.active, ...viewer.panels.filter((panel) => panel !== viewer.active)];
  for (const panel of panels) {
    const op = panel.run && opNamed(panel.run, text);
    if (op === null) {
      viewer.say(`“${text}” is no op's name; write stage, kind and micro-batch, as 3B7`);
      return false;
    }
    if (panel.run && op >= 0) {
      const task = panel.run.taskOfOp[op];
      viewer.mark(panel, task, op);
      viewer.show(panel, task);
      return true;
    }
  }
  viewer.say(`there is no ${text} in ${panels.map(({ run }) => run?.label).join(", ")}`);
  return false;
}
