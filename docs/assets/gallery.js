// @ts-check
// The gallery: a schedule, another one beside it, a size, and what of them is shown, all of it in the address.

/** @type {Map<string, (runs: Record<string, PageData>) => void>} who waits for a schedule's runs */
const awaited = new Map();
/** @type {Map<string, Promise<Record<string, PageData>>>} */
const runsOfSchedule = new Map();

// What the script of a schedule calls.
/** @param {string} name @param {Record<string, PageData>} runs */
function takeRuns(name, runs) {
  awaited.get(name)?.(runs);
}

// A schedule's runs by size; a script brings them, since a page in a folder may fetch no file.
/** @param {string} name */
function runsOf(name) {
  const known = runsOfSchedule.get(name);
  if (known) return known;
  /** @type {Promise<Record<string, PageData>>} */
  const runs = new Promise((take, refuse) => {
    awaited.set(name, take);
    document.head.append(Object.assign(document.createElement("script"), { src: `${name}.js`, onerror: () => refuse(new Error(`${name}.js is missing`)) }));
  });
  runsOfSchedule.set(name, runs);
  return runs;
}

const PICKED = /** @type {const} */ (["schedule", "beside", "size"]);
const CALM_MS = 200; // what moves quickly comes into the address this often

/** @param {Record<typeof PICKED[number], string>} first */
async function openGallery(first) {
  const asked = new URLSearchParams(location.hash.slice(1));
  /** @type {(name: string) => any} */
  const byId = (name) => document.getElementById(name);
  for (const name of PICKED) {
    byId(name).value = asked.get(name) ?? first[name];
    if (byId(name).selectedIndex < 0) byId(name).value = first[name];
    byId(name).onchange = () => change(name);
  }

  // The runs that were picked, as one page.
  async function picked() {
    const names = [...new Set([byId("schedule").value, byId("beside").value])].filter(Boolean);
    const pages = (await Promise.all(names.map(runsOf))).map((runs) => runs[byId("size").value]);
    return {
      ...pages[0],
      runs: pages.flatMap(({ runs }) => runs),
      causes: Object.assign({}, ...pages.map(({ causes }) => causes)),
    };
  }

  /** @type {ViewerHandle | null} */
  let viewer = null;
  let timer = 0;
  function keep() {
    timer ||= window.setTimeout(() => {
      timer = 0;
      if (!viewer) return;
      const kept = new URLSearchParams(PICKED.map((name) => [name, byId(name).value]));
      history.replaceState(null, "", `#${kept}&${viewer.state()}`);
    }, CALM_MS);
  }

  // Another schedule is looked at; one that comes beside it is shown beside it.
  /** @param {string} name */
  async function change(name) {
    if (!viewer) return;
    await viewer.update(await picked());
    const state = new URLSearchParams(viewer.state());
    if (name !== "size") state.set("run", byId("schedule").value);
    if (name === "beside") state.set("side", "*");
    await viewer.restore(state.toString());
    keep();
  }

  for (const name of PICKED) asked.delete(name);
  const state = asked.size ? asked.toString() : "side=*";
  viewer = await mountViewer(byId("viewer"), await picked(), { state, onselect: keep });
  document.body.dataset.ready = "yes";
}
