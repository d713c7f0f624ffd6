// The leaderboard table: sorting, filter, columns; copying the command; opening details for print.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  document.querySelectorAll(".controls").forEach((box) => { box.hidden = false; });

  const table = $("board");
  if (table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, at) => {
      const button = head.querySelector("button");
      if (button) button.addEventListener("click", () => sortBy(head, at, button.dataset.first));
    });
    $("filter").addEventListener("input", filter);
    document.querySelectorAll("[data-column]").forEach((box) => box.addEventListener("change", () => show(box)));
    $("columns-main").addEventListener("click", () => choose((box) => "main" in box.dataset));
    $("columns-all").addEventListener("click", () => choose(() => true));

    // Sections keep their place; within each the rows are sorted, those without a value last.
    function sortBy(head, at, first) {
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const flip = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[at].dataset.v;
      const compare = (a, b) => {
        const [u, v] = [value(a), value(b)];
        if (u === "" || v === "") return (u === "") - (v === "");
        const difference = Number(u) - Number(v);
        return flip * (Number.isNaN(difference) ? u.localeCompare(v) : difference);
      };
      for (const body of table.tBodies) {
        body.append(...[...body.rows].filter((row) => !row.classList.contains("section")).sort(compare));
      }
    }

    function filter() {
      const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
      const rows = [...table.querySelectorAll("tbody tr:not(.section)")];
      rows.forEach((row) => { row.hidden = !words.every((word) => row.dataset.text.includes(word)); });
      $("count").textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
    }

    function show(box) {
      table.querySelectorAll("[data-c]").forEach((cell) => {
        if (cell.dataset.c === box.dataset.column) cell.hidden = !box.checked;
      });
    }

    function choose(wanted) {
      document.querySelectorAll("[data-column]").forEach((box) => { box.checked = wanted(box); show(box); });
    }
  }

  const copy = $("copy");
  if (copy) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText($("command").textContent);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren($("command")); // no clipboard here: at least it is selected
      }
    });
  }

  addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not([data-stay-closed], .chooser)").forEach((d) => { d.open = true; });
  });
})();
