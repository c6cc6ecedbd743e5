"use strict";
// The page only shows: every number and every sentence on an image comes from the model's side.
(() => {
  const find = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children.filter((child) => child !== null));
    return made;
  };

  const engine = window.fracnetEngine; // what answers: see engine.js

  let model = null;
  const cards = []; // {answer, element, viewer}
  const known = new Set(); // files that have a card
  let missing = 0; // files that were chosen and have none
  let current = -1;
  let stopping = false;
  let opacity = 0.6;

  const status = (text) => { find("status").textContent = text; };
  const note = (text) => find("notes").append(make("li", { textContent: text }));
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
  const counted = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  const shown = (value) => value.toFixed(3);

  // A canvas with zoom, position, window and the heatmap as a layer.
  class Viewer {
    constructor(canvas, image, heat, box) {
      Object.assign(this, { canvas, box, zoom: 1, x: 0, y: 0, center: 128, width: 256 });
      this.size = [image.width, image.height];
      this.values = image.values;
      this.heat = heat && heat.values;
      this.picture = make("canvas", { width: image.width, height: image.height });
      this.paint();
      new ResizeObserver(() => this.draw()).observe(canvas);
      this.listen();
    }

    // Window and heatmap; needed when one of them changes.
    paint() {
      const pen = this.picture.getContext("2d");
      const data = pen.createImageData(...this.size);
      const low = this.center - this.width / 2;
      for (let i = 0; i < this.values.length; i += 1) {
        const grey = Math.min(255, Math.max(0, (255 * (this.values[i] - low)) / this.width));
        const heat = this.heat ? this.heat[i] : 0;
        const share = (opacity * heat) / 255;
        const color = model.colors[heat];
        for (let c = 0; c < 3; c += 1) {
          data.data[4 * i + c] = Math.round(grey * (1 - share) + color[c] * share);
        }
        data.data[4 * i + 3] = 255;
      }
      pen.putImageData(data, 0, 0);
      this.draw();
    }

    draw() {
      const ratio = window.devicePixelRatio || 1;
      const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
      if (!width || !height) return;
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      const scale = Math.min(width / this.size[0], height / this.size[1]) * this.zoom * ratio;
      const reach = (side, length) => Math.max(0, (length * scale - side * ratio) / 2 / ratio);
      this.x = Math.min(reach(width, this.size[0]), Math.max(-reach(width, this.size[0]), this.x));
      this.y = Math.min(reach(height, this.size[1]), Math.max(-reach(height, this.size[1]), this.y));
      const pen = this.canvas.getContext("2d");
      pen.imageSmoothingEnabled = scale < 3;
      pen.imageSmoothingQuality = "high";
      pen.translate(this.canvas.width / 2 + this.x * ratio, this.canvas.height / 2 + this.y * ratio);
      pen.scale(scale, scale);
      pen.drawImage(this.picture, -this.size[0] / 2, -this.size[1] / 2);
      this.box.classList.toggle("zoomed", this.zoom > 1);
    }

    zoomBy(factor, x = 0, y = 0) {
      const zoom = Math.min(16, Math.max(1, this.zoom * factor));
      const change = zoom / this.zoom;
      this.x = x - (x - this.x) * change;
      this.y = y - (y - this.y) * change;
      this.zoom = zoom;
      this.draw();
    }

    moveBy(x, y) {
      this.x += x;
      this.y += y;
      this.draw();
    }

    reset() {
      Object.assign(this, { zoom: 1, x: 0, y: 0 });
      this.draw();
    }

    listen() {
      const held = new Map();
      const place = (event) => {
        const box = this.canvas.getBoundingClientRect();
        return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
      };
      this.canvas.addEventListener("wheel", (event) => {
        if (!event.ctrlKey && this.zoom === 1 && !this.box.closest(".large, .current")) return;
        event.preventDefault();
        this.zoomBy(Math.exp(-event.deltaY / 300), ...place(event));
      }, { passive: false });
      this.canvas.addEventListener("dblclick", () => this.reset());
      this.canvas.addEventListener("pointerdown", (event) => {
        held.set(event.pointerId, place(event));
        if (this.zoom > 1 || held.size > 1) this.canvas.setPointerCapture(event.pointerId);
      });
      this.canvas.addEventListener("pointermove", (event) => {
        const before = held.get(event.pointerId);
        if (!before) return;
        const now = place(event);
        const others = [...held].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
        if (others.length) {
          const distance = (at) => Math.hypot(at[0] - others[0][0], at[1] - others[0][1]) || 1;
          this.zoomBy(distance(now) / distance(before), ...others[0]);
        } else if (this.zoom > 1) {
          this.moveBy(now[0] - before[0], now[1] - before[1]);
        }
        held.set(event.pointerId, now);
      });
      for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
        this.canvas.addEventListener(end, (event) => held.delete(event.pointerId));
      }
    }
  }

  // Words for the flags; the reason is the model's own.
  const tags = (answer) => {
    const list = [];
    if (answer.uncertain) list.push(make("span", { className: "tag warning", textContent: "uncertain" }));
    else list.push(make("span", { className: "tag ok", textContent: "confident" }));
    if (answer.ood) {
      list.push(make("span", { className: "tag error", textContent: "out of distribution" }));
    }
    return list;
  };
  const classes = (probabilities) => make("ul", { className: "classes" },
    ...Object.entries(probabilities).map(([name, value]) => {
      const bar = make("i");
      bar.style.width = `${100 * value}%`;
      const number = make("span", { textContent: shown(value), title: String(value) });
      return make("li", {}, make("span", { textContent: name }), make("span", {}, bar), number);
    }));

  const slider = (title, value, low, high, change) => {
    const input = make("input", { type: "range", min: low, max: high, value });
    input.addEventListener("input", () => change(Number(input.value)));
    return [make("label", { textContent: title }, input), input];
  };

  const addCard = (answer) => {
    const head = make("h3", { textContent: answer.path });
    const element = make("article", { className: "card", tabIndex: 0 }, head);
    element.setAttribute("aria-label", answer.path);
    const card = { answer, element, viewer: null };
    if (answer.error) {
      element.append(
        make("p", { className: "decision" },
          make("span", { className: "tag error", textContent: "unreadable" })),
        make("p", { className: "why", textContent: answer.error }));
    } else {
      const box = make("div", { className: "view" });
      const canvas = make("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `radiograph ${answer.path}`);
      box.append(canvas);
      element.append(box);
      const viewer = new Viewer(canvas, answer.image, answer.heatmap, box);
      delete answer.image; // kept once, as the viewer's pixels
      delete answer.heatmap;
      card.viewer = viewer;
      const button = (text, label, act) => {
        const made = make("button", { type: "button", textContent: text, title: label });
        made.setAttribute("aria-label", label);
        made.addEventListener("click", act);
        return made;
      };
      box.append(make("div", { className: "controls" },
        button("−", "zoom out", () => viewer.zoomBy(1 / 1.5)),
        button("+", "zoom in", () => viewer.zoomBy(1.5)),
        button("⤢", "large view", () => large(card))));
      const [center, centerInput] = slider("brightness", 128, 0, 255, (value) => {
        viewer.center = 255 - value;
        viewer.paint();
      });
      const [width, widthInput] = slider("contrast", 0, 0, 98, (value) => {
        viewer.width = 256 * (1 - value / 100);
        viewer.paint();
      });
      card.inputs = [centerInput, widthInput];
      element.append(
        make("div", { className: "window" }, center, width),
        make("p", { className: "decision" },
          make("strong", { textContent: answer.decision }),
          make("span", { textContent: shown(answer.probabilities[answer.decision]) }),
          ...tags(answer)),
        classes(answer.probabilities),
        make("p", { className: "why", textContent: sentences(answer) }));
    }
    element.addEventListener("focusin", () => choose(cards.indexOf(card), false));
    cards.push(card);
    return card;
  };

  const sentences = (answer) => {
    const parts = [`${answer.why}.`];
    if (answer.ood_score !== null) {
      const relation = answer.ood ? "above" : "not above";
      parts.push(`Out-of-distribution score ${answer.ood_score.toFixed(2)}, ${relation} the limit of 1.`);
    }
    if (answer.heatmap_note) parts.push(answer.heatmap_note);
    return parts.join(" ");
  };

  // Images of one study stand side by side below its own decision.
  const place = (studies) => {
    const groups = studies.map((study) => {
      const members = cards.filter(({ answer }) =>
        answer.study === study.study && answer.patient === study.patient);
      const head = make("header", {}, make("h2", { textContent: `Study ${study.study}` }));
      head.append(make("span", { textContent: counted(members.length, "image") }));
      if (study.decision) {
        const value = study.probabilities[study.decision];
        head.append(make("strong", { textContent: study.decision }), make("span", { textContent: shown(value) }),
          ...tags(study));
        if (study.reason) head.append(make("span", { className: "why", textContent: study.reason }));
      } else if (members.some(({ answer }) => !answer.error)) {
        head.append(make("span", {
          className: "why",
          textContent: model.study_decisions ? "no decision: no view can be read"
            : "no decision on studies: the model was not validated on studies",
        }));
      }
      if (missing && study.decision) {
        head.append(make("span", {
          className: "why", textContent: `${counted(missing, "file")} not predicted: a view may be missing`,
        }));
      }
      const grid = make("div", { className: "cards" }, ...members.map(({ element }) => element));
      return [members, make("section", { className: "group" }, head, grid)];
    });
    const grouped = new Set(groups.flatMap(([members]) => members));
    const single = cards.filter((card) => !grouped.has(card)).map(({ element }) => element);
    find("results").replaceChildren(
      ...(single.length ? [make("div", { className: "cards" }, ...single)] : []),
      ...groups.map(([, section]) => section));
    // The order of the page, for the keys.
    const order = [...find("results").querySelectorAll(".card")];
    cards.sort((a, b) => order.indexOf(a.element) - order.indexOf(b.element));
  };

  const choose = (index, focus = true) => {
    if (index < 0 || index >= cards.length) return;
    if (cards[current]) cards[current].element.classList.remove("current");
    const wasLarge = document.querySelector(".card.large");
    current = index;
    const { element } = cards[current];
    element.classList.add("current");
    if (wasLarge && wasLarge !== element) {
      wasLarge.classList.remove("large");
      element.classList.add("large");
    }
    if (focus) element.focus();
  };
  const large = (card) => {
    card.element.classList.toggle("large");
    choose(cards.indexOf(card));
    if (card.viewer) card.viewer.draw();
  };

  const add = async (chosen) => {
    const files = [...chosen];
    if (!files.length) return;
    find("stop").hidden = false;
    find("tools").hidden = false;
    stopping = false;
    const controller = new AbortController();
    find("stop").onclick = () => { stopping = true; controller.abort(); };
    const name = (file) => JSON.stringify([file.name, file.size, file.lastModified]);
    const fresh = files.filter((file) => !known.has(name(file))); // a view counts once
    if (fresh.length < files.length) note(`${counted(files.length - fresh.length, "file")} already shown.`);
    let left = fresh;
    if (left.length > model.limits.files) {
      note(`${counted(left.length, "file")} chosen; the first ${model.limits.files} are predicted, the limit at once.`);
      left = left.slice(0, model.limits.files);
    }
    let done = 0;
    let predicted = 0;
    for (const file of left) {
      if (stopping) break;
      status(`${done} of ${counted(left.length, "file")}: ${file.name}`);
      if (file.size > model.limits.megabytes * 1e6) {
        note(`${file.name} is ${megabytes(file.size)}; the limit is ${model.limits.megabytes} MB.`);
      } else if (file.size === 0) {
        note(`${file.name} is empty.`);
      } else {
        try {
          const card = addCard(await engine.predict(file, controller.signal));
          find("results").append(card.element);
          known.add(name(file));
          predicted += 1;
        } catch (error) {
          if (!stopping) note(`${file.name}: ${error.message}`);
        }
      }
      done += 1;
    }
    find("stop").hidden = true;
    missing += fresh.length - predicted;
    try {
      const named = cards.filter(({ answer }) => answer.study).map(({ answer }) => answer);
      place(named.length ? await engine.studies(named) : []);
    } catch (error) {
      note(error.message);
    }
    const unreadable = cards.filter(({ answer }) => answer.error).length;
    const rest = unreadable ? `, ${unreadable} unreadable` : "";
    status(`${counted(cards.length - unreadable, "image")} predicted${rest}${stopping ? "; stopped" : ""}.`);
    find("tools").hidden = cards.length === 0;
  };

  // One row an image, with the columns of predictions.csv; a spreadsheet runs nothing of it.
  const csv = () => {
    const names = model.table;
    const cell = (value) => {
      if (value === null || value === undefined) return "";
      if (typeof value === "boolean") return value ? "True" : "False";
      if (typeof value === "number") return String(value);
      const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const row = ({ answer }) => names.map((name) => cell(name.startsWith("prob_")
      ? answer.probabilities && answer.probabilities[name.slice(5)] : answer[name])).join(",");
    return [names.map(cell).join(","), ...cards.map(row)].join("\n") + "\n";
  };
  const save = () => {
    const link = make("a", { download: "predictions.csv" });
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  // A dropped folder lists its files by and by.
  const entries = async (entry) => {
    if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
    const reader = entry.createReader();
    const files = [];
    for (;;) {
      const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!part.length) return files;
      for (const inner of part.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }))) {
        if (!inner.name.startsWith(".")) files.push(...await entries(inner));
      }
    }
  };

  const describe = (description) => {
    model = description;
    opacity = model.opacity;
    document.title = `fracnet: ${model.run}`;
    find("title").textContent = `fracnet: run ${model.run}`;
    find("caution").textContent = model.caution;
    model.notes.forEach(note);
    find("opacity").value = 100 * opacity;
    find("opacity-label").hidden = !model.heatmaps;
    find("formats").textContent = `${model.formats}, at most ${model.limits.megabytes} MB a file`;
    const heatmaps = model.heatmaps
      ? "Heatmaps show what raised the decided class, each relative to its own maximum. " : "";
    find("model").textContent = `${model.rules.join(" ")} ${model.ood_unknown} ${heatmaps}` +
      `Run ${model.run}, fracnet ${model.fracnet}, decisions ${model.decisions_sha256.slice(0, 12)}.`;
  };

  const described = engine ? engine.model().then(describe)
    : Promise.reject(new Error("engine.js is missing, or this browser is too old for it."));
  const ready = described.then(() => engine.check(status)).then((sentence) => {
    find("check").textContent = sentence;
    status("");
  });
  let work = Promise.resolve(); // one set of files after the other
  const queue = (files) => {
    work = work.then(() => ready).then(async () => add(await files)).catch((error) => status(error.message));
  };
  for (const id of ["files", "folder"]) {
    find(id).addEventListener("change", (event) => {
      queue([...event.target.files].filter((file) => !file.name.startsWith(".")));
      event.target.value = "";
    });
  }
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    find("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) find("drop").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    find("drop").classList.remove("over");
    const items = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry());
    const dropped = items.every(Boolean) && items.length
      ? Promise.all(items.map(entries)).then((lists) => lists.flat())
      : [...event.dataTransfer.files];
    queue(dropped);
  });
  document.addEventListener("paste", (event) => queue([...event.clipboardData.files]));
  find("save").addEventListener("click", save);
  find("clear").addEventListener("click", () => {
    cards.length = 0;
    known.clear();
    missing = 0;
    current = -1;
    find("results").replaceChildren();
    find("notes").replaceChildren();
    find("tools").hidden = true;
    status("");
  });
  const repaint = () => cards.forEach(({ viewer }) => viewer && viewer.paint());
  find("opacity").addEventListener("input", (event) => {
    opacity = event.target.value / 100;
    repaint();
  });
  const step = (input, by) => {
    input.value = Number(input.value) + by;
    input.dispatchEvent(new Event("input"));
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target instanceof HTMLInputElement && event.key.startsWith("Arrow")) return;
    const card = cards[current];
    const viewer = card && card.viewer;
    const move = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
    if (move && event.shiftKey && viewer) viewer.moveBy(...move);
    else if (event.key === "ArrowRight") choose(current + 1);
    else if (event.key === "ArrowLeft") choose(current - 1);
    else if (event.key === "h") {
      const slide = find("opacity");
      slide.value = slide.value > 0 ? 0 : 60;
      slide.dispatchEvent(new Event("input"));
    } else if (event.key === "Escape") {
      document.querySelectorAll(".card.large").forEach((big) => big.classList.remove("large"));
    } else if (event.key === "Enter" && card && event.target === card.element) large(card);
    else if (!viewer) return;
    else if (event.key === "+" || event.key === "=") viewer.zoomBy(1.5);
    else if (event.key === "-") viewer.zoomBy(1 / 1.5);
    else if (event.key === "0") viewer.reset();
    else if (event.key === "[") step(card.inputs[0], -8);
    else if (event.key === "]") step(card.inputs[0], 8);
    else if (event.key === "{") step(card.inputs[1], 5);
    else if (event.key === "}") step(card.inputs[1], -5);
    else return;
    event.preventDefault();
  });

  // Without a model that passed its checks, nothing is predicted.
  ready.catch((error) => {
    status(error.message);
    find("status").className = "error";
    find("drop").hidden = true;
    find("notes").replaceChildren();
  });
})();
