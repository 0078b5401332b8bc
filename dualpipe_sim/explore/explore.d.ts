// What the live page's script gets from its server, for the type checker alone: see explore/answer.py.

/** A key that the page sets, and what it is now. */
interface Control {
  path: string;
  group: string;
  label: string;
  about: string;
  /** As YAML. */
  value: string;
  /** Of a bare number. */
  unit: string;
  choices: string[];
  whole?: boolean;
  least?: number;
  most?: number;
}

/** A schedule that is shown; `value` is its entry of `compare:`. */
interface ScheduleEntry {
  label: string;
  value: string;
  own: boolean;
}

interface Table {
  headings: string[];
  rows: string[][];
  notes: string[];
  numbers: Record<string, unknown>[];
  own: boolean[];
}

/** What came of an answer so far: runs by the place of their schedule. */
interface Answer {
  schedules: ScheduleEntry[];
  runs: (PageData | undefined)[];
  drawn: number;
}
