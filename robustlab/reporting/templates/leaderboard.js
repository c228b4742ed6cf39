"use strict";
(() => {
  // Without this script the tables stand as they are; nothing in them looks as if it could be pressed.
  function key(row, column) {
    const cell = row.cells[column];
    if (!("value" in cell.dataset)) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  }

  function compare(a, b) {
    return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  }

  // Rows stay in their group, and a row without a value comes last either way.
  function arrange(body, column, ascending) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    const keyed = rows.map((row) => [key(row, column), row]);
    const known = keyed.filter(([value]) => value !== null && value !== "");
    known.sort(([a], [b]) => (ascending ? compare(a, b) : compare(b, a)));
    const missing = keyed.filter(([value]) => value === null || value === "");
    body.append(...[...known, ...missing].map(([, row]) => row));
  }

  function sort(table, header, ascending) {
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    for (const body of table.tBodies) arrange(body, header.cellIndex, ascending);
  }

  // Names sort from A, numbers from the largest.
  function turned(header) {
    const order = header.getAttribute("aria-sort");
    return order ? order === "descending" : !header.classList.contains("num");
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const headers = [...table.tHead.querySelector(".sort-by").cells];
    const label = document.createElement("label");
    const choice = document.createElement("select");
    label.className = "sort";
    label.append("Sort by", choice);
    choice.append(new Option("table order", ""));
    const first = table.tBodies[0].querySelector("tr:not(.group)");
    for (const header of headers) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sort(table, header, turned(header)));
      const name = first && first.cells[header.cellIndex].dataset.label;
      choice.append(new Option(name || button.textContent.trim(), header.cellIndex));
    }
    // Narrow pages have no header row to press.
    const order = [...table.tBodies].map((body) => [...body.rows]);
    choice.addEventListener("change", () => {
      const header = headers[choice.value];
      if (choice.value === "") [...table.tBodies].forEach((body, i) => body.append(...order[i]));
      else sort(table, header, !header.classList.contains("num"));
    });
    table.parentNode.before(label);
  }
})();
