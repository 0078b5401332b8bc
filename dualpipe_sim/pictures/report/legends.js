// @ts-check
// What colours mean.

/** @param {string[]} colours @param {string} words @param {string} [look] */
function swatch(colours, words, look = "") {
  const sample = element("i", { className: look });
  const stops = colours.map((one, place) => `${one} ${(100 * place) / colours.length}% ${(100 * (place + 1)) / colours.length}%`);
  sample.style.background = colours.length > 1 ? `linear-gradient(90deg, ${stops.join(", ")})` : colours[0];
  const entry = element("span", { className: "swatch" }, sample, words);
  entry.dataset.colours = colours.join(" ");
  return entry;
}

/** @param {Find} find @param {Chart} chart @param {Run[]} runs @param {Wanted} look @param {PageData["causes"]} causes */
function showLegends(find, chart, runs, look, causes) {
  const [first] = runs;
  const lanes = look.lanes && !look.side && first.phases !== null;
  /** @type {Map<number, Run>} kinds, each with a run that has it */
  const kinds = new Map();
  for (const run of runs) {
    for (const kind of new Set(run.kind)) kinds.set(kind, run);
    if (lanes) for (const [, kind] of run.looks) kinds.set(kind, run);
  }
  const entries = [...kinds].sort(([a], [b]) => a - b).map(([kind, run]) => swatch(run.fills[kind], run.words[kind]));
  if (runs.some((run) => run.pairs.begin.length)) {
    const [forward, backward] = first.fills;
    entries.push(swatch([forward[0], backward[backward.length - 1]], "overlapped pair", "framed"));
  }
  const word = first.collectives;
  if (lanes) entries.push(swatch([chart.colour("hidden")], `${word} behind compute`), swatch([chart.colour("exposed")], `exposed ${word}`));
  const shown = Object.keys(causes).filter((cause) => runs.some((run) => run.causes[cause]?.some((seconds) => seconds > 0)));
  if (look.idle) entries.push(...shown.map((cause) => swatch([idleColour(chart, causes, cause)], `idle: ${causes[cause].words}`)));
  find("gantt-legend").replaceChildren(...entries);
  const uses = first.kinds.length > 1 ? first.kinds.map((kind, place) => swatch([memoryColour(chart, first, place)], kind)) : [];
  const limit = first.limit === null ? [] : [swatch([chart.colour("limit")], `limit, ${formatOccupancy(first, first.limit)}`)];
  find("memory-legend").replaceChildren(...uses, ...limit);
  find("causes-legend").replaceChildren(...shown.map((cause) => swatch([causes[cause].fill], causes[cause].words)));
}
