// @ts-check
// Stepping through a run: from op to op as they begin, or played as time goes by.

const PLAY_MS = 20_000; // what is shown of a run takes this long
const STILL_MS = 900; // between two ops for who wants no motion

// The task that begins next, or before; where none is looked at, the next or last one of a moment.
/** @param {Run} run @param {number} task @param {number | null} now @param {number} sign */
function stepFrom(run, task, now, sign) {
  const order = inOrder(run);
  const at = order.indexOf(task);
  const begun = now === null ? 0 : order.filter((one) => run.task.begin[one] <= now).length;
  const to = at >= 0 ? at + sign : begun - (sign > 0 ? 0 : 1);
  return order[clamp(to, 0, order.length - 1)];
}

// The op beside another one: before or behind it on its rank, or on the next rank at the same time.
/** @param {Run} run @param {number} task @param {string} key */
function taskBeside(run, task, key) {
  const { starts, begin, end } = run.task;
  const rank = run.rank[run.firstOp[task]];
  if (key === "ArrowLeft") return Math.max(task - 1, starts[rank]);
  if (key === "ArrowRight") return Math.min(task + 1, starts[rank + 1] - 1);
  const to = clamp(rank + (key === "ArrowUp" ? -1 : 1), 0, run.ranks - 1);
  const middle = (begin[task] + end[task]) / 2;
  return to === rank ? task : Math.min(firstAfter(end, middle, starts[to], starts[to + 1]), starts[to + 1] - 1);
}

// Plays until told to stop; reduced motion is steps.
class Player {
  /** @param {{advance: (share: number) => boolean, step: () => boolean, ended: () => void}} plays */
  constructor(plays) {
    this.plays = plays;
    this.frame = 0;
    this.timer = 0;
  }

  get playing() {
    return this.frame !== 0 || this.timer !== 0;
  }

  start() {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.timer = window.setInterval(() => this.plays.step() || this.stop(), STILL_MS);
      return;
    }
    let before = performance.now();
    /** @param {number} now */
    const go = (now) => {
      const on = this.plays.advance(Math.max(0, now - before) / PLAY_MS);
      before = now;
      if (on) this.frame = requestAnimationFrame(go);
      else this.stop();
    };
    this.frame = requestAnimationFrame(go);
  }

  stop() {
    cancelAnimationFrame(this.frame);
    clearInterval(this.timer);
    this.frame = this.timer = 0;
    this.plays.ended();
  }
}
