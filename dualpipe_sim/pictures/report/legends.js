// @ts-check
// What colours mean.

/** @param {Find} find @param {Chart} chart @param {Run} run @param {PageData} data @param {boolean} lanes */
function showLegends(find, chart, run, data, lanes) {
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
  if (lanes) entries.push(swatch([chart.colour("hidden")], `${word} behind compute`), swatch([chart.colour("exposed")], `exposed ${word}`));
  find("gantt-legend").replaceChildren(...entries);
  const uses = run.kinds.length > 1 ? run.kinds.map((kind, place) => swatch([memoryColour(chart, run, place)], kind)) : [];
  const limit = run.limit === null ? [] : [swatch([chart.colour("limit")], `limit, ${formatOccupancy(run, run.limit)}`)];
  find("memory-legend").replaceChildren(...uses, ...limit);
  find("causes-legend").replaceChildren(
    ...Object.keys(run.causes)
      .filter((cause) => run.causes[cause].some((seconds) => seconds > 0))
      .map((cause) => swatch([data.causes[cause].fill], data.causes[cause].words)),
  );
}
