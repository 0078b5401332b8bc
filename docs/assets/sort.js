// @ts-check
// Tables inside <div class="sortable">: a click, or Enter, on a column's head sorts by it, another one turns it round.

/** @param {HTMLTableRowElement} row @param {number} column */
const textOf = (row, column) => row.cells[column].textContent.trim();
/** @param {string} text */
const numberIn = (text) => (/^[\d.]+$/.test(text) ? Number(text) : Number.NaN);

// Numbers before words, each in their order; what a table says of nobody ("–") comes last either way.
/** @param {string} a @param {string} b @param {number} sign */
function compare(a, b, sign) {
  if (a === b) return 0;
  if (a === "–" || b === "–") return a === "–" ? 1 : -1;
  const [one, other] = [numberIn(a), numberIn(b)];
  if (Number.isNaN(one) !== Number.isNaN(other)) return Number.isNaN(one) ? sign : -sign;
  return sign * (Number.isNaN(one) ? a.localeCompare(b, "en", { numeric: true }) : one - other);
}

/** @param {HTMLTableElement} table @param {HTMLTableCellElement} head */
function sortBy(table, head) {
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead?.rows[0].cells ?? []) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compare(textOf(a, head.cellIndex), textOf(b, head.cellIndex), ascending ? 1 : -1));
  table.tBodies[0].append(...rows);
}

/** @type {NodeListOf<HTMLTableElement>} */
const sortable = document.querySelectorAll(".sortable table");
for (const table of sortable) {
  for (const head of table.tHead?.rows[0].cells ?? []) {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.onclick = () => sortBy(table, head);
    head.append(button);
  }
}
