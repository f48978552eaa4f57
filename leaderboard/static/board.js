/* kdbench's board. Every page is whole without this file: it adds sorting, filters, columns, comparison and export. */
"use strict";

(() => {
  const root = document.documentElement;
  const $$ = (where, what) => [...where.querySelectorAll(what)];
  const make = (name, attributes = {}, ...inside) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value === true) node.setAttribute(key, "");
      else if (value !== false && value !== null) node.setAttribute(key, value);
    }
    node.append(...inside);
    return node;
  };

  /* Theme: set before anything is painted. */
  root.classList.add("js");
  const themes = ["", "light", "dark"];
  const kept = { get: () => { try { return localStorage.getItem("kdbench-theme") || ""; } catch { return ""; } },
                 set: (value) => { try { localStorage.setItem("kdbench-theme", value); } catch { /* not kept */ } } };
  const paint = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; };
  paint(kept.get());
  const themeButton = (button) => {
    const show = () => { button.textContent = `Theme: ${kept.get() || "system"}`; };
    button.addEventListener("click", () => {
      const next = themes[(themes.indexOf(kept.get()) + 1) % themes.length];
      kept.set(next); paint(next); button.textContent = `Theme: ${next || "system"}`;
    });
    show();
  };

  /* State lives in the address: #!<table>.<what>=<value>&… */
  const state = new URLSearchParams(location.hash.startsWith("#!") ? location.hash.slice(2) : "");
  const keep = (id, what, value) => {
    if (value) state.set(`${id}.${what}`, value); else state.delete(`${id}.${what}`);
    const text = state.toString();
    history.replaceState(null, "", text ? `#!${text}` : location.pathname + location.search);
  };
  const kept_of = (id, what) => state.get(`${id}.${what}`) || "";

  const save = (name, text) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  /* A chart as a file of its own: what the style sheet says is written into it, hidden methods are left out. */
  const drawing = (svg) => {
    const copy = svg.cloneNode(true), told = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family", "paint-order"];
    const from = [svg, ...$$(svg, "*")], to = [copy, ...$$(copy, "*")];
    from.forEach((node, i) => {
      const style = getComputedStyle(node);
      for (const name of told) if (style.getPropertyValue(name)) to[i].setAttribute(name, style.getPropertyValue(name));
    });
    $$(copy, ".off").forEach((node) => node.remove());
    const { width, height } = svg.viewBox.baseVal, ground = document.createElementNS(svg.namespaceURI, "rect");
    for (const [key, value] of Object.entries({ width, height, fill: getComputedStyle(document.body).backgroundColor })) ground.setAttribute(key, value);
    const about = copy.querySelector("desc"), snapshot = document.querySelector('meta[name="snapshot"]').content;
    about.textContent += ` kdbench snapshot ${snapshot}.`;
    about.after(ground);
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    return new XMLSerializer().serializeToString(copy);
  };
  const figure = (node) => {
    const svg = node.querySelector(".wide svg, svg.fig"), name = `${svg.getAttribute("aria-labelledby").split(" ")[0].replace(/-t$/, "")}.svg`;
    const button = make("button", { type: "button", class: "svg", onclick: () => save(name, drawing(svg)) }, "SVG");
    (node.querySelector("figcaption") || node).append(button);
  };

  /* Tables */
  const board = (table) => {
    const id = table.id, body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    const keys = heads.map((head) => head.dataset.key);
    const value = (row, i) => {
      const cell = row.cells[i];
      if (cell.dataset.sort !== undefined) return isNaN(cell.dataset.sort) ? cell.dataset.sort : +cell.dataset.sort;
      return cell.classList.contains("n") ? null : cell.textContent.trim().toLowerCase();
    };
    const sort = (key, down) => {
      const i = keys.indexOf(key);
      if (i < 0) return;
      const order = rows.map((row, n) => [value(row, i), n, row]).sort(([a, n], [b, m]) => {
        if (a === null || b === null) return (a === null) - (b === null) || n - m;
        return (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1) || n - m;
      });
      body.append(...order.map(([, , row]) => row));
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[i].setAttribute("aria-sort", down ? "descending" : "ascending");
    };
    heads.forEach((head, i) => {
      const label = head.querySelector(".h");
      if (!label || !rows.some((row) => value(row, i) !== null) || rows.length < 2) return;
      const button = make("button", { type: "button", class: "sort", onclick: () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        sort(keys[i], down);
        keep(id, "sort", `${keys[i]}.${down ? "down" : "up"}`);
      } }, label.textContent);
      label.replaceChildren(button);
    });

    const count = make("span", { class: "count", "aria-live": "polite" });
    const filter = make("input", { type: "search", "aria-label": "Filter methods", placeholder: "Filter methods" });
    const levels = [...new Set(rows.map((row) => row.dataset.level).filter(Boolean))].sort();
    const level = make("select", { "aria-label": "Lowest level of verification" },
      ...["0", ...levels.filter((x) => x !== "0")].map((x) => make("option", { value: x }, x === "0" ? "Any level" : `Level ${x} or more`)));
    /* Family, year and what a method asks for, from its card and its runs. */
    const each = (what) => [...new Set(rows.flatMap((row) => (row.dataset[what] || "").split(",")).filter(Boolean))].sort();
    const choice = (what, any, word) => {
      const values = each(what), node = make("select", { "aria-label": any }, make("option", { value: "" }, any),
        ...values.map((value) => make("option", { value }, word(value))));
      node.addEventListener("change", () => narrow());
      return { what, node, useful: values.length > 1 };
    };
    const kinds = [choice("family", "Any family", (value) => value), choice("year", "Any year", (value) => `${value} or later`),
      choice("asks", "Any needs", (value) => `needs ${value}`)];
    const meets = { family: (row, value) => row.dataset.family === value, year: (row, value) => +row.dataset.year >= +value,
      asks: (row, value) => (row.dataset.asks || "").split(",").includes(value) };
    const narrow = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.cells[keys.indexOf("method")].textContent.toLowerCase() + " " + (row.dataset.method || "");
        row.hidden = !words.every((word) => text.includes(word)) || +(row.dataset.level || 0) < +level.value
          || kinds.some(({ what, node }) => node.value && !meets[what](row, node.value));
        shown += !row.hidden;
      }
      const section = table.closest("section");
      if (section && section.querySelector("table.board") === table) {
        const off = new Set(rows.filter((row) => row.hidden).map((row) => row.dataset.method));
        for (const node of $$(section, "svg [data-method]")) node.classList.toggle("off", off.has(node.dataset.method));
      }
      count.textContent = shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
      keep(id, "q", filter.value); keep(id, "level", level.value === "0" ? "" : level.value);
      for (const { what, node } of kinds) keep(id, what, node.value);
    };
    filter.addEventListener("input", narrow); level.addEventListener("change", narrow);

    const style = (shown) => {
      for (const row of table.rows) [...row.cells].forEach((cell, i) => { cell.hidden = !shown.has(keys[i]); });
    };
    const choosable = heads.filter((head) => head.dataset.group);
    const standard = keys.filter((key, i) => !heads[i].dataset.group || heads[i].hasAttribute("data-default"));
    let shown = new Set(standard);
    const menu = make("details", { class: "menu" }, make("summary", {}, "Columns"));
    const boxes = [], choices = make("div", { class: "choices" });
    menu.append(choices);
    menu.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); }
    });
    document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
    for (const group of new Set(choosable.map((head) => head.dataset.group))) {
      const set = make("fieldset", {}, make("legend", {}, group));
      for (const head of choosable.filter((one) => one.dataset.group === group)) {
        const key = head.dataset.key, box = make("input", { type: "checkbox", value: key, disabled: key === "method" });
        box.addEventListener("change", () => {
          if (box.checked) shown.add(key); else shown.delete(key);
          style(shown);
          const same = shown.size === standard.length && standard.every((one) => shown.has(one));
          keep(id, "cols", same ? "" : [...shown].join(","));
        });
        boxes.push(box);
        set.append(make("label", {}, box, head.querySelector(".h").textContent));
      }
      choices.append(set);
    }

    const visible = () => ({
      columns: keys.map((_, i) => i).filter((i) => !heads[i].hidden),
      rows: [...body.rows].filter((row) => !row.hidden),
    });
    const said = (cell, part) => $$(cell, part).map((node) => {
      const copy = node.cloneNode(true);
      $$(copy, ".way, .note").forEach((one) => one.remove());
      return copy.textContent;
    }).join(" ").trim();
    const words = (cell) => said(cell, ".v") || (cell.querySelector("a") || cell).textContent.trim();
    const title = (i) => words(heads[i].querySelector(".h")) + (heads[i].querySelector(".unit") ? `, ${heads[i].querySelector(".unit").textContent}` : "");
    const inert = (text) => /^[=+\-@\t\r]/.test(text) && isNaN(text) ? `'${text}` : text;
    const csv = () => {
      const { columns, rows: lines } = visible(), quoted = (text) => `"${inert(String(text)).replaceAll('"', '""')}"`;
      const ended = new Set(columns.filter((i) => lines.some((row) => row.cells[i].dataset.lo !== undefined)));
      const with_ends = (i, one, lo, hi) => (ended.has(i) ? [one, lo, hi] : [one]);
      return [columns.flatMap((i) => with_ends(i, title(i), `${title(i)}: from`, `${title(i)}: to`)),
        ...lines.map((row) => columns.flatMap((i) => {
          const { sort: own, lo = "", hi = "" } = row.cells[i].dataset;
          return with_ends(i, own === undefined ? words(row.cells[i]) : isNaN(own) ? own : +own, lo, hi);
        }))].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
    };
    /* A longtable that fits a page of text: heads wrap, intervals lie beneath, and the type is as small as it must be. */
    const LONGEST = 40;  // characters of a line of words
    const tex = () => {
      const special = { "\\": "\\textbackslash{}", "%": "\\%", "&": "\\&", _: "\\_", "#": "\\#", $: "\\$", "{": "\\{", "}": "\\}", "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}", "×": "$\\times$", "±": "$\\pm$", "−": "$-$", "Δ": "$\\Delta$", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "≈": "$\\approx$",
        "←": "$\\leftarrow$", "→": "$\\rightarrow$", "°": "$^\\circ$", "–": "--", "’": "'", "≥": "$\\geq$", "≤": "$\\leq$", "[": "{[}", "\u2009": "\\,", "\n": " " };
      const plain = (text) => [...text].map((one) => special[one] ?? (one >= " " && one <= "~" ? one : "")).join("").trim();
      const { columns, rows: lines } = visible();
      const right = (i) => heads[i].classList.contains("n");
      const beneath = (cell) => $$(cell, ".sub").map((node) => node.textContent.trim()).filter((text) => /^\[|× plain$/.test(text));
      const cells = lines.map((row) => columns.map((i) => [words(row.cells[i]), ...beneath(row.cells[i])].filter(Boolean)));
      const wide = columns.map((_, n) => Math.min(LONGEST, Math.max(0, ...cells.flatMap((row) => row[n].map((text) => text.length)))));
      const wrapped = columns.map((i, n) => {
        const found = [];
        for (const word of words(heads[i].querySelector(".h")).split(" ")) {
          const last = found.length - 1;
          if (last >= 0 && found[last].length + word.length < Math.max(wide[n], 6)) found[last] += ` ${word}`; else found.push(word);
        }
        const unit = heads[i].querySelector(".unit");
        return unit ? [...found, unit.textContent] : found;
      });
      wrapped.forEach((found, n) => { wide[n] = Math.max(wide[n], ...found.map((text) => text.length)); });
      const length = wide.reduce((a, b) => a + b, 0) + 2 * columns.length;
      const pages = [["small", 68], ["footnotesize", 76], ["scriptsize", 84], ["small", 112, "turned"], ["footnotesize", 122, "turned"],
        ["scriptsize", 134, "turned"], ["tiny", 158, "turned"], ["tiny", Infinity, "turned"]];
      const [size, room, turned] = pages.find(([, most]) => length <= most);
      const shape = columns.map((i, n) => (right(i) ? "r" : wide[n] < LONGEST ? "l" : `p{${LONGEST / 2}em}`)).join("");
      const stack = (text, n, at) => (text.length < 2 ? plain(text[0] || "")
        : `\\begin{tabular}[${at}]{@{}${right(columns[n]) ? "r" : "l"}@{}}${text.map(plain).join("\\\\")}\\end{tabular}`);
      const line = (row, at) => `${row.map((text, n) => stack(text, n, at)).join(" & ")} \\\\`;
      const air = cells.some((row) => row.some((text) => text.length > 1)) ? "\\addlinespace[3pt]" : "";  // tells rows of two lines apart
      const snapshot = document.querySelector('meta[name="snapshot"]').content;
      const caption = table.caption.querySelector(".cap").firstChild.textContent.trim();
      const head = ["\\toprule", line(wrapped, "b"), "\\midrule"];
      return [`% needs \\usepackage{booktabs,longtable${turned ? ",lscape" : ""}}`,
        ...(room === Infinity ? ["% wider than a turned page: choose fewer columns"] : []),
        `${turned ? "\\begin{landscape}" : ""}{\\${size}\\setlength{\\tabcolsep}{2pt}`,
        `\\begin{longtable}{${shape}}`,
        `\\caption{${plain(caption)} kdbench snapshot \\texttt{${snapshot}}.}\\\\`, ...head, "\\endfirsthead", ...head, "\\endhead", "\\bottomrule", "\\endfoot",
        ...cells.map((row) => line(row, "t") + air), `\\end{longtable}}${turned ? "\\end{landscape}" : ""}`, ""].join("\n");
    };

    const cited = () => [...new Set(visible().rows.map((row) => document.querySelector(`pre.bib[data-method="${row.dataset.method}"]`)))]
      .filter(Boolean).map((node) => node.textContent.trim()).filter((text, i, all) => all.indexOf(text) === i).join("\n\n") + "\n";

    /* Ticked rows lead to the page of comparisons, with these methods chosen there. */
    const [where, section] = (table.dataset.compare || "").split("#"), ticks = [];
    const lead = make("a", { class: "lead-on", hidden: true }, "");
    const ticked = () => ticks.filter((box) => box.checked).map((box) => box.value);
    const led = () => {
      const names = ticked();
      lead.hidden = !names.length;
      lead.textContent = names.length < 2 ? "1 ticked: tick another to compare" : `Compare ${names.length} ticked`;
      if (names.length < 2) lead.removeAttribute("href"); else lead.href = `${where}#!${new URLSearchParams({ [`${section}.m`]: names.join(",") })}`;
      keep(id, "ticks", names.join(","));
    };
    if (section) {
      const asked = kept_of(id, "ticks").split(",");
      for (const row of rows.filter((one) => "pick" in one.dataset)) {
        const name = row.dataset.method, box = make("input", { type: "checkbox", value: name, "aria-label": `Compare ${name}` });
        box.checked = asked.includes(name);
        box.addEventListener("change", led);
        ticks.push(box);
        row.cells[keys.indexOf("method")].prepend(make("label", { class: "pick", title: "Tick rows to compare them" }, box));
      }
    }

    const tools = make("div", { class: "tools" }, filter, ...kinds.filter((one) => one.useful).map((one) => one.node), levels.length > 1 ? level : "", choosable.length ? menu : "",
      make("button", { type: "button", onclick: () => save(`${id}.csv`, csv()) }, "CSV"),
      make("button", { type: "button", onclick: () => save(`${id}.tex`, tex()) }, "LaTeX"),
      document.querySelector("pre.bib") ? make("button", { type: "button", onclick: () => save(`${id}.bib`, cited()) }, "BibTeX") : "", count, lead);
    if (rows.length) table.closest(".scroll").before(tools);

    /* what the address asks for */
    filter.value = kept_of(id, "q");
    if (kept_of(id, "level")) level.value = kept_of(id, "level");
    for (const { what, node } of kinds) {
      const asked = kept_of(id, what);
      if ([...node.options].some((one) => one.value === asked)) node.value = asked;
    }
    if (choosable.length) {
      const asked = kept_of(id, "cols").split(",").filter((key) => keys.includes(key));
      if (asked.length) shown = new Set([...asked, "method"]);
      style(shown);
      boxes.forEach((box) => { box.checked = shown.has(box.value); });
    }
    const [key, way] = kept_of(id, "sort").split(".");
    if (key) sort(key, way === "down");
    narrow();
    if (section) led();
  };

  /* Heads stay in sight while a table is read: of a table wider than its box only a box of its own can hold them. */
  const fit = (box) => {
    const table = box.querySelector("table"), fits = table.offsetWidth <= box.clientWidth + 1;
    box.classList.toggle("fits", fits);
    box.classList.toggle("tall", !fits && table.offsetHeight > innerHeight);
  };

  /* A mark that had no room for its name has it while it is lit or after it was touched. */
  const call = (point) => {
    const svg = point.ownerSVGElement, name = point.dataset.method, old = point.querySelector(".called");
    const wanted = point.classList.contains("on") || point.classList.contains("touched");
    if (!wanted) { if (old) old.remove(); return; }
    if (old || $$(svg, "text.lbl").some((text) => text.dataset.method === name)) return;
    const text = document.createElementNS(svg.namespaceURI, "text"), mark = point.querySelector(".mark").getBBox();
    const left = mark.x > svg.viewBox.baseVal.width * 0.7;
    text.setAttribute("class", "lbl called");
    text.setAttribute("x", left ? mark.x - 5 : mark.x + mark.width + 5);
    text.setAttribute("y", mark.y + mark.height / 2 + 4);
    if (left) text.setAttribute("text-anchor", "end");
    text.textContent = name;
    point.append(text);
  };
  const touch = (svg) => svg.addEventListener("click", (event) => {
    const far = (point) => {
      const box = point.querySelector(".mark").getBoundingClientRect();
      return Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
    };
    const near = $$(svg, ".point:not(.off)").map((point) => [far(point), point]).sort(([a], [b]) => a - b)[0];
    for (const point of $$(svg, ".point")) {
      point.classList.toggle("touched", Boolean(near) && near[0] < 24 && point === near[1] && !point.classList.contains("touched"));
      call(point);
    }
  });

  /* A method lights up in its row and in the charts of its section. */
  const highlight = (event, on) => {
    const at = event.target.closest("[data-method]");
    if (!at) return;
    const section = at.closest("section") || document;
    for (const node of $$(section, "tr[data-method], .point")) {
      node.classList.toggle("on", on && node.dataset.method === at.dataset.method);
      if (node.closest("svg.pareto, svg.years")) call(node);
    }
  };

  /* Comparison of a chosen set: common tasks and means worked out anew. */
  const compare = (section) => {
    const deltas = section.querySelector(".deltas"), scores = section.querySelector(".scores"), note = section.querySelector(".common");
    const tasks = $$(scores.tHead, "th").slice(1).map((head) => head.textContent);
    const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
    const of = new Map($$(scores.tBodies[0], "tr").map((row) => [row.dataset.method,
      $$(row, "td").map((cell) => (cell.dataset.seeds ? cell.dataset.seeds.split(" ").map(Number) : null))]));
    /* Student's quantile by the page's table, between whose entries both logarithms run straight. */
    const known = section.dataset.t.split(" ").map((one) => one.split(":").map(Number));
    const quantile = (df) => {
      const n = known.findIndex(([at]) => at >= df - 1e-9);
      if (n < 0) return known[known.length - 1][1];
      const [[a, low], [b, high]] = [known[Math.max(n - 1, 0)], known[n]];
      return b === a ? high : Math.exp(Math.log(low) + (Math.log(high / low) * Math.log(Math.max(df, a) / a)) / Math.log(b / a));
    };
    /* Paired by seed on each task, tasks weighing the same: the mean difference and the ends of its 95 % interval. */
    const paired = (a, b, common) => {
      const parts = common.map((j) => {
        const x = a[j].map((value, n) => value - b[j][n]), m = mean(x), n = x.length;
        const size = Math.max(...a[j].map(Math.abs), ...b[j].map(Math.abs));
        const level = n < 2 || Math.max(...x) - Math.min(...x) <= 1e-9 * size;
        return { m, df: n - 1, error: level ? NaN : x.reduce((sum, one) => sum + (one - m) ** 2, 0) / (n - 1) / n };
      });
      const all = parts.reduce((sum, one) => sum + one.error, 0), middle = mean(parts.map((one) => one.m));
      const df = Math.max(all ** 2 / parts.reduce((sum, one) => sum + one.error ** 2 / one.df, 0), Math.min(...parts.map((one) => one.df)));
      const half = isNaN(all) ? NaN : (quantile(df) * Math.sqrt(all)) / parts.length;
      return { middle, lo: middle - half, hi: middle + half };
    };
    const ranked = $$(deltas.tBodies[0], "tr").map((row) => row.dataset.method), start = $$(deltas, ".d").map((node) => node.textContent);
    const asked = kept_of(section.id, "m").split(",").filter((name) => of.has(name));
    let chosen = new Set(asked.length ? asked : ranked);
    const MANY = 6;  // with more, a matrix of intervals is too wide to be read
    const digits = +deltas.dataset.digits;
    const show = (x) => (x > 0 ? "+" : "") + x.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");
    const verdict = (common) => {
      if (chosen.size !== 2 || !common.length) return "";
      const pair = ranked.filter((name) => chosen.has(name)), found = paired(...pair.map((name) => of.get(name)), common);
      const [first, second] = found.middle < 0 ? pair.reverse() : pair;
      const [lo, hi] = found.middle < 0 ? [-found.hi, -found.lo] : [found.lo, found.hi], unit = deltas.dataset.unit;
      if (isNaN(lo)) return ` ${first} is ahead of ${second} by ${show(Math.abs(found.middle)).replace("+", "")} ${unit}; their seeds tell no interval.`;
      if (lo <= 0) return ` ${first} and ${second} are not told apart: ${show(Math.abs(found.middle))} ${unit}, 95 % interval ${show(lo)} to ${show(hi)}.`;
      return ` ${first} is better than ${second} by ${show(Math.abs(found.middle)).replace("+", "")} ${unit}, 95 % interval ${show(lo)} to ${show(hi)}.`;
    };
    const draw = () => {
      const all = chosen.size === ranked.length && ranked.every((name) => chosen.has(name));
      const common = tasks.map((_, i) => i).filter((i) => [...chosen].every((name) => of.get(name)[i] !== null));
      for (const row of [...$$(deltas, "tbody tr"), ...$$(scores, "tbody tr")]) row.hidden = !chosen.has(row.dataset.method);
      for (const cell of $$(deltas, "[data-col]")) cell.hidden = !chosen.has(cell.dataset.col);
      $$(deltas, "tbody td").forEach((cell, i) => {
        const a = of.get(cell.parentNode.dataset.method), b = of.get(cell.dataset.col), text = cell.querySelector(".d"), mark = cell.querySelector(".sep");
        cell.querySelectorAll(".own").forEach((node) => node.remove());
        if (mark) mark.hidden = !all;
        if (all) { text.textContent = start[i]; return; }
        if (a === b || cell.hidden || cell.parentNode.hidden) return;
        if (!common.length) { text.textContent = "–"; return; }
        const { middle, lo, hi } = paired(a, b, common);
        text.textContent = show(middle);
        if (lo > 0 || hi < 0) cell.prepend(make("span", { class: `sep own${hi < 0 ? " wor" : ""}`, role: "img", "aria-label": `separated, ${hi < 0 ? "worse" : "better"}` }, hi < 0 ? "▼" : "▲"));
        if (chosen.size <= MANY) cell.append(make("span", { class: "sub own" }, isNaN(lo) ? "no interval" : `[${show(lo)}, ${show(hi)}]`));
      });
      note.textContent = chosen.size < 2 ? "Choose two methods or more."
        : `${chosen.size} methods, ${common.length} common task${common.length === 1 ? "" : "s"}${common.length ? `: ${common.map((i) => tasks[i]).join(", ")}` : ""}.${verdict(common)}`;
    };
    const boxes = section.querySelector(".choose");
    const set = (names) => {
      chosen = new Set(names);
      $$(boxes, "input").forEach((box) => { box.checked = chosen.has(box.value); });
      keep(section.id, "m", chosen.size === ranked.length ? "" : [...chosen].join(","));
      draw();
    };
    boxes.append(...[["All", ranked], ["None", []]].map(([word, names]) => make("button", { type: "button", onclick: () => set(names) }, word)));
    boxes.append(...[...of.keys()].filter((name) => ranked.includes(name)).map((name) => {
      const box = make("input", { type: "checkbox", value: name });
      box.checked = chosen.has(name);
      box.addEventListener("change", () => {
        if (box.checked) chosen.add(name); else chosen.delete(name);
        keep(section.id, "m", ranked.every((one) => chosen.has(one)) ? "" : [...chosen].join(","));
        draw();
      });
      return make("label", {}, box, name);
    }));
    draw();
  };

  document.addEventListener("DOMContentLoaded", () => {
    $$(document, ".js-only").forEach((node) => { node.hidden = false; });
    $$(document, "button.theme").forEach(themeButton);
    $$(document, "table.board").forEach(board);
    $$(document, "section.compare").forEach(compare);
    const asked = $$(document, "section.compare").find((one) => kept_of(one.id, "m"));
    if (asked) asked.scrollIntoView();
    $$(document, "svg.pareto, svg.years").forEach(touch);
    /* What a chart's marks mean stands beside it; on phones behind a click. */
    const phone = matchMedia("(max-width: 40rem)"), fold = () => $$(document, "details.reading").forEach((node) => { node.open = !phone.matches; });
    fold();
    phone.addEventListener("change", fold);
    const watch = new ResizeObserver((seen) => new Set(seen.map((one) => one.target.closest(".scroll"))).forEach(fit));
    const boxes = $$(document, ".scroll");
    for (const box of boxes) for (const node of [box, box.querySelector("table")]) watch.observe(node);
    addEventListener("resize", () => boxes.forEach(fit));
    $$(document, "figure").filter((node) => node.querySelector("svg.fig")).forEach(figure);
    for (const [kind, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) {
      document.addEventListener(kind, (event) => highlight(event, on));
    }
  });
})();
