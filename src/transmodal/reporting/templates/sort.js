"use strict";
// Column headers become buttons that sort their table; without scripts the table stands as it is.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", order);
      body.append(...[...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], order)));
    });
  });
}

// Cells without a value come last in either order.
function compare(a, b, order) {
  const sign = order === "ascending" ? 1 : -1;
  if (a.tagName === "TH") return sign * a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
  const missing = ("value" in b.dataset) - ("value" in a.dataset);
  return missing || sign * (Number(a.dataset.value) - Number(b.dataset.value)) || 0;
}
