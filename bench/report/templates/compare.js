/* Compares picked rows sample by sample. All text is set as text: nothing here makes HTML. */
const comparison = (() => {
"use strict";
const LISTED = 400; // samples named of each kind
const data = JSON.parse(document.getElementById("verdicts").textContent);
const make = (name, text, properties) => Object.assign(document.createElement(name), text === undefined ? {} : { textContent: text }, properties);
const share = (k, n) => (100 * k / n).toFixed(1);
const signed = value => (value < 0 ? "\u2212" : "+") + Math.abs(100 * value).toFixed(1);
const small = p => p < 0.0001 ? "< 0.0001" : p.toFixed(4);
/* Rows that can be compared with those picked: of the same samples and threat model. */
const fits = (key, picked) => !picked.length || data[key].group === data[picked[0]].group;
/* Verdicts on clean images, and in the worst case over the attacks that all of the rows faced. */
function verdicts(keys) {
  const common = Object.keys(data[keys[0]].attacks).filter(attack => keys.every(key => attack in data[key].attacks));
  const rows = keys.map(key => {
    const { n, clean, attacks } = data[key], right = paired.bits(clean, n);
    return { key, n, clean: right, worst: common.reduce((left, attack) => paired.both(left, paired.bits(attacks[attack], n)), right) };
  });
  const all = new Set(keys.flatMap(key => Object.keys(data[key].attacks)));
  return { rows, common: common.length, apart: all.size - common.length };
}
/* Row b against row a, in figures. */
function pair(a, b) {
  const gone = paired.lost(a, b), won = paired.lost(b, a);
  return { ...paired.newcombe(a, b), gone, won, p: paired.mcnemar(gone.length, won.length) };
}
const HEADS = ["network", "worst case %", "difference", "95 % interval", "p (McNemar)", "more images broken", "fewer images broken", "clean %", "difference"];
const CLEAN = HEADS.indexOf("clean %");
function table(rows, names, attacked) {
  const made = make("table"), head = made.createTHead().insertRow(), body = made.createTBody();
  const shown = i => attacked || !i || i >= CLEAN;
  HEADS.forEach((each, i) => { if (shown(i)) head.append(make("th", each, { scope: "col", className: i ? "" : "text" })); });
  rows.forEach((row, i) => {
    const line = body.insertRow(), first = rows[0], clean = pair(first.clean, row.clean), worst = pair(first.worst, row.worst);
    line.append(make("th", names(row.key), { scope: "row", className: "text" }));
    const against = [signed(worst.difference), signed(worst.low) + " to " + signed(worst.high), small(worst.p), worst.gone.length, worst.won.length];
    const cells = [share(paired.count(row.worst), row.n), ...i ? against : against.map(() => ""), share(paired.count(row.clean), row.n), i ? signed(clean.difference) : ""];
    cells.forEach((each, j) => { if (shown(j + 1)) line.insertCell().textContent = each; });
  });
  return made;
}
function flips(rows, names) {
  return rows.slice(1).flatMap(row => {
    const { gone, won } = pair(rows[0].worst, row.worst), a = names(rows[0].key), b = names(row.key);
    return [[`Broken in ${b}, not in ${a}`, gone], [`Broken in ${a}, not in ${b}`, won]].map(([title, found]) => {
      const details = make("details"), more = found.length - LISTED;
      details.append(make("summary", `${title}: ${found.length === 1 ? "1 image" : found.length + " images"}`));
      details.append(make("p", found.length ? "Numbers in the test split, from 0: " + found.slice(0, LISTED).join(", ") + (more > 0 ? ` and ${more} more` : "") : "There are none.", { className: "samples" }));
      return details;
    });
  });
}
/* What is shown of the rows picked, the first of which the others are compared with. */
function shown(keys, names) {
  if (keys.length < 2) return [make("p", keys.length ? `Pick another network to compare with ${names(keys[0])}.` : "Pick two networks or more in the table.", { className: "empty" })];
  const { rows, common, apart } = verdicts(keys), others = keys.length > 2 ? "The others are" : names(keys[1]) + " is";
  const over = common ? `The worst case is over the ${common === 1 ? "one attack" : common + " attacks"} that all of them faced${apart ? `; ${apart} that only some faced are left out` : ""}.` : "They have no attack in common, so that only clean images are compared.";
  const box = make("div", undefined, { className: "table" });
  box.append(table(rows, names, common > 0));
  const same = make("p", `On the same ${rows[0].n} images. ${others} compared with ${names(keys[0])}, image by image. ${over} More images broken: correct there, wrong here. Intervals are Newcombe's for paired shares, 95 %; p is of the exact McNemar test, for this pair alone.`, { className: "legend" });
  return [box, same, ...common ? flips(rows, names) : []];
}
return { fits, shown, verdicts, pair };
})();
