"use strict";
// What the page does beyond being read: theme, filters, sorting, and opening what a link points to.
{
  const root = document.documentElement;
  const THEMES = ["system", "light", "dark"];
  const memory = { // a browser may refuse it to a page from a file
    read() { try { return localStorage.getItem("zsad-bench-theme"); } catch { return null; } },
    write(value) { try { localStorage.setItem("zsad-bench-theme", value); } catch { /* for this visit only */ } },
  };
  root.classList.add("script");
  root.dataset.theme = THEMES.includes(memory.read()) ? memory.read() : "system"; // before anything is drawn
  document.addEventListener("DOMContentLoaded", () => {
    const all = (selector, from = document) => [...from.querySelectorAll(selector)];
    const one = (selector, from = document) => from.querySelector(selector);

    // ---------------------------------------------------------------- theme
    const button = one("[data-theme-button]");
    const setTheme = (theme) => {
      root.dataset.theme = theme;
      button.textContent = `Theme: ${theme}`;
    };
    setTheme(root.dataset.theme);
    button.hidden = false;
    button.addEventListener("click", () => {
      setTheme(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]);
      memory.write(root.dataset.theme);
    });

    // ---------------------------------------------------------------- filters
    const form = one("[data-filters]");
    const checked = (name) => all(`input[name="${name}"]`, form).filter((box) => box.checked).map((box) => box.value);
    const known = (name) => new Set(all(`input[name="${name}"]`, form).map((box) => box.value));
    const METHODS = known("method");
    const SHOTS = known("shots");

    const filter = () => {
      const metric = form.elements.metric.value;
      const methods = new Set(checked("method"));
      const shots = new Set(checked("shots"));
      const words = form.elements.category.value.trim().toLowerCase();
      const away = ({ metric: own, method, shots: number, category }) =>
        (own !== undefined && own !== metric) ||
        (METHODS.has(method) && !methods.has(method)) ||
        (SHOTS.has(number) && !shots.has(number)) ||
        (category !== undefined && !category.toLowerCase().includes(words));
      for (const element of all("[data-metric], [data-method], [data-shots], [data-category]")) {
        element.hidden = away(element.dataset);
      }
      for (const head of all("th[data-group]")) {
        const columns = all(`th[data-method][data-shots="${head.dataset.group}"]:not([hidden])`, head.closest("thead"));
        head.hidden = columns.length === 0;
        head.colSpan = Math.max(1, columns.length);
      }
      const categories = all("details.category");
      const left = categories.filter((category) => !category.hidden).length;
      const whole = methods.size === METHODS.size && shots.size === SHOTS.size && left === categories.length;
      one("[data-count=method]").textContent = `${methods.size} of ${METHODS.size}`;
      one("[data-shown]", form).textContent = left ? `${left} of ${categories.length} categories` : "No category has this in its name.";
      for (const hint of all("[data-all-categories]")) hint.hidden = whole;
    };
    form.hidden = false;
    form.addEventListener("input", filter);
    form.addEventListener("reset", () => setTimeout(filter));
    form.addEventListener("submit", (event) => event.preventDefault());
    const menu = one(".menu", form);
    document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      menu.open = false;
      one("summary", menu).focus();
    });

    // ---------------------------------------------------------------- sorting
    const collator = new Intl.Collator("en", { numeric: true });
    const contentOf = (cell) => {
      if (!cell || cell.matches(".none")) return null;
      if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
      return cell.matches("th, .text") ? cell.textContent.trim() : null; // a number that is not there
    };
    const sort = (head) => {
      const table = head.closest("table");
      const place = [...head.parentElement.children].indexOf(head);
      const body = table.tBodies[0];
      const rows = [...body.rows];
      rows.forEach((row, i) => { row.dataset.order ??= i; });
      const orders = one(".sort", head).dataset.first === "ascending" ? ["ascending", "descending"] : ["descending", "ascending"];
      const order = [...orders, null][(orders.indexOf(head.ariaSort) + 1) % 3];
      const sign = order === "descending" ? -1 : 1;
      rows.sort((a, b) => {
        const given = a.dataset.order - b.dataset.order;
        if (order === null) return given;
        const [x, y] = [contentOf(a.cells[place]), contentOf(b.cells[place])];
        if (x === null || y === null) return (x === null) - (y === null) || given; // what is missing stays last
        return sign * (typeof x === "number" && typeof y === "number" ? x - y : collator.compare(x, y)) || given;
      });
      for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
      if (order) head.ariaSort = order;
      body.append(...rows);
    };
    for (const each of all("table[data-sortable] .sort")) each.addEventListener("click", () => sort(each.closest("th")));

    // ---------------------------------------------------------------- links inside the page
    let from = null; // the link that was followed last, to come back to
    const reach = () => {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      for (const old of all(".reached")) old.classList.remove("reached");
      if (!target) return;
      if (target.closest("[hidden]")) form.reset();
      setTimeout(() => { // after the filters have come to rest
        for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
        if (!target.matches("main, section, .panel")) target.classList.add("reached");
        target.scrollIntoView({ block: "start" });
        (target.tagName === "DETAILS" ? one("summary", target) : target).focus({ preventScroll: true });
      });
    };
    window.addEventListener("hashchange", reach);
    document.addEventListener("click", (event) => {
      const link = event.target.closest?.("a[href^='#']");
      if (!link) return;
      if (link.matches("[data-back]")) {
        const visible = from?.isConnected && !from.closest("[hidden]") ? from : null;
        if (!visible) return;
        event.preventDefault();
        visible.scrollIntoView({ block: "center" });
        visible.focus({ preventScroll: true });
        return;
      }
      if (link.closest(".results, .seeds")) from = link;
      if (link.hash === location.hash) reach(); // followed a second time
    });

    // ---------------------------------------------------------------- copying a command
    for (const copy of all("[data-copy]")) {
      copy.hidden = false;
      copy.addEventListener("click", async () => {
        const text = copy.previousElementSibling;
        try {
          await navigator.clipboard.writeText(text.textContent);
          copy.textContent = "Copied";
        } catch {
          getSelection().selectAllChildren(text);
          copy.textContent = "Selected";
        }
        setTimeout(() => { copy.textContent = "Copy"; }, 2000);
      });
    }

    filter();
    reach();
  });
}
