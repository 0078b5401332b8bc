// @ts-check
// The viewer in a notebook: what is looked at goes to the model that Python shares, and what Python sets comes back.

const LOOKED_AT = /** @type {const} */ (["run", "op", "window"]);
const QUIET_MS = 100; // what moves quickly is told to Python this often

/** @param {WidgetContext} context */
async function render({ model, el }) {
  /** @type {Partial<Shared>} what the viewer shows */
  let told = {};
  let timer = 0;
  const shared = () => new URLSearchParams({ run: model.get("run"), op: model.get("op"), window: model.get("window").join("..") });
  /** @param {keyof Shared} name */
  const isTold = (name) => JSON.stringify(model.get(name)) === JSON.stringify(told[name]);
  const tell = () => {
    timer = 0;
    const news = LOOKED_AT.filter((name) => !isTold(name));
    for (const name of news) model.set(name, told[name]);
    if (news.length) model.save_changes();
  };
  const handle = await mountViewer(el, model.get("data"), {
    state: shared().toString(),
    onselect: ({ run, op, from_s, to_s }) => {
      told = { run, op: op?.name ?? "", window: [from_s, to_s] };
      timer ||= window.setTimeout(tell, QUIET_MS);
    },
  });
  // What Python set lays over what else is shown: layout, lanes, the moment that one has stepped to.
  /** @param {keyof Shared} name */
  const take = (name) => {
    if (isTold(name)) return;
    const state = new URLSearchParams(handle.state());
    const value = shared().get(name) ?? "";
    if (value) state.set(name, value);
    else state.delete(name);
    if (name === "run") state.delete("op");
    handle.restore(state.toString());
  };
  const heard = LOOKED_AT.map((name) => /** @type {const} */ ([`change:${name}`, () => take(name)]));
  for (const [event, act] of heard) model.on(event, act);
  return () => {
    clearTimeout(timer);
    for (const [event, act] of heard) model.off(event, act);
    handle.destroy();
  };
}
