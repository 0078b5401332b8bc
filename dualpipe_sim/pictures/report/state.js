// @ts-check
// What is shown, as a short text that a URL can hold, and back.

const ALL = "*";

/** @param {Viewer} viewer */
function writeState(viewer) {
  const { active, beside, chosen, data, look, now_s, view } = viewer;
  const said = new URLSearchParams();
  if (active?.run) said.set("run", active.run.label);
  if (look.side && beside.size === data.runs.length) said.set("side", ALL);
  else if (look.side) for (const place of beside) said.append("side", data.runs[place].label);
  if (!view.fits) said.set("window", `${view.from.toPrecision(6)}..${view.to.toPrecision(6)}`);
  else if (view.fits === "all") said.set("window", "all");
  if (chosen?.panel.run) said.set("op", opName(chosen.panel.run, chosen.op));
  if (now_s !== null) said.set("now", now_s.toPrecision(6));
  if (look.path) said.set("path", "1");
  for (const name of /** @type {const} */ (["idle", "lanes"])) if (!look[name]) said.set(name, "0");
  return said.toString();
}

// Show what a state says, as far as these runs have it.
/** @param {Viewer} viewer @param {string} text */
async function restoreState(viewer, text) {
  const said = new URLSearchParams(text);
  const { data, find, look, view } = viewer;
  const place = data.runs.findIndex(({ label }) => label === said.get("run"));
  if (place >= 0) viewer.shown = place;
  const side = said.getAll("side");
  look.side = side.length > 0 && data.runs.length > 1;
  const beside = [...data.runs.keys()].filter((one) => side.includes(data.runs[one].label));
  viewer.beside = new Set(beside.length ? beside : data.runs.keys());
  for (const name of /** @type {const} */ (["path", "idle", "lanes"])) {
    look[name] = said.has(name) ? said.get(name) !== "0" : name !== "path";
    find(name).checked = look[name];
  }
  view.fits = said.get("window") === "all" ? "all" : "run";
  await viewer.arrange();
  viewer.active = viewer.panels.find(({ run }) => run?.label === said.get("run")) ?? viewer.active;
  const op = said.get("op");
  if (op) findOp(viewer, op);
  else if (viewer.chosen) viewer.mark(viewer.chosen.panel, -1);
  const [from, to] = (said.get("window") ?? "").split("..").map(Number);
  if (from < to) viewer.zoomTo(from, to);
  const now = said.get("now");
  viewer.now_s = now && Number.isFinite(Number(now)) ? clamp(Number(now), 0, viewer.longest()) : null;
  showStepping(viewer);
  viewer.drawMarks();
}

// Show other data with what was shown before: runs by their labels, the window and the op where they are still there.
/** @param {Viewer} viewer @param {PageData} next */
async function keepShown(viewer, next) {
  const { active, beside, chosen, data, view } = viewer;
  const labels = new Set([...beside].map((place) => data.runs[place].label));
  const all = beside.size === data.runs.length;
  const label = active?.run?.label;
  const op = chosen?.panel.run ? opName(chosen.panel.run, chosen.op) : null;
  viewer.player?.stop();
  viewer.take(next);
  const again = next.runs.findIndex((one) => one.label === label);
  viewer.shown = again < 0 ? next.first : again;
  viewer.beside = new Set([...next.runs.keys()].filter((place) => all || labels.has(next.runs[place].label)));
  if (!viewer.beside.size) viewer.beside = new Set(next.runs.keys());
  if (view.to > Math.max(...next.runs.map((one) => one.makespan_s))) view.fits ||= "run";
  await viewer.arrange();
  const panel = viewer.panels.find(({ run }) => run?.label === label);
  if (panel) viewer.active = panel;
  const place = op && panel?.run ? opNamed(panel.run, op) : null;
  if (panel?.run && place !== null && place >= 0) viewer.mark(panel, panel.run.taskOfOp[place], place);
  else viewer.say("");
}
