/* Statistics of paired verdicts, the same as in exitbench.stats: Wilson's and Newcombe's intervals, the exact McNemar test. */
const paired = (() => {
"use strict";
const Z = 1.959963984540054, Z2 = Z ** 2;
/* The first n bits of bytes in base64, as 0 and 1. */
function bits(text, n) {
  const bytes = atob(text);
  return Uint8Array.from({ length: n }, (_, i) => bytes.charCodeAt(i >> 3) >> (7 - i % 8) & 1);
}
const count = verdicts => verdicts.reduce((sum, each) => sum + each, 0);
const both = (a, b) => a.map((each, i) => each & b[i]);
const lost = (a, b) => [...a.keys()].filter(i => a[i] && !b[i]);
function wilson(k, n) {
  const p = k / n, centre = (p + Z2 / (2 * n)) / (1 + Z2 / n);
  const half = Z / (1 + Z2 / n) * Math.sqrt(p * (1 - p) / n + Z2 / (4 * n ** 2));
  return [k === 0 ? 0 : centre - half, k === n ? 1 : centre + half];
}
/* Method 10 of Newcombe (1998) for the share of b minus that of a. */
function newcombe(a, b) {
  const n = a.length, common = count(both(a, b)), won = count(b) - common, gone = count(a) - common, neither = n - common - won - gone;
  const margins = (common + gone) * (won + neither) * (common + won) * (gone + neither);
  const excess = common * neither - gone * won;
  const phi = margins === 0 ? 0 : (excess > 0 ? Math.max(excess - n / 2, 0) : excess) / Math.sqrt(margins);
  const joined = (one, other) => Math.sqrt(Math.max(0, one ** 2 - 2 * phi * one * other + other ** 2));
  const pa = (common + gone) / n, pb = (common + won) / n, [la, ha] = wilson(common + gone, n), [lb, hb] = wilson(common + won, n);
  const difference = (won - gone) / n;
  return { difference, low: Math.max(-1, difference - joined(pb - lb, ha - pa)), high: Math.min(1, difference + joined(hb - pb, pa - la)) };
}
function mcnemar(gone, won) {
  const n = gone + won, fewer = Math.min(gone, won);
  let log = -n * Math.LN2, sum = 0;
  for (let k = 0; k <= fewer; k++) {
    sum += Math.exp(log);
    log += Math.log((n - k) / (k + 1));
  }
  return Math.min(1, 2 * sum);
}
return { bits, count, both, lost, wilson, newcombe, mcnemar };
})();
