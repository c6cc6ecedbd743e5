"use strict";
// Sorting of tables, filters and a large view of galleries. Without it the page shows everything.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const element = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

  // Numbers before words; what is missing comes last in both directions.
  const key = (row, column) => {
    const text = row.cells[column].innerText.trim();
    const number = /^[-+]?[\d.]/.test(text) ? parseFloat(text.replaceAll(",", "")) : NaN;
    return { text, number, missing: text === "" || text === "-" || text === "n/a" };
  };
  const order = (a, b) =>
    Number.isNaN(a.number) || Number.isNaN(b.number)
      ? a.text.localeCompare(b.text, undefined, { numeric: true })
      : a.number - b.number;
  for (const table of all("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (head.classList.contains("wide")) return;
      const button = element("button", { type: "button", className: "sort" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const descending = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) =>
          a.missing !== b.missing ? a.missing - b.missing : descending ? order(b, a) : order(a, b));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 6) continue;
    const names = heads.map((head) => head.textContent.trim().toLowerCase().replace(/\s+/g, "_"));
    // Words that a row must hold, and comparisons with a column: "adam lr<0.01".
    const split = (word) => {
      const [, name, sign, limit] = /^([^<>=]+)([<>=])(.+)$/.exec(word) ?? [];
      return { column: names.indexOf(name), sign, limit };
    };
    const example = (head, column) => {
      const cells = column && !head.matches(".text") ? rows.map((row) => key(row, column)) : [];
      const numbers = cells.filter(({ missing }) => !missing).map(({ number }) => number);
      if (numbers.some(Number.isNaN)) return [];
      const middle = numbers.sort((a, b) => a - b)[numbers.length >> 1];
      const word = `${names[column]}<${middle}`;
      return numbers[0] < middle && split(word).column === column ? [`e.g. ${word}`] : [];
    };
    const placeholder = heads.flatMap(example)[0] ?? "words";
    const input = element("input", { type: "search", placeholder });
    const form = element("form", { className: "filters" });
    const label = element("label", { textContent: "filter rows " });
    const output = element("output", { className: "muted" });
    const matches = (row, word) => {
      const { column, sign, limit } = split(word);
      if (column < 0) return row.textContent.toLowerCase().includes(word);
      const { text, number } = key(row, column);
      if (sign === "=") return text.toLowerCase() === limit || number === Number(limit);
      return sign === "<" ? number < Number(limit) : number > Number(limit);
    };
    label.append(input);
    form.append(label);
    // A gallery has other filters too, and counts what passes all of them.
    if (!table.closest(".gallery")) form.append(output);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach((row) => {
        row.classList.toggle("unmatched", !words.every((word) => matches(row, word)));
      });
      const shown = rows.filter((row) => !row.matches(".unmatched")).length;
      output.textContent = words.length ? `${shown} of ${rows.length} shown` : "";
    });
    table.parentElement.before(form);
  }

  for (const gallery of all(".gallery")) {
    const form = gallery.querySelector(".filters");
    const cases = all(".case", gallery);
    const filter = () => {
      const selects = all("select", form).filter((select) => select.value);
      cases.forEach((item) => {
        item.hidden = !selects.every((select) => item.dataset[select.name] === select.value);
      });
      const heatmaps = form.elements.heatmap;
      gallery.classList.toggle("plain-only", heatmaps !== undefined && !heatmaps.checked);
      const shown = cases.filter((item) => !item.matches("[hidden], .unmatched")).length;
      form.querySelector("output").textContent = `${shown} of ${cases.length} shown`;
    };
    form.hidden = false;
    gallery.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    filter();
    enlarge(gallery, cases);
  }

  function enlarge(gallery, cases) {
    const dialog = element("dialog", { className: "large" });
    const picture = element("img");
    const caption = element("p");
    const heatmap = element("input", { type: "checkbox", checked: true });
    const label = element("label");
    label.append(heatmap, " heatmap (h)");
    const bar = element("p", { className: "controls" });
    const button = (text, action) => {
      const made = element("button", { type: "button", textContent: text });
      made.addEventListener("click", action);
      bar.append(made);
    };
    let at = 0;
    // In the order on the page, which sorting changes.
    const visible = () => all(".case:not([hidden], .unmatched)", gallery).filter((item) => item.querySelector("img"));
    const show = (step) => {
      const items = visible();
      at = (at + step + items.length) % items.length;
      const item = items[at];
      const overlay = item.querySelector(".overlay img");
      heatmap.disabled = overlay === null;
      const source = heatmap.checked && overlay ? overlay : item.querySelector("img");
      dialog.prepend(picture);
      picture.src = source.src;
      picture.alt = source.alt;
      caption.textContent =
        item.dataset.caption ?? all(":scope > p", item).map((p) => p.innerText).join("; ");
    };
    button("Previous", () => show(-1));
    button("Next", () => show(1));
    bar.append(label);
    button("Close", () => dialog.close());
    heatmap.addEventListener("input", () => show(0));
    dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) show(step);
      else if (event.key === "h" && !heatmap.disabled) heatmap.checked = !heatmap.checked, show(0);
      else return;
      event.preventDefault();
    });
    dialog.setAttribute("aria-label", "Radiograph, large");
    dialog.append(caption, bar);
    gallery.append(dialog);
    cases.forEach((item) => all("figure", item).forEach((figure) => {
      const open = element("button", { type: "button", className: "open" });
      open.setAttribute("aria-label", "Show large");
      open.append(...figure.childNodes);
      figure.append(open);
      open.addEventListener("click", () => {
        at = visible().indexOf(item);
        heatmap.checked = figure.classList.contains("overlay");
        show(0);
        dialog.showModal();
      });
    }));
  }
})();
