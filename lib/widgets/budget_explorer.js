// What MHA, GQA, MQA and MLA keep and compute for one new token, as heads and ranks are moved.
// plane.js and controls.js stand before this in the module; the formulas stand in the Python file.

const BYTES = 2;  // a number, in bfloat16
const powers = (from, to) => Array.from({ length: Math.log2(to / from) + 1 }, (_, i) => from * 2 ** i);
const halves = (from, to) => powers(from, to).flatMap((n) => [n, 1.5 * n]);
const STOPS = {
  n_heads: [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256], context: powers(1, 2 ** 20),
  n_layers: [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 60, 61, 80, 96, 128],
  head_dim: halves(2, 256), kv_lora_rank: halves(2, 2048), qk_rope_head_dim: halves(2, 128),
  qk_nope_head_dim: halves(2, 256), v_head_dim: halves(2, 256),
};
const GROUPS = [
  ["All", { n_heads: "Query heads H", context: "Context S", n_layers: "Layers L" }],
  ["MHA, GQA, MQA", { head_dim: "Head width D", n_kv_heads: "Key heads K, GQA" }],
  ["MLA", { kv_lora_rank: "Latent R", qk_rope_head_dim: "Rotary key P", qk_nope_head_dim: "Plain key N",
    v_head_dim: "Value V" }],
];
const NAMES = Object.assign({}, ...GROUPS.map(([, names]) => names));

// For each variant: numbers cached a token and layer, and the FLOPs of one new token in a layer.
function budget(c) {
  const { n_heads: H, head_dim: D, n_kv_heads: K, kv_lora_rank: R, qk_rope_head_dim: P,
    qk_nope_head_dim: N, v_head_dim: V, context: S } = c;
  const plain = (name, heads) => ({ name, role: "key", numbers: 2 * heads * D,
    parts: { up: 0, scores: 2 * H * D * S, values: 2 * H * D * S } });
  const up = 2 * H * R * (N + V);  // W_UK and W_UV for one token
  const latent = (name, parts) => ({ name, role: "latent", numbers: R + P, parts });
  return [plain("MHA", H), plain(`GQA (K = ${K})`, K), plain("MQA", 1),
    latent("MLA naive", { up: S * up, scores: 2 * H * (N + P) * S, values: 2 * H * V * S }),
    latent("MLA absorbed", { up, scores: 2 * H * (R + P) * S, values: 2 * H * R * S }),
  ].map((kind) => {
    const flops = kind.parts.up + kind.parts.scores + kind.parts.values;
    const token = BYTES * kind.numbers * c.n_layers;
    return { ...kind, flops, token, cache: token * S, intensity: flops / (BYTES * kind.numbers * S) };
  });
}

// The context from which absorbed needs fewer FLOPs than naive for one new token; or Infinity.
function breakEven({ kv_lora_rank: R, qk_nope_head_dim: N, v_head_dim: V }) {
  const each = (R + 1) * (N + V) - 2 * R;  // what a token of context saves, less W_UK and W_UV once
  return each > 0 ? Math.floor((R * (N + V)) / each) + 1 : Infinity;
}

// The number of new tokens, read at once at the end of the context, from which naive needs fewer;
// or Infinity. Query t of them sees S - T + t tokens.
function newTokens({ kv_lora_rank: R, qk_nope_head_dim: N, v_head_dim: V, context: S }) {
  const naiveWins = (T) =>
    (T * S - (T * (T - 1)) / 2) * (2 * R - N - V) > (S - T) * R * (N + V);
  let [low, high] = [1, S];
  if (!naiveWins(high)) return Infinity;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (naiveWins(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

// The places of a slider: round numbers, the models' own, and where it stands now.
function stopsOf(name, sizes, models) {
  if (name === "n_kv_heads") {  // what divides the query heads
    return Array.from({ length: sizes.n_heads }, (_, i) => i + 1).filter((n) => sizes.n_heads % n === 0);
  }
  const own = name === "context" ? [] : models.map(({ config }) => config[name]);
  return [...new Set([...STOPS[name], ...own, sizes[name]])].sort((a, b) => a - b);
}

// The sizes after one is moved; key heads follow, for they must divide the query heads.
function moved(sizes, name, value) {
  const next = { ...sizes, [name]: value };
  next.n_kv_heads = stopsOf("n_kv_heads", next).filter((n) => n <= sizes.n_kv_heads).at(-1);
  return name === "n_kv_heads" ? { ...sizes, n_kv_heads: value } : next;
}

// Three digits and a thousand's letter: 70272 -> "70.3 k", with a unit "70.3 kB".
function short(n, unit = "") {
  const letters = ["", "k", "M", "G", "T", "P"];  // a number that rounds up to the next belongs to it
  const i = letters.findLastIndex((_, i) => i === 0 || n >= 0.9995 * 1000 ** i);
  return `${Number((n / 1000 ** i).toPrecision(3))} ${letters[i]}${unit}`.trim();
}
const brief = (x) => (x < 999.5 ? String(Number(x.toPrecision(3))) : full(Math.round(x)));
const times = (x) => (x < 1 ? `1/${brief(1 / x)} of` : `${brief(x)} times`);

// Bars on a scale of powers of ten; `show(kinds, key, title)`.
function makeBars(unit) {
  const caption = html("figcaption"), bars = html("div", { class: "b2l-budget-bars", role: "img" });
  const show = (kinds, key, title) => {
    const logs = kinds.map((kind) => Math.log10(kind[key]));
    const low = Math.ceil(Math.min(...logs)) - 1, high = Math.max(Math.ceil(Math.max(...logs)), low + 1);
    const across = (log) => (100 * (log - low)) / (high - low);
    const step = Math.ceil((high - low) / 5);
    const ticks = Array.from({ length: Math.floor((high - low) / step) + 1 }, (_, i) => low + i * step);
    caption.replaceChildren(html("b", {}, title), html("br"),
      `each line is ${full(10 ** step)} times the one before`);
    bars.setAttribute("aria-label",
      `${title}: ${kinds.map((kind) => `${kind.name} ${short(kind[key], unit)}`).join(", ")}`);
    bars.replaceChildren(...kinds.flatMap((kind, i) => [html("span", {}, kind.name),
      html("div", {}, html("i", { class: `b2l-${kind.role}-bar`, style: `width: ${across(logs[i])}%` }),
        ...ticks.map((log) => html("em", { style: `left: ${across(log)}%` }))),
      html("b", {}, short(kind[key], unit))]),
    html("div", { class: "b2l-budget-ticks" }, ...ticks.map((log) => html("span",
      { style: `left: ${across(log)}%` }, short(10 ** log)))));
  };
  return { root: html("figure", {}, caption, bars), show };
}

function render({ model, el }) {
  const models = model.get("models");
  function change(sizes, chosen = model.get("chosen")) {
    model.set("chosen", chosen);
    model.set("sizes", sizes);
    model.save_changes();
  }
  const start = (i) => change({ ...models[i].config, context: model.get("sizes").context }, i);
  const menu = makeMenu("Start from", models.map(({ name }, i) => [i, name]), start);
  const again = makeButton("Back to its own sizes", () => start(model.get("chosen")));
  const sliders = Object.entries(NAMES).map(([name, label]) => {
    let stops = [];
    const slider = makeSlider(label, (i) => change(moved(model.get("sizes"), name, stops[i])));
    const show = (sizes) => {
      stops = stopsOf(name, sizes, models);
      slider.show(stops.indexOf(sizes[name]), stops.length - 1, full(sizes[name]));
    };
    return { name, row: slider.row, show };
  });
  const groups = GROUPS.map(([title, names]) => html("div", { role: "group", "aria-label": title },
    html("b", {}, title), ...sliders.filter(({ name }) => name in names).map(({ row }) => row)));
  const held = makeBars("B"), spent = makeBars();
  const th = (text, scope = "col") => html("th", { scope }, text);
  const body = html("tbody"), columns = ["variant", "numbers a token and layer", "bytes a token", "bytes at S",
    "FLOPs a layer", "FLOPs a cached byte"];
  const table = html("table", {}, html("thead", {}, html("tr", {}, ...columns.map((name) => th(name)))), body);
  const reads = html("p", { class: "b2l-reads", "aria-hidden": "true" }), facts = html("ul"), said = makeSaid();
  mount({ model, el }, "b2l-budget",
    html("div", { class: "b2l-budget-start" }, menu.row, again.button),
    html("div", { class: "b2l-budget-sizes" }, ...groups), reads, held.root, spent.root, facts,
    html("div", { class: "b2l-scroll", tabindex: 0, role: "group", "aria-label": "Exact numbers" }, table),
    html("p", { class: "b2l-small" }, "Two bytes a number; bytes in all layers. FLOPs: scores, weighted values, " +
      "W_UK and W_UV for one new token, a multiply-add is 2. FLOPs a cached byte: maps and rebuilt keys not counted."), said);

  function drawFacts(c, kinds) {
    const [mha, , , naive, absorbed] = kinds, even = breakEven(c), many = newTokens(c);
    const fact = (...parts) => html("li", {}, ...parts);
    facts.replaceChildren(
      fact("Same cache as MLA: GQA with ", html("b", {}, brief(absorbed.numbers / (2 * c.head_dim))), " key heads."),
      fact("One new token: absorbed needs fewer FLOPs than naive ", html("b", {}, even === Infinity ?
        "at no context" : `from ${full(even)} tokens of context`),
      `; at ${full(c.context)} it needs ${times(absorbed.flops / naive.flops)} naive's.`),
      fact("Many new tokens at once, at the end of this context: naive needs fewer ", html("b", {},
        many === Infinity ? "never" : `from ${full(many)} on`), "."),
      fact("Absorbed MLA takes ", html("b", {}, times(absorbed.flops / mha.flops)), " the FLOPs of MHA, for ",
        html("b", {}, times(absorbed.numbers / mha.numbers)), " the bytes."));
  }

  return follow(model, ["sizes", "chosen"], said, () => {
    const sizes = model.get("sizes"), kinds = budget(sizes), [mha, gqa, mqa, , mla] = kinds;
    menu.show(model.get("chosen"));
    const { config } = models[model.get("chosen")];
    again.show(Object.keys(config).some((name) => config[name] !== sizes[name]));
    for (const { show } of sliders) show(sizes);
    const S = full(sizes.context);
    held.show(kinds.slice(0, 4).map((kind, i) => (i < 3 ? kind : { ...kind, name: "MLA" })), "cache",
      `Cache at context ${S}, all layers`);
    spent.show(kinds, "flops", `FLOPs of one new token at context ${S}, a layer`);
    body.replaceChildren(...kinds.map((kind) => html("tr", {}, th(kind.name, "row"),
      ...[full(kind.numbers), full(kind.token), full(kind.cache), full(kind.flops), brief(kind.intensity)]
        .map((text) => html("td", {}, text)))));
    drawFacts(sizes, kinds);
    reads.textContent = `A token leaves ${full(mla.numbers)} numbers a layer with MLA, ${full(mha.numbers)} with MHA, ` +
      `${full(gqa.numbers)} with ${gqa.name}, ${full(mqa.numbers)} with MQA.`;
    return `${reads.textContent} At context ${S} MLA keeps ${short(mla.cache, "B")}, absorbed it takes ${short(mla.flops)} FLOPs a layer.`;
  });
}

export { breakEven, budget, moved, newTokens, short };
export default { render };
