/* The leaderboard's own behaviour; tables are DataTables'. All HTML is the page's own, escaped when it was written: nothing here makes any. */
(() => {
"use strict";
const root = document.documentElement;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const one = (selector, within = document) => within.querySelector(selector);
const form = one(".filters");
const heads = all("#board thead th");
const keys = heads.map(head => head.dataset.key);
const titles = heads.map(head => head.textContent);
/* Which columns are shown to begin with follows the screen. */
const phone = window.matchMedia("(max-width: 40rem)"), tablet = window.matchMedia("(max-width: 75rem)");
const fitting = head => !head.classList.contains("off") && (head.classList.contains("phone") || !phone.matches && (head.classList.contains("tablet") || !tablet.matches));
let usual = heads.map(fitting);
const rowOf = new Map(all("#board tbody tr").map(row => [row.dataset.key, row]));
form.hidden = false;
const tabs = all("[role=tab]");
const boardOf = row => row.dataset.board;
let board = tabs.length ? tabs[0].dataset.board : boardOf([...rowOf.values()][0]);

/* Exports of what is seen: visible columns, filtered rows, in their order. */
const visible = {
  columns: ":visible",
  modifier: { search: "applied", order: "applied", page: "all" },
  format: { header: (text, i, node) => (one(".dt-column-title", node) || node).textContent, body: (html, row, column, node) => (one("a", node) || node).textContent.replace(/\s+/g, " ").trim() },
};
const inert = text => /^[=+\-@\t\r]/.test(text) && !/^-?[\d.]*$/.test(text) ? "'" + text : text;
const TEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}", "\u2715": "$\\times$", "\u25b2": "$\\triangle$" };
const tex = text => text.replace(/[\\{}$&#_%~^<>\u2715\u25b2]/g, sign => TEX[sign] || "\\" + sign).replace(/ - (?=\d)/, "--");
function latex(data, align) {
  const line = cells => "  " + cells.map(tex).join(" & ") + " \\\\";
  return ["% needs \\usepackage{booktabs}", "\\begin{tabular}{" + align + "}", "  \\toprule", line(data.header), "  \\midrule", ...data.body.map(line), "  \\bottomrule", "\\end{tabular}", ""].join("\n");
}
function save(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
const exports_ = name => [
  { extend: "csv", text: "CSV", titleAttr: "Save what is shown as CSV", filename: name, newline: "\n", customize: text => text.trimEnd() + "\n",
    exportOptions: { ...visible, customizeData: data => { data.body = data.body.map(row => row.map(inert)); } } },
  { text: "LaTeX", titleAttr: "Save what is shown as a LaTeX table", action: (event, table) => {
    const align = table.columns(":visible").nodes().toArray().map(column => column[0] && column[0].classList.contains("text") ? "l" : "r");
    save(name + ".tex", latex(table.buttons.exportData(visible), align.join("")), "text/x-tex");
  } },
];
const table = new window.DataTable("#board", {
  autoWidth: false, order: [], pageLength: 50, paging: rowOf.size > 50, lengthMenu: [25, 50, 100, { label: "all", value: -1 }],
  columns: keys.map((name, i) => ({ name, visible: usual[i], orderSequence: heads[i].classList.contains("num") && name !== "rank" && !name.startsWith("m") ? ["desc", "asc", ""] : ["asc", "desc", ""] })),
  layout: {
    topStart: { buttons: [{ text: "Columns", className: "columns-button", attr: { "aria-expanded": "false", "aria-controls": "columns" }, action: () => unfoldColumns() }, ...exports_("leaderboard")] },
    topEnd: "search", bottomStart: rowOf.size > 50 ? ["info", "pageLength"] : "info", bottomEnd: rowOf.size > 50 ? "paging" : null,
  },
  language: { search: "Search", lengthMenu: "_MENU_ per page", zeroRecords: "No network passes the filters. Reset shows all of them." },
  infoCallback: (settings, start, end, max, total) => `${total} of ${[...rowOf.values()].filter(row => boardOf(row) === board).length} rows`,
});

/* The menu of columns stands in the page's flow, so that nothing can cut it off. */
const columns = one("#columns");
for (const [i, title] of titles.entries()) {
  const label = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox";
  box.addEventListener("change", () => table.column(i).visible(box.checked));
  label.append(box, title);
  columns.append(label);
}
const boxes = all("input", columns);
function unfoldColumns(on = columns.hidden) {
  const button = one(".columns-button");
  columns.hidden = !on;
  button.setAttribute("aria-expanded", on);
  if (on) boxes[0].focus(); else button.focus();
}
function showColumns(shown) {
  keys.forEach((key, i) => { if (table.column(i).visible() !== shown[i]) table.column(i).visible(shown[i], false); boxes[i].checked = shown[i]; });
}
for (const screen of [phone, tablet]) screen.addEventListener("change", () => {
  const untouched = keys.every((key, i) => table.column(i).visible() === usual[i]);
  usual = heads.map(fitting);
  if (untouched) { routing = true; showColumns(usual); routing = false; table.draw(false); }
});

/* A tab for each board: only its rows and charts are shown. */
const firstRow = name => [...rowOf.values()].find(row => boardOf(row) === name);
if (tabs.length) one("[role=tablist]").hidden = false;
function turn(name) {
  board = name;
  for (const tab of tabs) {
    const on = tab.dataset.board === name;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on ? 0 : -1;
    if (on) one("#panel").setAttribute("aria-labelledby", tab.id);
  }
  for (const each of all(".about-board")) each.hidden = each.dataset.board !== name;
}
/* Old links name dataset and threat model. */
function named(state) {
  const cells = row => ["dataset", "threat"].every(key => !state.get(key) || table.cell(row, keys.indexOf(key)).node().textContent === state.get(key));
  const asked = state.get("board") || state.has("dataset") && [...rowOf.values()].filter(cells).map(boardOf)[0];
  const of = state.get("model") && rowOf.get(state.get("model"));
  return firstRow(asked) ? asked : of ? boardOf(of) : tabs.length ? tabs[0].dataset.board : board;
}

/* What scrolls sideways is reached with keys. */
function reachable(part) {
  for (const box of all(".table, .dt-layout-table > .dt-layout-cell", part)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex");
  }
}

/* Rows that are picked are compared below the table. */
let picked = [];
const nameOf = key => one("td.model a", rowOf.get(key)).textContent;
const picks = all("#board input.pick");
function pickForComparison(wanted) {
  picked = wanted.filter(key => rowOf.has(key) && boardOf(rowOf.get(key)) === board);
  picked = picked.filter(key => comparison.fits(key, picked));
  for (const box of picks) {
    const key = box.closest("tr").dataset.key;
    box.hidden = false;
    box.checked = picked.includes(key);
    box.disabled = !comparison.fits(key, picked);
    box.title = box.disabled ? "has other images than those picked" : "";
  }
  const bar = one("#picked");
  bar.hidden = one("#compare").hidden = !picked.length;
  if (!picked.length) return bar.replaceChildren();
  const go = Object.assign(document.createElement("button"), { type: "button", textContent: "Show comparison", disabled: picked.length < 2 });
  const clear = Object.assign(document.createElement("button"), { type: "button", textContent: "Clear" });
  go.addEventListener("click", () => { one("#compare").scrollIntoView({ block: "start" }); one("#compare-title").focus({ preventScroll: true }); });
  clear.addEventListener("click", () => { const first = rowOf.get(picked[0]); pickForComparison([]); remember(); one("input.pick", first).focus({ preventScroll: true }); });
  bar.replaceChildren(picked.length === 1 ? "1 network picked; pick another to compare " : picked.length + " networks picked ", go, clear);
  one("#comparison").replaceChildren(...comparison.shown(picked, nameOf));
  reachable(one("#comparison"));
}
for (const box of picks) box.addEventListener("change", () => {
  const key = box.closest("tr").dataset.key;
  pickForComparison(box.checked ? [...picked, key] : picked.filter(each => each !== key));
  remember();
});

/* The address tells board, filters, search, order, columns, the rows picked and the model shown. */
const selects = ["network", "trust"];
const read = () => {
  const text = decodeURIComponent(location.hash.slice(1));
  return text.startsWith("m-") ? new URLSearchParams({ model: text.slice(2) }) : new URLSearchParams(location.hash.slice(1));
};
let routing = false;
function written(model) {
  const state = new URLSearchParams();
  if (model) state.set("model", model);
  if (tabs.length && board !== tabs[0].dataset.board) state.set("board", board);
  for (const name of [...selects, "max"]) if (form.elements[name].value) state.set(name, form.elements[name].value);
  if (table.search()) state.set("q", table.search());
  const order = table.order().filter(each => each[1]);
  if (order.length) state.set("sort", order.map(each => keys[each[0]] + "." + each[1]).join(","));
  const shown = keys.map((key, i) => table.column(i).visible());
  if (shown.some((each, i) => each !== usual[i])) state.set("columns", keys.filter((key, i) => shown[i]).join(","));
  if (picked.length) state.set("compare", picked.join(","));
  return "#" + state.toString();
}
function remember() {
  if (!routing) history.replaceState(null, "", written(read().get("model")));
}
function filter() {
  const kind = form.elements.network.value;
  table.column("network:name").search.fixed("filter", kind ? text => text === kind : null);
  table.search.fixed("board", tabs.length ? (text, data, i) => boardOf(table.row(i).node()) === board : null);
  const trust = form.elements.trust.value, most = form.elements.max.valueAsNumber;
  const at = keys.indexOf("mmacs");
  const costs = new Map([...rowOf.values()].map((row, i) => [i, Number(cost.get(row.dataset.key))]));
  table.search.fixed("trust", trust ? (text, data, i) => (table.row(i).node().classList.contains("ok")) === (trust === "unflagged") : null);
  table.search.fixed("cost", at >= 0 && Number.isFinite(most) ? (text, data, i) => costs.get(i) <= most : null);
  table.draw();
}
const cost = new Map(all("#board tbody tr").map(row => [row.dataset.key, one("td.mmacs", row)?.dataset.order]));
let drawn = null;
function show() {
  const seen = new Set(table.rows({ search: "applied" }).nodes().toArray().map(row => row.dataset.key));
  drawn = window.exitbenchCharts.show(seen);
  reachable(one("#panel"));
  remember();
}
function route() {
  const state = read(), model = state.get("model");
  routing = true;
  turn(named(state));
  for (const name of [...selects, "max"]) form.elements[name].value = state.get(name) || "";
  for (const name of selects) if (form.elements[name].selectedIndex < 0) form.elements[name].value = "";
  const wanted = state.get("columns") ? state.get("columns").split(",") : null;
  showColumns(keys.map((key, i) => wanted ? wanted.includes(key) : usual[i]));
  const order = (state.get("sort") || "").split(",").map(each => each.split(".")).map(([key, way]) => [keys.indexOf(key), way]);
  table.order(order.filter(([i, way]) => i >= 0 && (way === "asc" || way === "desc")));
  table.search(state.get("q") || "");
  filter();
  pickForComparison((state.get("compare") || "").split(",").filter(key => rowOf.has(key)));
  routing = false;
  const known = model !== null && rowOf.has(model);
  one("#notice").hidden = model === null || known;
  one("#notice").textContent = "The model that the link names is not on this leaderboard.";
  detail(known ? model : null);
}

/* Details: one at a time, in place of the board. Each waits as the text of a noscript, which costs nothing until it is opened. */
const texts = new Map(all("#details > noscript").map(each => [each.dataset.key, each]));
function unfold(key) {
  const text = texts.get(key);
  if (text) {
    texts.delete(key);
    text.insertAdjacentHTML("afterend", text.textContent);
    for (const each of all("button.copy", text.nextElementSibling)) each.hidden = false;
  }
  return document.getElementById("m-" + key);
}
let from = null, scrolled = 0;
function detail(key) {
  const before = one("#details > .shown");
  if (before) before.classList.remove("shown");
  if (key && !root.classList.contains("detail")) scrolled = window.scrollY;
  root.classList.toggle("detail", key !== null);
  one("#details").setAttribute("role", key === null ? "presentation" : "main");
  if (!key) {
    document.title = "exitbench leaderboard";
    if (before) { window.scrollTo({ top: scrolled, behavior: "instant" }); if (from) from.focus({ preventScroll: true }); }
    return;
  }
  const model = unfold(key), heading = one("h2", model);
  model.classList.add("shown");
  model.open = true;
  window.exitbenchCharts.start(model);
  one(".back a", model).href = written(null);
  for (const each of all("table.sortable:not(.dataTable)", model)) new window.DataTable(each, {
    autoWidth: false, order: [], paging: false, info: false, searching: false, layout: { topStart: { buttons: exports_(each.dataset.name) }, topEnd: null, bottomStart: null, bottomEnd: null },
  });
  reachable(model);
  document.title = one("summary", model).textContent + " - exitbench";
  window.scrollTo({ top: 0, behavior: "instant" });
  heading.focus({ preventScroll: true });
}
document.addEventListener("click", event => {
  const link = event.target.closest("#board td.model a");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    from = link;
    location.hash = written(link.closest("tr").dataset.key);
  }
  const copy = event.target.closest("button.copy");
  if (copy) {
    const text = one("code", copy.parentNode);
    const done = () => { copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1500); };
    const select = () => { getSelection().selectAllChildren(text); copy.textContent = "Selected"; };
    if (navigator.clipboard) navigator.clipboard.writeText(text.textContent).then(done, select); else select();
  }
});

/* Rows and markers point at each other. */
const twins = key => all(".pt[data-key]").filter(each => each.dataset.key === key);
function pick(key) {
  const row = rowOf.get(key);
  if (!row || root.classList.contains("detail")) return;
  for (const each of all(".picked")) each.classList.remove("picked");
  for (const each of [row, ...twins(key)]) each.classList.add("picked");
  const place = table.rows({ search: "applied", order: "applied" }).nodes().toArray().indexOf(row);
  if (table.page.len() > 0) table.page(Math.floor(place / table.page.len())).draw("page");
  row.scrollIntoView({ block: "center" });
  one("td.model a", row).focus({ preventScroll: true });
}
function light(key, on) {
  for (const each of [rowOf.get(key), ...twins(key)]) each.classList.toggle("on", on);
}
const tip = one("#tip");
function tell(owner) {
  tip.hidden = !owner;
  if (!owner) return;
  tip.textContent = owner.dataset.tip;
  const at = owner.getBoundingClientRect(), size = tip.getBoundingClientRect();
  tip.style.left = Math.max(6, Math.min(at.x + at.width / 2 - size.width / 2, root.clientWidth - size.width - 6)) + "px";
  tip.style.top = (at.y > size.height + 12 ? at.y - size.height - 8 : at.bottom + 8) + "px";
}
let lit = null;
function shine(asked) {
  const key = rowOf.has(asked) ? asked : null;
  if (lit === key) return;
  if (lit) light(lit, false);
  if (key) light(key, true);
  lit = key;
}
let pointer = "";
document.addEventListener("mousemove", event => {
  const at = event.clientX + " " + event.clientY;
  if (at === pointer) return; // the page moved, not the mouse
  pointer = at;
  const panel = event.target.closest(".plot"), mark = panel && window.exitbenchCharts.nearest(panel, event), row = event.target.closest("#board tbody tr");
  if (panel) panel.classList.toggle("near", Boolean(mark));
  tell(mark || event.target.closest("[data-tip]"));
  shine(mark && rowOf.has(mark.dataset.key) ? mark.dataset.key : row && row.dataset.key || null);
});
document.addEventListener("focusin", event => {
  const owner = event.target.closest("[data-tip]"), row = event.target.closest("#board tbody tr");
  tell(owner);
  shine((owner || row)?.dataset.key || null);
});
document.addEventListener("focusout", () => { tip.hidden = true; shine(null); });
document.addEventListener("scroll", () => { if (!tip.hidden) tell(document.activeElement.closest("[data-tip]")); }, { passive: true });
document.addEventListener("exitbench-pick", event => pick(event.detail));
one("#board tbody").addEventListener("keydown", event => {
  const links = all("#board tbody td.model a"), i = links.indexOf(event.target);
  const next = { ArrowDown: i + 1, ArrowUp: i - 1, Home: 0, End: links.length - 1 }[event.key];
  if (i >= 0 && links[next]) { links[next].focus(); event.preventDefault(); }
});
document.addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  tip.hidden = true;
  if (!columns.hidden) unfoldColumns(false);
  else if (root.classList.contains("detail")) location.hash = written(null);
});

for (const tab of tabs) {
  const go = name => { turn(name); pickForComparison([]); filter(); };
  tab.addEventListener("click", () => go(tab.dataset.board));
  tab.addEventListener("keydown", event => {
    const i = tabs.indexOf(tab), last = tabs.length - 1;
    const next = tabs[{ ArrowRight: i === last ? 0 : i + 1, ArrowLeft: i ? i - 1 : last, Home: 0, End: last }[event.key]];
    if (!next) return;
    event.preventDefault();
    next.focus();
    go(next.dataset.board);
  });
}
one("a.skip").addEventListener("click", event => { event.preventDefault(); one("#board thead [tabindex], #board td.model a").focus(); });
for (const each of all("header button.copy")) each.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => { table.search("").order([]); turn(board); filter(); }));
window.addEventListener("hashchange", route);
let length = null;
window.addEventListener("beforeprint", () => { length = table.page.len(); table.page.len(-1).draw(); });
window.addEventListener("afterprint", () => { table.page.len(length).draw(); });
table.on("draw", show);
table.on("column-visibility", (event, settings, i, on) => { boxes[i].checked = on; remember(); });
route();
root.classList.remove("waiting");
Promise.resolve(drawn).finally(() => performance.mark("exitbench-ready"));
})();
