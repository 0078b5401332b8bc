// @ts-check
// What follows from a run's columns: its idle time in pieces, who waits for whom, in which order ops begin, what they are called.

/** @type {(keyof Run["gaps"])[]} what a gap is made of, from its begin on; analysis/gaps.py cuts it backwards from its end */
const OF_A_GAP = ["waiting", "exposed_alltoall", "blocked", "exposed_transfer", "exposed_gather", "host"];

// Idle time of each rank: before its first op, in its gaps, behind its last op.
/** @param {RunHead} run @param {Tasks} tasks @param {Run["gaps"]} gaps @param {number} second @param {string[]} causes @returns {Coloured} */
function idlePieces(run, { task }, gaps, second, causes) {
  /** @type {[begin: number[], end: number[], code: number[]]} */
  const [begin, end, code] = [[], [], []];
  /** @param {number} from @param {number} to @param {number} cause */
  const add = (from, to, cause) => {
    if (to - from <= 2 * second) return;
    begin.push(from);
    end.push(to);
    code.push(cause);
  };
  const [warmUp, gather, reduction, drain] = ["warm_up", "exposed_gather", "exposed_reduction", "drain"].map((cause) => causes.indexOf(cause));
  const parts = OF_A_GAP.map((cause) => /** @type {const} */ ([gaps[cause], causes.indexOf(cause)]));
  const starts = new Int32Array(run.ranks + 1);
  for (let rank = 0; rank < run.ranks; rank += 1) {
    const [first, last] = [task.starts[rank], task.starts[rank + 1]];
    const [began, done] = first < last ? [task.begin[first], task.end[last - 1]] : [0, 0];
    const warm = run.causes.warm_up[rank];
    add(0, warm, warmUp);
    add(warm, began, gather);
    for (let one = first + 1; one < last; one += 1) {
      let ticks = 0;
      for (const [lengths] of parts) ticks += lengths[one];
      let from = task.begin[one] - ticks * second;
      if (!ticks) continue;
      for (const [lengths, cause] of parts) {
        const to = from + lengths[one] * second;
        add(from, to, cause);
        from = to;
      }
    }
    const reduced = done + (run.causes.exposed_reduction?.[rank] ?? 0);
    add(done, reduced, reduction);
    add(reduced, run.makespan_s, drain);
    starts[rank + 1] = begin.length;
  }
  return { begin: Float64Array.from(begin), end: Float64Array.from(end), code: Uint16Array.from(code), starts };
}

// Rows by group, in order.
/** @param {Int32Array} groups @param {number} count @returns {Groups} */
function grouped(groups, count) {
  const starts = startsOf(groups, count);
  const next = starts.slice();
  const rows = new Int32Array(groups.length);
  for (let row = 0; row < groups.length; row += 1) {
    rows[next[groups[row]]] = row;
    next[groups[row]] += 1;
  }
  return { starts, rows };
}

/** @param {Tasks} tasks @param {Transfers} transfers */
function linksOf(tasks, { from, to }) {
  const of = (/** @type {Int32Array} */ ops) =>
    grouped(
      ops.map((op) => tasks.taskOfOp[op]),
      tasks.firstOp.length,
    );
  return { into: of(to), outOf: of(from) };
}

/** @param {Groups} groups @param {number} group */
const rowsOf = ({ starts, rows }, group) => rows.subarray(starts[group], starts[group + 1]);

/** @type {WeakMap<Run, Int32Array>} */
const orders = new WeakMap();
// The tasks as they begin, of those that begin at once the lowest rank first; copies are no steps.
/** @param {Run} run */
function inOrder(run) {
  const beside = new Set(Array.from(run.copies.row, (op) => run.taskOfOp[op]));
  const order = orders.get(run) ?? Int32Array.from(run.firstOp.keys()).filter((task) => !beside.has(task));
  if (!orders.has(run)) order.sort((a, b) => run.task.begin[a] - run.task.begin[b] || a - b);
  orders.set(run, order);
  return order;
}

const OF_WEIGHTS = KINDS.indexOf("UNSHARD"); // and after it: of no micro-batch
/** @param {Run} run @param {number} op */
const opName = (run, op) => `${run.stage[op]}${KINDS[run.kind[op]]}${run.kind[op] < OF_WEIGHTS ? numberOf(run, op) : ""}`;
/** @param {Run} run @param {number} task */
const taskName = (run, task) => {
  const first = run.firstOp[task];
  return run.paired[first] ? `(${opName(run, first)};${opName(run, first + 1)})OVERLAP_F_${KINDS[run.kind[first + 1]]}` : opName(run, first);
};

// The op of a name as opName writes it, small letters too; -1 for none, and null where that is no name.
/** @param {Run} run @param {string} text */
function opNamed(run, text) {
  const match = text.trim().match(/^(\d+)([a-z_]+)(?:(\d+)(?:\.(\d+))?)?$/i);
  const kind = match ? KINDS.indexOf(match[2].toUpperCase()) : -1;
  if (!match || kind < 0 || kind < OF_WEIGHTS !== (match[3] !== undefined)) return null;
  const unit = Number(match[3]) * run.slices + Number(match[4] ?? 0);
  return run.kind.findIndex((one, op) => one === kind && run.stage[op] === Number(match[1]) && (kind >= OF_WEIGHTS || run.micro_batch[op] === unit));
}
