// @ts-check
// Runs as the page holds them: columns unpacked once, times in seconds.

const TICKS = 2 ** 30;
const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, int32: Int32Array, float32: Float32Array };

/** @param {string} text */
async function inflate(text) {
  const letters = atob(text);
  const packed = new Uint8Array(letters.length);
  for (let one = 0; one < packed.length; one += 1) packed[one] = letters.charCodeAt(one);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// Where each value of an ascending column begins: of rank r from starts[r] to starts[r + 1].
/** @param {Iterable<number>} column @param {number} count */
function startsOf(column, count) {
  const starts = new Int32Array(count + 1);
  for (const value of column) starts[value + 1] += 1;
  for (let one = 0; one < count; one += 1) starts[one + 1] += starts[one];
  return starts;
}

// What a micro-batch, or a slice of one, is called: 3, or 3.1.
/** @param {Run} run @param {number} op */
function numberOf(run, op) {
  const unit = run.micro_batch[op];
  return run.slices > 1 ? `${Math.floor(unit / run.slices)}.${unit % run.slices}` : `${unit}`;
}

/** @param {Int32Array} differences */
function summed(differences, unit = 1) {
  const sums = new Float64Array(differences.length);
  let sum = 0;
  for (let place = 0; place < sums.length; place += 1) {
    sum += differences[place];
    sums[place] = sum * unit;
  }
  return sums;
}

/** @param {RunData} data @param {PageData} page @param {Units} units */
async function unpack(data, page, units) {
  const bytes = await inflate(data.bytes);
  /** @type {ColumnOf} */
  const column = (name) => {
    const [type, offset, length] = data.columns[name];
    return /** @type {any} which array a name has only data.py knows */ (new ARRAYS[type](bytes, offset, length));
  };
  const second = data.makespan_s / TICKS;
  /** @type {SpansOf} */
  const spans = (name) => {
    const begin = summed(column(`${name}_start`), second);
    const lengths = column(`${name}_length`);
    return { begin, end: begin.map((time, place) => time + lengths[place] * second) };
  };
  const [rank, kind, stage] = [column("rank"), column("kind"), summed(column("stage"))];
  const ops = { ...spans("op"), starts: startsOf(rank, data.ranks), code: Uint16Array.from(kind, (one, op) => codeOf(data, one, stage[op])) };
  const paired = column("paired");
  const tasks = tasksOf(rank, kind, paired, ops);
  const gaps = {
    waiting: column("waiting"),
    exposed_alltoall: column("exposed_alltoall"),
    blocked: column("blocked"),
    exposed_transfer: column("exposed_transfer"),
    exposed_gather: column("exposed_gather"),
    host: column("host"),
  };
  const transfers = { ...spans("transfer"), from: column("transfer_from"), to: column("transfer_to") };
  const pathEnd = summed(column("path_length"), second);
  /** @type {Run} */
  const run = {
    ...data,
    ...tasks,
    units,
    rank,
    kind,
    paired,
    stage,
    micro_batch: summed(column("micro_batch")),
    ops,
    palette: data.fills.flat(),
    waitsFor: column("waits_for"),
    gaps,
    transfers,
    links: linksOf(tasks, transfers),
    idle: idlePieces(data, tasks, gaps, second, Object.keys(page.causes)),
    path_of: {
      begin: pathEnd.map((_, place) => pathEnd[place - 1] ?? 0),
      end: pathEnd,
      rank: column("path_rank"),
      to: column("path_to_rank"),
      part: column("path_part"),
    },
    copies: copiesOf(data, column, spans, rank, ops),
    occupancy: occupancyOf(data, column, second),
    memoryFills: data.kinds.map((one) => page.memory_fills[one] ?? "#888888"),
    phases: null,
    second,
  };
  if (run.looks.length) run.phases = phasesOf(run, column, spans);
  return run;
}

// The place of a kind's fill on a stage in the run's palette.
/** @param {RunHead} run @param {number} kind @param {number} stage */
const codeOf = (run, kind, stage) => kind * run.fills[0].length + run.shade_of_stage[stage];

// A task is an op, or the two ops of a pair, which stand in neighbouring rows.
/** @param {Uint16Array} rank @param {Uint8Array} kind @param {Uint8Array} paired @param {Boxes} ops @returns {Tasks} */
function tasksOf(rank, kind, paired, ops) {
  const taskOfOp = new Int32Array(kind.length);
  /** @type {number[]} */
  const firstOp = [];
  for (let op = 0; op < kind.length; op += 1) {
    // The second of a pair comes right behind its first, which may be a forward as well.
    const first = firstOp[firstOp.length - 1];
    if (!paired[op] || first !== op - 1 || !paired[first]) firstOp.push(op);
    taskOfOp[op] = firstOp.length - 1;
  }
  /** @param {number} task */
  const last = (task) => (firstOp[task + 1] ?? kind.length) - 1;
  const task = {
    begin: Float64Array.from(firstOp, (op) => ops.begin[op]),
    end: Float64Array.from(firstOp, (_, one) => ops.end[last(one)]),
    starts: ops.starts.map((op) => (op < kind.length ? taskOfOp[op] : firstOp.length)),
  };
  const pairs = [...firstOp.keys()].filter((one) => paired[firstOp[one]]);
  return {
    taskOfOp,
    firstOp,
    task,
    pairs: {
      begin: Float64Array.from(pairs, (one) => task.begin[one]),
      end: Float64Array.from(pairs, (one) => task.end[one]),
      starts: startsOf(
        pairs.map((one) => rank[firstOp[one]]),
        ops.starts.length - 1,
      ),
    },
  };
}

/** @param {RunHead} run @param {ColumnOf} column @param {SpansOf} spans @param {Uint16Array} rank @param {Coloured} ops @returns {Lane} */
function copiesOf(run, column, spans, rank, ops) {
  const row = Int32Array.from(summed(column("copy")));
  return {
    ...spans("copy"),
    row,
    starts: startsOf(
      row.map((op) => rank[op]),
      run.ranks,
    ),
    code: Uint16Array.from(row, (op) => ops.code[op]),
  };
}

/** @param {RunHead} run @param {ColumnOf} column @param {number} second @returns {Occupancy} */
function occupancyOf(run, column, second) {
  const lengths = column("moments_of_rank");
  const starts = new Int32Array(lengths.length + 1);
  lengths.forEach((length, rank) => {
    starts[rank + 1] = starts[rank] + length;
  });
  const at = summed(column("moment"), second);
  const all = column("occupancy");
  const amounts = run.kinds.map((_, kind) => all.subarray(kind * at.length, (kind + 1) * at.length));
  const total = at.map((_, place) => amounts.reduce((sum, amount) => sum + amount[place], 0));
  const peaks = Array.from(lengths, (_, rank) => total.subarray(starts[rank], starts[rank + 1]).reduce((a, b) => Math.max(a, b), 0));
  return { at, starts, amounts, total, peaks };
}

// Phases lie task by task; each lane of a rank gets its own rows, which keep the places of theirs among all.
/** @param {Run} run @param {ColumnOf} column @param {SpansOf} spans @returns {Phases} */
function phasesOf(run, column, spans) {
  const look = column("look");
  const all = spans("phase");
  const task = new Int32Array(look.length);
  let place = 0;
  column("phases_of_task").forEach((count, one) => {
    task.fill(one, place, place + count);
    place += count;
  });
  /** @param {number} number @param {(row: number) => number} code @returns {Lane} */
  const lane = (number, code) => {
    // (plain loops: iterators and `from` take ten times as long, and there are some ten thousands)
    const here = run.looks.map((one) => one[3] === number);
    const rows = new Int32Array(look.length);
    let count = 0;
    for (let one = 0; one < look.length; one += 1) if (here[look[one]]) rows[count++] = one;
    const row = rows.slice(0, count);
    const [begin, end] = [new Float64Array(count), new Float64Array(count)];
    const [ranks, codes] = [new Uint16Array(count), new Uint16Array(count)];
    for (let one = 0; one < count; one += 1) {
      begin[one] = all.begin[row[one]];
      end[one] = all.end[row[one]];
      ranks[one] = run.rank[run.firstOp[task[row[one]]]];
      codes[one] = code(row[one]);
    }
    return { row, begin, end, starts: startsOf(ranks, run.ranks), code: codes };
  };
  const exposed = spans("exposed");
  return {
    look,
    task,
    compute: lane(0, (row) => codeOf(run, run.looks[look[row]][1], run.stage[opOfPhase(run, { look, task }, row)])),
    alltoall: lane(1, () => 0),
    exposed: { ...exposed, starts: startsOf(column("exposed_rank"), run.ranks), code: new Uint16Array(exposed.begin.length) },
  };
}

// The op that a phase is part of: its half of the task.
/** @param {Run} run @param {{look: Uint16Array, task: Int32Array}} phases @param {number} row */
function opOfPhase(run, phases, row) {
  return run.firstOp[phases.task[row]] + run.looks[phases.look[row]][4];
}

// The first of some ascending ends, from..to, that is after a time.
/** @param {Float64Array} ends @param {number} time @param {number} from @param {number} to */
function firstAfter(ends, time, from, to) {
  let [low, high] = [from, to];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] > time) high = middle;
    else low = middle + 1;
  }
  return low;
}
