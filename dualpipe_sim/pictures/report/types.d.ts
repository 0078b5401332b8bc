// What the viewer's scripts share, for the type checker alone: in no page. Times are in seconds.
// As for rows and bytes: report/data.py says what it writes, decode.js what it makes of it.

/** The columns of a run; those of phases and of exposed all-to-all only where the run has layers. */
interface Columns {
  rank: Uint16Array;
  kind: Uint8Array;
  paired: Uint8Array;
  stage: Int32Array;
  micro_batch: Int32Array;
  op_start: Int32Array;
  op_length: Int32Array;
  waits_for: Int32Array;
  waiting: Int32Array;
  exposed_alltoall: Int32Array;
  blocked: Int32Array;
  exposed_transfer: Int32Array;
  exposed_gather: Int32Array;
  host: Int32Array;
  path_length: Int32Array;
  path_rank: Uint16Array;
  path_to_rank: Uint16Array;
  path_part: Uint8Array;
  copy: Int32Array;
  copy_start: Int32Array;
  copy_length: Int32Array;
  transfer_from: Int32Array;
  transfer_to: Int32Array;
  transfer_start: Int32Array;
  transfer_length: Int32Array;
  moments_of_rank: Int32Array;
  moment: Int32Array;
  occupancy: Float32Array;
  phases_of_task: Uint16Array;
  look: Uint16Array;
  phase_start: Int32Array;
  phase_length: Int32Array;
  exposed_rank: Uint16Array;
  exposed_start: Int32Array;
  exposed_length: Int32Array;
}
type ArrayName = "uint8" | "uint16" | "int32" | "float32";
type ColumnOf = <Name extends keyof Columns>(name: Name) => Columns[Name];
type SpansOf = (name: "op" | "copy" | "transfer" | "phase" | "exposed") => Spans;

/** What distinguishes phases for a reader. */
type Look = [name: string, kind: number, layer: number, lane: number, half: number];

/** What both a run as it is written and an unpacked one say. */
interface RunHead {
  label: string;
  makespan_s: number;
  unitless: boolean;
  ranks: number;
  micro_batches: number;
  /** Of each micro-batch; `micro_batch` counts slices of all. */
  slices: number;
  bubble_ratio: number;
  pipe_of_stage: number[];
  shade_of_stage: number[];
  /** A colour by kind of op and shade. */
  fills: string[][];
  /** What each kind of op is called. */
  words: string[];
  /** Idle time by cause and rank. */
  causes: Record<string, number[]>;
  /** Seconds of the critical path by what they are spent on. */
  path: Record<string, number>;
  collectives: string;
  looks: Look[];
  /** What memory is used for. */
  kinds: string[];
  in_bytes: boolean;
  limit: number | null;
}

/** A run as report/data.py writes it. */
interface RunData extends RunHead {
  columns: Record<keyof Columns, [type: ArrayName, offset: number, length: number]>;
  bytes: string;
}

/** All that report/page.py writes. */
interface PageData {
  runs: RunData[];
  first: number;
  causes: Record<string, { words: string; fill: string }>;
  /** What a critical path may be spent on, in words. */
  parts: Record<string, string>;
  memory_fills: Record<string, string>;
}

interface Spans {
  begin: Float64Array;
  end: Float64Array;
}
/** Spans rank after rank, ascending: those of rank r from starts[r] to starts[r + 1]. */
interface Boxes extends Spans {
  starts: Int32Array;
}
/** Boxes with the places of their colours in a palette. */
interface Coloured extends Boxes {
  code: Uint16Array;
}
/** A lane's boxes with their rows among all phases, or among all ops. */
interface Lane extends Coloured {
  row: Int32Array;
}

interface Transfers extends Spans {
  from: Int32Array;
  to: Int32Array;
}
/** Rows in groups: those of group g are rows[starts[g]] to rows[starts[g + 1] - 1]. */
interface Groups {
  starts: Int32Array;
  rows: Int32Array;
}
interface Tasks {
  taskOfOp: Int32Array;
  firstOp: number[];
  task: Boxes;
  pairs: Boxes;
}
interface Phases {
  look: Uint16Array;
  task: Int32Array;
  compute: Lane;
  alltoall: Lane;
  exposed: Coloured;
}
/** What ranks hold from each moment on, by kind and in total. */
interface Occupancy {
  at: Float64Array;
  starts: Int32Array;
  amounts: Float32Array[];
  total: Float64Array;
  peaks: number[];
}

/** A run as the page holds it. */
interface Run extends RunHead, Tasks {
  units: Units;
  rank: Uint16Array;
  kind: Uint8Array;
  paired: Uint8Array;
  stage: Float64Array;
  micro_batch: Float64Array;
  ops: Coloured;
  palette: string[];
  /** By task: the op it waited for, -1 for none, and how many ticks of the gap before it each cause explains. */
  waitsFor: Int32Array;
  gaps: Record<"waiting" | "exposed_alltoall" | "blocked" | "exposed_transfer" | "exposed_gather" | "host", Int32Array>;
  /** Copies to the host and back, and what is done about weights, which run beside what their rank computes. */
  copies: Lane;
  transfers: Transfers;
  /** Transfers by the task that makes, and that needs, their tensor. */
  links: { into: Groups; outOf: Groups };
  /** Idle time of each rank, with the place of its cause among the page's. */
  idle: Coloured;
  /** The critical path's stretches, one behind the other. */
  path_of: Spans & { rank: Uint16Array; to: Uint16Array; part: Uint8Array };
  occupancy: Occupancy;
  memoryFills: string[];
  /** Null where no layers are known. */
  phases: Phases | null;
  /** A tick in seconds. */
  second: number;
}

/** What a band of each rank's row shows: its boxes, how they look, its top and height as shares of the row. */
interface BandOf<Name, Shown> {
  name: Name;
  boxes: Shown;
  palette: string[];
  place: [top: number, height: number];
  gap?: boolean;
  label?: (place: number) => string;
}
type LaneBand = BandOf<"compute" | "all-to-all", Lane>;
type Band = BandOf<"ops" | "idle" | "exposed" | "copies", Coloured> | LaneBand;
/** A band of one rank, in pixels. */
type PlacedBand = Band & { row: number; y: number; height: number };

/** The part of the time axis that is shown, and how long all of it is. */
interface View {
  from: number;
  to: number;
  whole: number;
  /** What is shown whole: this run, the longest of all, or nothing once zoomed. */
  fits: "run" | "all" | "";
}
/** What a chart that is wheeled, dragged or pointed at asks of the page. */
interface Moves {
  view: View;
  zoom: (factor: number, around?: number) => void;
  pan: (share: number) => void;
  fitAgain: () => void;
  hideTip: () => void;
  tip: (event: PointerEvent) => unknown;
  click?: () => void;
  /** Do what a key stands for, and say whether it stands for anything. */
  key?: (key: string) => boolean;
}
/** What a reader chose to see: runs side by side or one; lanes of phases; idle time coloured; the critical path. */
interface Wanted {
  side: boolean;
  lanes: boolean;
  idle: boolean;
  path: boolean;
}
/** What lies over a chart: a task that is looked at (-1 for none), and the moment that one has stepped to. */
interface Marks {
  task: number;
  now_s: number | null;
}
/** A tensor under way from a rank to another, and when the op that needs it begins. */
interface Link {
  begin: number;
  from: number;
  end: number;
  to: number;
  until: number;
}
/** An op of a run that is looked at, and the task that it is of. */
interface Chosen {
  panel: Panel;
  task: number;
  op: number;
}
/** A row of bars and of the table: idle seconds by cause, and the most that is held. */
interface IdleRow {
  name: string;
  seconds: Record<string, number>;
  peak: string;
  makespan_s: number;
  units: Units;
}
/** Names and sizes of units, the largest first. */
type Units = [name: string, size: number][];
/** A line of what is said at the pointer: a word, and what is said of it. */
type Line = [word: string, text: string];

/** An op as a viewer tells it. */
interface ShownOp {
  name: string;
  rank: number;
  begin_s: number;
  end_s: number;
}
/** What a viewer tells whoever mounted it: the run that is looked at, which part of it is shown, and which op was chosen. */
interface Shown {
  run: string;
  from_s: number;
  to_s: number;
  op: ShownOp | null;
}
interface MountOptions {
  /** Called whenever another run, another part of it or another op is looked at. */
  onselect?: (shown: Shown) => void;
  /** What to show first, as `state()` said it. */
  state?: string;
}
interface ViewerHandle {
  /** Show other data; the run with the same label and the zoom stay where they can. */
  update(data: PageData): Promise<void>;
  /** What is shown, as a short text for a URL. */
  state(): string;
  /** Show what `state()` said before, or said of like data. */
  restore(state: string): Promise<void>;
  /** Show and mark an op by its name (no name: mark none), and say whether there is such an op. */
  select(text: string): boolean;
  /** Leave the page as it was. */
  destroy(): void;
}

/** What Python shares with a widget: pictures/widget.py says what each means. */
interface Shared {
  data: PageData;
  run: string;
  op: string;
  window: number[];
}
/** What anywidget gives a widget: those values, and the element to be in. */
interface WidgetContext {
  model: {
    get<Name extends keyof Shared>(name: Name): Shared[Name];
    set(name: string, value: unknown): void;
    save_changes(): void;
    on(event: string, act: () => void): void;
    off(event: string, act: () => void): void;
  };
  el: HTMLElement;
}

/** The elements of a viewer by class, as viewer.js makes them. */
interface ViewerElements {
  runs: HTMLElement;
  layout: HTMLElement;
  one: HTMLButtonElement;
  side: HTMLButtonElement;
  "zoom-in": HTMLButtonElement;
  "zoom-out": HTMLButtonElement;
  "fit-run": HTMLButtonElement;
  "fit-all": HTMLButtonElement;
  back: HTMLButtonElement;
  play: HTMLButtonElement;
  next: HTMLButtonElement;
  stop: HTMLButtonElement;
  search: HTMLFormElement;
  op: HTMLInputElement;
  png: HTMLButtonElement;
  svg: HTMLButtonElement;
  idle: HTMLInputElement;
  path: HTMLInputElement;
  "lanes-choice": HTMLLabelElement;
  lanes: HTMLInputElement;
  "gantt-legend": HTMLElement;
  overview: HTMLCanvasElement;
  panels: HTMLElement;
  said: HTMLElement;
  "memory-section": HTMLElement;
  "memory-title": HTMLElement;
  "memory-legend": HTMLElement;
  memory: HTMLCanvasElement;
  "causes-legend": HTMLElement;
  causes: HTMLElement;
  "idle-table": HTMLTableElement;
  tip: HTMLElement;
}
type Find = <Name extends keyof ViewerElements>(name: Name) => ViewerElements[Name];
