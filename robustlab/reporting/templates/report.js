"use strict";
(() => {
  const form = document.querySelector("form.filters");
  const table = document.querySelector("table.summary");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const selects = [...form.querySelectorAll("select[name]")];
  const order = form.querySelector(".sort select");
  const controls = form.elements.controls;
  const count = form.querySelector("output");

  // A control stands under the attack that it is the floor of; the no-op under all of them.
  function wanted(row, name) {
    if (name === "attack" && row.dataset.role === "none") return selects.find((s) => s.name === name).value;
    return row.dataset[name];
  }

  function filter() {
    let shown = 0;
    for (const row of rows) {
      const fits = selects.every((s) => !s.value || wanted(row, s.name) === s.value);
      row.hidden = !fits || (row.dataset.role !== "attack" && !controls.checked);
      shown += row.hidden ? 0 : 1;
    }
    const metric = form.elements.metric;
    table.classList.toggle("one-metric", !metric || metric.value !== "");
    count.textContent = `${shown} of ${rows.length} rows`;
  }

  function key(row, column) {
    const cell = row.cells[column];
    if (!("value" in cell.dataset)) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  }

  function compare(a, b) {
    return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
  }

  function sort(header, ascending = header.getAttribute("aria-sort") !== "ascending") {
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const column = header.cellIndex;
    const keyed = rows.map((row) => [key(row, column), row]);
    const known = keyed.filter(([value]) => value !== null && value !== "");
    known.sort(([a], [b]) => (ascending ? compare(a, b) : compare(b, a)));
    const missing = keyed.filter(([value]) => value === null || value === "");
    body.append(...[...known, ...missing].map(([, row]) => row));
  }

  const headers = [...table.tHead.rows[0].cells];
  order.append(new Option("table order", ""));
  for (const header of headers) {
    header.querySelector("button").addEventListener("click", () => sort(header));
    order.append(new Option(header.textContent.trim(), header.cellIndex));
  }
  // Narrow pages have no header row to click.
  order.addEventListener("change", () => {
    if (order.value === "") body.append(...rows);
    else sort(headers[order.value], true);
  });
  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
})();
