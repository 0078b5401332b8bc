// Runs as the page holds them: columns unpacked once, times in seconds.

const TICKS = 2 ** 30;
const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, int32: Int32Array, float32: Float32Array };

async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// Where each value of an ascending column begins: of rank r from starts[r] to starts[r + 1].
function startsOf(column, count) {
  const starts = new Int32Array(count + 1);
  for (const value of column) starts[value + 1] += 1;
  for (let one = 0; one < count; one += 1) starts[one + 1] += starts[one];
  return starts;
}

function summed(differences, unit = 1) {
  const sums = unit === 1 ? new Int32Array(differences.length) : new Float64Array(differences.length);
  let sum = 0;
  for (let place = 0; place < sums.length; place += 1) {
    sum += differences[place];
    sums[place] = sum * unit;
  }
  return sums;
}

function boxesOf(begin, lengths, unit, starts) {
  const end = new Float64Array(begin.length);
  for (let place = 0; place < end.length; place += 1) end[place] = begin[place] + lengths[place] * unit;
  return { begin, end, starts };
}

async function unpack(run) {
  const bytes = await inflate(run.bytes);
  const column = (name) => {
    const [type, offset, length] = run.columns[name];
    return new ARRAYS[type](bytes, offset, length);
  };
  const second = run.makespan_s / TICKS;
  const timed = (name, starts) => boxesOf(summed(column(`${name}_start`), second), column(`${name}_length`), second, starts);
  const unpacked = {
    ...run,
    bytes: null,
    rank: column("rank"),
    kind: column("kind"),
    paired: column("paired"),
    stage: summed(column("stage")),
    micro_batch: summed(column("micro_batch")),
    waitsFor: column("waits_for"),
    underWay: column("under_way"),
    second,
  };
  unpacked.ops = timed("op", startsOf(unpacked.rank, run.ranks));
  findTasks(unpacked);
  unpacked.palette = run.fills.flat();
  unpacked.ops.code = Uint16Array.from(unpacked.kind, (kind, op) => codeOf(unpacked, kind, unpacked.stage[op]));
  unpacked.transfers = { ...timed("transfer"), from: column("transfer_from"), to: column("transfer_to") };
  unpacked.held = heldOf(unpacked, column, second);
  if (run.looks.length) addPhases(unpacked, column, timed);
  return unpacked;
}

// The place of a kind's fill on a stage in the run's palette.
const codeOf = (run, kind, stage) => kind * run.fills[0].length + run.shade_of_stage[stage];

// A task is an op, or the two ops of a pair, which stand in neighbouring rows.
function findTasks(run) {
  const { kind, paired, ops } = run;
  run.taskOfOp = new Int32Array(kind.length);
  run.firstOp = [];
  for (let op = 0; op < kind.length; op += 1) {
    if (!paired[op] || kind[op] === 0) run.firstOp.push(op);
    run.taskOfOp[op] = run.firstOp.length - 1;
  }
  const last = (task) => (run.firstOp[task + 1] ?? kind.length) - 1;
  run.task = {
    begin: Float64Array.from(run.firstOp, (op) => ops.begin[op]),
    end: Float64Array.from(run.firstOp, (op, task) => ops.end[last(task)]),
    starts: Int32Array.from(ops.starts, (op) => (op < kind.length ? run.taskOfOp[op] : run.firstOp.length)),
  };
  const pairs = run.firstOp.map((op, task) => task).filter((task) => paired[run.firstOp[task]]);
  run.pairs = {
    begin: Float64Array.from(pairs, (task) => run.task.begin[task]),
    end: Float64Array.from(pairs, (task) => run.task.end[task]),
    starts: startsOf(pairs.map((task) => run.rank[run.firstOp[task]]), run.ranks),
  };
}

function heldOf(run, column, second) {
  const lengths = column("moments_of_rank");
  const starts = new Int32Array(lengths.length + 1);
  lengths.forEach((length, rank) => (starts[rank + 1] = starts[rank] + length));
  const at = summed(column("moment"), second);
  const all = column("held");
  const amounts = run.kinds.map((_, kind) => all.subarray(kind * at.length, (kind + 1) * at.length));
  const total = Float64Array.from(at, (_, place) => amounts.reduce((sum, amount) => sum + amount[place], 0));
  const peaks = Array.from(lengths, (_, rank) => total.subarray(starts[rank], starts[rank + 1]).reduce((a, b) => Math.max(a, b), 0));
  return { at, starts, amounts, total, peaks };
}

// Phases lie task by task; each lane of a rank gets its own rows, which keep the places of theirs among all.
function addPhases(run, column, timed) {
  const look = column("look");
  const all = timed("phase");
  const task = new Int32Array(look.length);
  let place = 0;
  column("phases_of_task").forEach((count, one) => {
    task.fill(one, place, place + count);
    place += count;
  });
  run.phase = { ...all, look, task };
  run.lanes = [0, 1].map((lane) => {
    const rows = Int32Array.from(look.keys()).filter((row) => run.looks[look[row]][3] === lane);
    return {
      row: rows,
      begin: Float64Array.from(rows, (row) => all.begin[row]),
      end: Float64Array.from(rows, (row) => all.end[row]),
      starts: startsOf(Array.from(rows, (row) => run.rank[run.firstOp[task[row]]]), run.ranks),
    };
  });
  const [compute, alltoall] = run.lanes;
  compute.code = Uint16Array.from(compute.row, (row) => codeOf(run, run.looks[look[row]][1], run.stage[opOfPhase(run, row)]));
  alltoall.code = new Uint16Array(alltoall.row.length);
  run.exposed = timed("exposed", startsOf(column("exposed_rank"), run.ranks));
  run.exposed.code = new Uint16Array(run.exposed.begin.length);
}

// The op that a phase is part of: its half of the task.
function opOfPhase(run, row) {
  return run.firstOp[run.phase.task[row]] + run.looks[run.phase.look[row]][4];
}

// The first of some ascending ends, from..to, that is after a time.
function firstAfter(ends, time, from, to) {
  let [low, high] = [from, to];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] > time) high = middle;
    else low = middle + 1;
  }
  return low;
}
