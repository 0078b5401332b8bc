// @ts-check
// The live page: the URL is the experiment; settings change it, and the server says what it shows.

const AT_LEAST_MS = 150; // so long an answer is waited for before a newer question ends it
const BETWEEN_DRAWINGS_MS = 120;
const OF_THE_PAGE = /^(config|yaml|token|view\..*)$/; // the others are keys of the configuration
const AT_FIRST = "side=*"; // what the viewer shows where the link says nothing of it

/** @param {string} id @returns {any} */
const the = (id) => document.getElementById(id);

/** @param {string} tag @param {Record<string, unknown>} properties @param {...(string | Node)} inside @returns {any} */
function make(tag, properties, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) Object.assign(made, { [name]: value });
    else made.setAttribute(name, `${value}`);
  }
  made.append(...inside);
  return made;
}

// The experiment.

let params = new URLSearchParams(location.search);
// (marks that need no escape stay as they are, so that a link reads well)
const query = () => `${params}`.replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%2F", "/");

function keepInUrl() {
  history.replaceState(null, "", `?${query()}`);
  for (const link of the("files").children) link.href = `files/${link.dataset.file}?${query()}`;
  const set = [...params].filter(([key]) => !OF_THE_PAGE.test(key));
  the("changes").hidden = !set.length;
  the("changed").replaceChildren(
    ...set.map(([key, value]) => {
      const forget = () => change(key, "");
      return make("li", {}, make("span", {}, `${key} = ${value}`), make("button", { type: "button", onclick: forget, "aria-label": `take back ${key}` }, "×"));
    }),
  );
}

/** Set a key, or take it back where there is no value. @param {string} key @param {string} value */
function change(key, value) {
  for (const one of [...params.keys()]) if (one === key || one.startsWith(`${key}.`)) params.delete(one);
  if (value.trim()) params.append(key, value.trim());
  keepInUrl();
  ask();
}

// Answers: a JSON object a line.

const page = `${Math.random()}`.slice(2);
/** @type {{controller: AbortController, since: number} | null} */
let underWay = null;
let waits = false; // whether what is asked meanwhile has changed

async function ask() {
  the("results").setAttribute("aria-busy", "true");
  if (underWay) {
    waits = true;
    const { controller, since } = underWay;
    setTimeout(() => waits && underWay?.controller === controller && controller.abort(), Math.max(0, since + AT_LEAST_MS - performance.now()));
    return;
  }
  do {
    waits = false;
    const controller = new AbortController();
    underWay = { controller, since: performance.now() };
    try {
      await take(await fetch(`answer?${query()}`, { signal: controller.signal, headers: { "x-page": page } }));
    } catch (error) {
      if (!controller.signal.aborted) say(error instanceof TypeError ? "The server does not answer; is it still running?" : `${error}`);
    }
    underWay = null;
  } while (waits);
  the("results").setAttribute("aria-busy", "false");
}

/** @param {Response} response */
async function take(response) {
  const type = response.headers.get("content-type") ?? "";
  if (!type.includes("ndjson")) throw (await response.text()).trim();
  /** @type {Answer} */
  const answer = { schedules: [], runs: [], drawn: performance.now() };
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (text + decoder.decode(value, { stream: true })).split("\n");
    text = lines.pop() ?? "";
    for (const line of lines) await show(answer, JSON.parse(line));
  }
}

/** Show a part of an answer. @param {Answer} answer @param {any} part */
async function show(answer, part) {
  if (part.error) return say(part.error);
  if (part.controls) {
    if (part.link) {
      params = new URLSearchParams(`${part.link}&${params}`);
      keepInUrl();
    }
    answer.schedules = part.schedules;
    showSettings(part);
  } else if (part.page) {
    answer.runs[part.place] = part.page;
    // (a viewer begins with all runs, since the link may say of each how it is shown)
    if (viewer && performance.now() - answer.drawn > BETWEEN_DRAWINGS_MS) await draw(answer, false);
  } else if (part.table) {
    showTable(part.table);
    await draw(answer, true);
    say("");
  }
}

/** @param {string} words what is wrong; nothing if all is well */
function say(words) {
  the("error").hidden = !words;
  the("error").textContent = words && `${words}${the("table").firstChild ? " — shown is what was asked before" : ""}`;
  the("results").classList.toggle("stale", words !== "");
}

// Charts.

/** @type {ViewerHandle | null} */
let viewer = null;
/** @type {Answer | null} */
let before = null; // whose runs stay until new ones of the same schedules are there

/** @param {Answer} answer @param {boolean} whole */
async function draw(answer, whole) {
  answer.drawn = performance.now();
  const same = before !== null && String(before.schedules.map((one) => one.value)) === String(answer.schedules.map((one) => one.value));
  const runs = answer.schedules.map((_, place) => answer.runs[place] ?? (same && !whole ? before?.runs[place] : undefined)).filter((one) => one !== undefined);
  if (whole) before = answer;
  the("viewer").hidden = !runs.length;
  if (!runs.length) return;
  const data = /** @type {PageData} */ ({
    ...runs[0],
    runs: runs.flatMap((one) => one.runs),
    causes: Object.assign({}, ...runs.map((one) => one.causes)),
    first: Math.max(
      0,
      answer.schedules.filter((_, place) => answer.runs[place]).findIndex((one) => one.own),
    ),
  });
  if (viewer) await viewer.update(data);
  else viewer = await mountViewer(the("viewer"), data, { state: viewInUrl() || AT_FIRST });
  document.body.dataset.ready = "yes";
}

/** What the link says of the viewer, as the viewer says it. */
const viewInUrl = () => `${new URLSearchParams([...params].filter(([key]) => key.startsWith("view.")).map(([key, value]) => [key.slice(5), value]))}`;

let later = 0;
function keepView() {
  clearTimeout(later);
  later = setTimeout(() => {
    const state = viewer?.state() ?? "";
    if (state === viewInUrl()) return;
    for (const key of [...params.keys()]) if (key.startsWith("view.")) params.delete(key);
    for (const [key, value] of new URLSearchParams(state)) params.append(`view.${key}`, value);
    keepInUrl();
  }, 300);
}
for (const event of ["pointerup", "keyup", "wheel", "click", "change"]) the("viewer").addEventListener(event, keepView, { passive: true });

// The table.

/** @param {Table} table */
function showTable(table) {
  const rows = table.rows.map((row, place) => {
    const numbers = table.numbers[place];
    const exact = ["makespan_s", "step_time_s", "bubble_ratio"].filter((key) => typeof numbers[key] === "number").map((key) => `${key} = ${numbers[key]}`);
    const cells = row.map((cell, column) => make(column ? "td" : "th", column ? {} : { scope: "row" }, cell));
    if (row.length < table.headings.length) cells[row.length - 1].colSpan = table.headings.length - row.length + 1;
    return make("tr", { className: table.own[place] ? "chosen" : "", title: exact.join("\n") }, ...cells);
  });
  const head = make("tr", {}, ...table.headings.map((heading) => make("th", { scope: "col" }, heading)));
  const notes = table.notes.map((note) => make("p", { className: "notes" }, note));
  the("table").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)), ...notes);
  clearTimeout(speaks);
  speaks = setTimeout(() => {
    the("said").textContent = table.rows
      .map((row) => `${row[0]}: ${row.length < table.headings.length ? "refused" : `${table.headings[2]} ${row[2]}`}`)
      .join("; ");
  }, 500);
}
let speaks = 0;

// Settings.

/** @type {Map<string, (control: Control) => void>} */
let refresh = new Map();

/** @param {{controls: Control[], schedules: ScheduleEntry[]}} head */
function showSettings({ controls, schedules }) {
  const config = params.get("config") ?? "";
  the("config").value = config;
  showSchedules(schedules);
  if (String([...refresh.keys()]) !== String(controls.map((one) => one.path))) buildControls(controls);
  for (const control of controls) refresh.get(control.path)?.(control);
}

/** @param {ScheduleEntry[]} chosen */
function showSchedules(chosen) {
  const focused = document.activeElement?.id;
  /** @param {ScheduleEntry[]} next @param {ScheduleEntry} [main] */
  const choose = (next, main = next.find((one) => one.own) ?? next[0]) => {
    params.delete("compare");
    params.append("compare", `[${next.map((one) => one.value).join(", ")}]`);
    change("schedule", main.value);
  };
  the("schedules").replaceChildren(
    ...chosen.map((one, place) => {
      const radio = make("input", { type: "radio", name: "main", id: `main-${place}`, checked: one.own, onchange: () => choose(chosen, one) });
      const label = make("label", {}, radio, ` ${one.label} `, make("small", {}, one.own ? "main" : ""));
      const without = () => choose(chosen.filter((other) => other !== one));
      return make("li", {}, label, make("button", { type: "button", disabled: chosen.length < 2, onclick: without, "aria-label": `remove ${one.label}` }, "×"));
    }),
  );
  if (focused?.startsWith("main-")) the(focused)?.focus();
  the("add").onchange = () => {
    const { value } = the("add");
    the("add").value = "";
    if (value) choose([...chosen, { value, label: value, own: false }]);
  };
}

/** @param {Control[]} controls */
function buildControls(controls) {
  refresh = new Map();
  const groups = [...new Set(controls.map((one) => one.group))];
  the("controls").replaceChildren(
    ...groups.map((group) => make("fieldset", {}, make("legend", {}, group), ...controls.filter((one) => one.group === group).map(buildControl))),
  );
}

/** @param {Control} control */
function buildControl(control) {
  const id = `set-${control.path}`;
  const row = make("div", { className: "row", title: `${control.path}: ${control.about}` }, make("label", { htmlFor: id }, control.label));
  if (control.choices.length) {
    const select = make("select", { id, onchange: () => change(control.path, select.value) });
    let offered = ""; // (the browser measures every option that is put in, which takes longer than all else here)
    refresh.set(control.path, ({ choices, value }) => {
      const words = choices.includes(value) ? choices : [value, ...choices];
      if (offered !== String(words)) select.replaceChildren(...words.map((word) => make("option", { value: word }, word || "default")));
      offered = String(words);
      if (select.value !== value) select.value = value;
    });
    row.append(select);
    return row;
  }
  const text = make("input", { id, spellcheck: false, onchange: () => change(control.path, text.value) });
  const slider = make("input", { type: "range", "aria-label": `${control.label} slider` });
  let base = ""; // the text that the middle of a slider of quantities stands for
  slider.oninput = () => {
    text.value = control.whole ? slider.value : scaled(base, 10 ** (slider.value / 100));
    change(control.path, text.value);
  };
  refresh.set(control.path, (now) => {
    const moving = document.activeElement === slider;
    if (document.activeElement !== text) text.value = now.value;
    text.placeholder = now.unit ? `in ${now.unit}` : "";
    slider.disabled = !NUMBER.test(now.value);
    slider.setAttribute("aria-valuetext", now.value);
    if (moving) return;
    if (control.whole) Object.assign(slider, { min: now.least, max: now.most, step: 1, value: now.value });
    else {
      base = now.value;
      Object.assign(slider, { min: -100, max: 100, step: 2, value: 0 });
    }
  });
  row.append(slider, text);
  return row;
}

const NUMBER = /^(\d[\d_.]*(?:e[+-]?\d+)?)(?= *[A-Za-z/]* *$)/i;

/** A quantity times a factor, to three digits and in its unit. @param {string} text @param {number} factor */
const scaled = (text, factor) => text.replace(NUMBER, (number) => `${Number((Number(number.replaceAll("_", "")) * factor).toPrecision(3))}`);

// The page.

function begin() {
  /** @type {{configs: string[], schedules: string[], keys: string[]}} */
  const words = JSON.parse(the("words").textContent);
  /** @param {string} word */
  const option = (word) => make("option", { value: word }, word);
  the("config").append(make("option", { value: "" }, "a file of one's own"), ...words.configs.map(option));
  the("add").append(...words.schedules.map(option));
  the("keys").append(...words.keys.map((word) => make("option", { value: word })));
  the("config").onchange = () => {
    const token = params.get("token");
    params = new URLSearchParams({ ...(token && { token }), config: the("config").value });
    keepInUrl();
    ask();
  };
  the("form").onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (the("key").value) change(the("key").value.trim(), the("value").value);
  };
  the("copy").onclick = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      the("copied").textContent = "copied";
    } catch {
      the("copied").textContent = "copy it from the address bar"; // which browsers leave to the reader off localhost
    }
    setTimeout(() => the("copied").replaceChildren(), 3000);
  };
  the("settings").open = !matchMedia("(max-width: 900px)").matches;
  keepInUrl();
  ask();
}

begin();
