"use strict";
(() => {
  const root = document.documentElement;
  const each = (selector, run, from = document) => from.querySelectorAll(selector).forEach(run);

  // Light or dark: the system's choice until the button says otherwise.
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = { get: () => { try { return localStorage.getItem("qualm-theme"); } catch { return null; } },
                   set: (value) => { try { localStorage.setItem("qualm-theme", value); } catch { /* a page without storage forgets */ } } };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; button.setAttribute("aria-label", "Use the " + button.textContent.toLowerCase() + " theme"); };
  const kept = stored.get();
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; stored.set(root.dataset.theme); label(); });
  dark.addEventListener("change", label);
  label();

  // Numbers sort as numbers; what is none (NaN, nothing) comes last.
  const number = (text) => {
    const plain = text.replace(/,/g, "");
    if (plain.startsWith("∞")) return Infinity;
    if (plain.startsWith("-∞")) return -Infinity;
    return parseFloat(plain);
  };
  const compare = (a, b, numeric, sign) => {
    if (!numeric) return sign * a.localeCompare(b, "en", { numeric: true });
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return x === y ? 0 : sign * (x - y);
  };
  const sort = (table, heading, at) => {
    const numeric = table.classList.contains("n" + (at + 1));
    const before = heading.getAttribute("aria-sort");
    const sign = before ? (before === "ascending" ? -1 : 1) : numeric ? -1 : 1;
    each("thead th", (other) => other.removeAttribute("aria-sort"), table);
    heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [row.cells[at].textContent, row]);
    rows.sort((a, b) => compare(a[0], b[0], numeric, sign));
    body.append(...rows.map((it) => it[1]));
  };

  const tools = (table) => {
    const bar = document.createElement("div");
    bar.className = "tools";
    const box = document.createElement("input");
    box.type = "search";
    box.placeholder = "Search";
    box.setAttribute("aria-label", "Search: " + table.caption.textContent);
    const count = document.createElement("output");
    const states = document.createElement("select");
    states.setAttribute("aria-label", "Outcome: " + table.caption.textContent);
    const found = new Set(Array.from(table.tBodies[0].rows, (row) => row.className));
    for (const state of ["any outcome", ...found]) states.add(new Option(state, state));
    const show = () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !(words.every((word) => text.includes(word))
          && (states.selectedIndex === 0 || row.className === states.value));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = shown + " of " + table.tBodies[0].rows.length;
    };
    box.addEventListener("input", show);
    states.addEventListener("change", show);
    if (table.classList.contains("search")) bar.append(box);
    if (found.size > 1) bar.append(states);
    bar.append(count);
    table.parentElement.before(bar);
    show();
  };

  each("table.data", (table) => {
    if (table.tBodies[0].rows.length > 2) {
      each("thead th", (heading, at) => {
        const handle = document.createElement("button");
        handle.type = "button";
        handle.textContent = heading.textContent;
        handle.addEventListener("click", () => sort(table, heading, at));
        heading.replaceChildren(handle);
      }, table);
    }
    if (table.classList.contains("search")) tools(table);
  });

  // A heat map is one stop for the tabulator; arrows walk through it, and a line says what is there.
  each("table.heat", (table) => {
    const says = document.createElement("output");
    says.className = "of";
    table.parentElement.after(says);
    const cells = Array.from(table.querySelectorAll("td[title]"));
    if (cells.length === 0) return;
    cells.forEach((cell) => { cell.tabIndex = -1; cell.setAttribute("aria-label", cell.title); });
    cells[0].tabIndex = 0;
    const tell = (event) => { const cell = event.target.closest("td[title]"); if (cell) says.textContent = cell.title; };
    table.addEventListener("mouseover", tell);
    table.addEventListener("focusin", tell);
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    table.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      const from = event.target.closest("td[title]");
      if (!step || !from) return;
      event.preventDefault();
      let [row, column] = [from.parentElement.rowIndex, from.cellIndex];
      for (;;) {
        row += step[0];
        column += step[1];
        const line = table.rows[row];
        const next = line && line.cells[column];
        if (!next || row === 0 || column === 0) return;
        if (next.title) {
          from.tabIndex = -1;
          next.tabIndex = 0;
          next.focus();
          return;
        }
      }
    });
  });

  // A link to something that is folded away unfolds it.
  const unfold = () => {
    let target = null;
    try { target = document.querySelector(location.hash || "#main"); } catch { return; }
    for (let it = target; it; it = it.parentElement) if (it.tagName === "DETAILS") it.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
})();
