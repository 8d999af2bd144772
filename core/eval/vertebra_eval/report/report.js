"use strict";
(() => {
  // Tables sort by the column whose heading is clicked: numbers largest first, texts from A on, the other way round when
  // clicked again. What has no number stays last. Without this script the rows stand in the order they were written.
  const textOf = (row, column) => row.cells[column].textContent.trim();
  const numberOf = (row, column) => parseFloat(textOf(row, column).replace(/,/g, ""));

  function sort(table, column) {
    const heading = table.tHead.rows[0].cells[column];
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const numeric = rows.every((row) => row.cells[column].classList.contains("number"));
    const before = heading.getAttribute("aria-sort");
    const descending = before ? before === "ascending" : numeric;
    const sign = descending ? -1 : 1;
    rows.sort((a, b) => {
      if (!numeric) return sign * textOf(a, column).localeCompare(textOf(b, column), "en", { numeric: true });
      const [x, y] = [numberOf(a, column), numberOf(b, column)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return sign * (x - y);
    });
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...rows);
  }

  for (const table of document.querySelectorAll("table.sorts")) {
    Array.from(table.tHead.rows[0].cells).forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "sort by this column";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.addEventListener("click", () => sort(table, column));
    });
  }

  // What is folded away is printed too.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = Array.from(document.querySelectorAll("details:not([open])"));
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
  });
})();
