/* The charts: Vega draws them from the specification in the page; here is what a reader does with them. */
(() => {
"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const one = (selector, within = document) => within.querySelector(selector);
const source = one("#chart-spec");
if (!source) return;
const { panel: PANEL, costs: COSTS, shares: SHARES, light: LIGHT, ...WHOLE } = JSON.parse(source.textContent);
const copy = value => JSON.parse(JSON.stringify(value));
const give = (signals, values) => { for (const each of signals) if (each.name in values) each.value = values[each.name]; };

/* Names stand beside a wide panel and below a narrow one; letters keep their size. */
const WIDE = 620, AXIS = 42, FONT = 12;
function size(width) {
  if (width < WIDE) return { w: width - AXIS, h: Math.max(200, 0.62 * width), names: "below", font: FONT };
  const nameWidth = Math.min(290, 0.42 * width), w = width - AXIS - nameWidth - 46;
  return { w, h: Math.min(340, Math.max(240, 0.75 * w)), names: "right", nameWidth, font: FONT };
}

class Panel {
  constructor(chart, figure) {
    this.chart = chart;
    this.figure = figure;
    this.plot = one(".plot", figure);
    this.share = one("select[name=share]", figure);
    this.width = 0;
    this.share.addEventListener("change", () => this.draw());
    for (const button of all("button[data-save]", figure)) button.addEventListener("click", () => this.save(button.dataset.save));
    new ResizeObserver(() => { if (Math.abs(this.plot.clientWidth - this.width) > 2) this.draw(); }).observe(this.plot);
  }
  spec() {
    const { cost, log } = this.chart.across(), share = this.share.value, spec = copy(WHOLE), panel = copy(PANEL);
    give(spec.signals, { ...size(this.width), x: cost, xTitle: COSTS[cost], logX: log });
    give(panel.signals, { y: share, yTitle: SHARES[share] });
    panel.scales[0].type = log ? "log" : "linear";
    spec.marks = [panel];
    spec.description = SHARES[share] + " in percent against " + COSTS[cost];
    for (const data of spec.data) data.values = copy(this.chart.seen(data.name));
    return spec;
  }
  draw() {
    this.width = this.plot.clientWidth;
    if (this.width < 50) return Promise.resolve();
    if (this.view) this.view.finalize();
    const parsed = window.vega.parse(this.spec(), null, { ast: true });
    this.view = new window.vega.View(parsed, { expr: window.vega.expressionInterpreter, renderer: "svg", container: this.plot, hover: false });
    return this.view.runAsync().then(view => { if (view === this.view) this.mark(); });
  }
  /* What Vega drew becomes what a reader points at, tabs to and hears. */
  mark() {
    const marks = all(".networks > path", this.plot), focused = document.activeElement?.dataset.key;
    for (const each of marks) {
      const { datum } = each.__data__;
      each.classList.add("pt");
      each.dataset.key = datum.key;
      each.dataset.tip = datum.tip;
      each.setAttribute("role", "button");
      each.setAttribute("aria-label", datum.tip.replaceAll("\n", ", "));
      each.removeAttribute("aria-roledescription");
      each.setAttribute("tabindex", -1);
    }
    const first = marks.find(each => each.dataset.key === focused) || marks[0];
    if (first) first.setAttribute("tabindex", 0);
    for (const each of all(".rules > path", this.plot)) each.dataset.tip = each.__data__.datum.tip;
  }
  async save(kind) {
    const svg = (await this.view.toSVG()).replace(/var\((--[a-z0-9]+)\)/g, (text, name) => LIGHT[name]);
    const name = [this.chart.name, this.share.value, this.chart.across().cost].join("-") + "." + kind;
    if (kind === "svg") return save(name, new Blob([svg], { type: "image/svg+xml" }));
    const image = new Image();
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(svg);
    await image.decode();
    const canvas = document.createElement("canvas"), scale = 3;
    canvas.width = scale * image.width;
    canvas.height = scale * image.height;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob(blob => save(name, blob), "image/png");
  }
}

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

let shown = null; // keys of the rows that pass the filters; null before the table has said
class Chart {
  constructor(section) {
    this.section = section;
    this.name = section.dataset.name;
    this.follows = section.dataset.follows !== undefined;
    this.data = JSON.parse(one("script.chart-data", section).textContent);
    this.tools = one(".chart-tools", section);
    this.panels = all(".panel", section).map(figure => new Panel(this, figure));
    this.tools.addEventListener("change", () => { for (const each of this.panels) each.draw(); });
    for (const each of all(".chart-tools, .panel-tools", section)) each.hidden = false;
  }
  across() {
    return { cost: one("select", this.tools).value, log: one("input", this.tools).checked };
  }
  seen(name) {
    const found = this.data[name];
    return this.follows && shown ? found.filter(each => shown.has(each.key)) : found;
  }
  show() {
    const any = this.seen("rows").length > 0;
    if (this.follows) (this.section.closest(".chart") || this.section).hidden = !any;
    return any ? Promise.all(this.panels.map(each => each.draw())) : Promise.resolve();
  }
}

const charts = [];
function start(within) {
  const found = all("[data-chart]", within).filter(each => !charts.some(chart => chart.section === each)).map(each => new Chart(each));
  charts.push(...found);
  return Promise.all(found.map(each => each.show()));
}

/* Rows and markers point at each other. Markers may lie over each other: the nearest to the pointer is meant. */
const REACH = 14;
const live = panel => all(".pt", panel);
const centre = mark => { const box = mark.getBoundingClientRect(); return { x: box.x + box.width / 2, y: box.y + box.height / 2 }; };
function nearest(panel, event) {
  let found = null, least = REACH;
  for (const mark of live(panel)) {
    const at = centre(mark), away = Math.hypot(at.x - event.clientX, at.y - event.clientY);
    if (away < least) { found = mark; least = away; }
  }
  return found;
}
const pick = key => document.dispatchEvent(new CustomEvent("exitbench-pick", { detail: key }));
document.addEventListener("click", event => {
  const panel = event.target.closest?.(".plot"), mark = panel && nearest(panel, event);
  if (mark) pick(mark.dataset.key);
});
document.addEventListener("keydown", event => {
  const mark = event.target.closest?.(".pt");
  if (!mark) return;
  if (event.key === "Enter" || event.key === " ") { pick(mark.dataset.key); event.preventDefault(); return; }
  const near = live(mark.closest(".plot")).sort((a, b) => centre(a).x - centre(b).x), i = near.indexOf(mark);
  const next = near[{ ArrowRight: i + 1, ArrowDown: i + 1, ArrowLeft: i - 1, ArrowUp: i - 1, Home: 0, End: near.length - 1 }[event.key]];
  if (!next) return;
  mark.setAttribute("tabindex", -1);
  next.setAttribute("tabindex", 0);
  next.focus();
  event.preventDefault();
});

window.exitbenchCharts = {
  nearest,
  start,
  show(keys) {
    const before = charts.filter(each => each.follows);
    shown = keys;
    return Promise.all([start(document), ...before.map(each => each.show())]);
  },
};
})();
