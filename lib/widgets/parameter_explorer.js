// Parameters and FLOPs per token by part, as a model's sizes are moved. plane.js stands before this
// in the module.

const QUIET = { "data-lm-suppress-shortcuts": "true" };  // or JupyterLab takes single keys
const SAY_AFTER = 600;  // ms of rest before the summary is spoken
const PARTS = [  // key, name, short name in a bar, role of its colour
  ["embedding", "Embedding", "embed", "position"],
  ["positions", "Positions", "pos", "latent"],
  ["attention", "Attention", "attention", "query"],
  ["scores", "Attention scores", "scores", "key"],
  ["feed_forward", "Feed-forward", "feed-forward", "value"],
  ["norms", "Norms", "norms", "muted"],
  ["head", "Head", "head", "output"],
];
const NAMES = { n_layers: "Layers", d_model: "d_model", n_heads: "Query heads", head_dim: "head_dim",
  n_kv_heads: "KV heads", d_ff: "d_ff", vocab_size: "Vocabulary", context: "Context" };
const powers = (from, to) => Array.from({ length: Math.log2(to / from) + 1 }, (_, i) => from * 2 ** i);
const halves = (from, to) => powers(from, to).flatMap((n) => [n, 1.5 * n]);
const STOPS = {
  n_layers: [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128],
  d_model: halves(64, 16384), n_heads: [1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128],
  head_dim: [16, 32, 64, 80, 96, 128, 192, 256], d_ff: halves(128, 65536),
  vocab_size: [256, 1000, 4000, ...halves(8000, 256000)], context: powers(1, 131072),
};
const full = (n) => n.toLocaleString("en");

// Three digits and a unit: 8030261248 -> "8.03 billion".
function short(n) {
  const units = [[1e12, "trillion"], [1e9, "billion"], [1e6, "million"], [1e3, "thousand"]];
  // a number that rounds up to the next unit belongs to it
  const [size, unit] = units.find(([size]) => n >= 0.9995 * size) ?? [1, ""];
  return `${Number((n / size).toPrecision(3))} ${unit}`.trim();
}

// How many numbers each part holds.
function parameters(c) {
  const qkv = (c.n_heads + 2 * c.n_kv_heads) * c.head_dim, ups = c.gated ? 2 : 1;
  const attention = c.d_model * qkv + (c.qkv_bias ? qkv : 0) +
    c.n_heads * c.head_dim * c.d_model + (c.bias ? c.d_model : 0);
  const feedForward = (ups + 1) * c.d_model * c.d_ff + (c.bias ? ups * c.d_ff + c.d_model : 0);
  const norms = 2 * c.n_layers + (c.norm_first ? 1 : 0);
  return {
    embedding: c.vocab_size * c.d_model,
    positions: { learned: c.max_seq_len * c.d_model, t5: 32 * c.n_heads }[c.position] ?? 0,
    attention: c.n_layers * attention, scores: 0, feed_forward: c.n_layers * feedForward,
    norms: norms * c.d_model * (c.norm === "layer" ? 2 : 1),
    head: c.tied ? 0 : c.vocab_size * c.d_model,
  };
}

// FLOPs for one token that sees `context` tokens: 2 for each weight of a matrix it meets, and in
// each head 2 · D for a score and 2 · D for its share of the average; a window hides the rest.
function flops(c) {
  const bare = parameters({ ...c, bias: false, qkv_bias: false });
  return {
    embedding: 0, positions: 0, attention: 2 * bare.attention,
    scores: 4 * c.n_layers * c.n_heads * c.head_dim * Math.min(c.context, c.window ?? Infinity),
    feed_forward: 2 * bare.feed_forward, norms: 0, head: 2 * c.vocab_size * c.d_model,
  };
}

const total = (parts) => Object.values(parts).reduce((sum, n) => sum + n, 0);
function share(n, all) {
  const percent = (100 * n) / all;
  return n && percent < 0.1 ? "<0.1 %" : `${n ? percent.toFixed(1) : 0} %`;
}

// The places of a slider: round numbers, the models' own, and where it stands now.
function stopsOf(name, sizes, models) {
  if (name === "n_kv_heads") {  // what divides the query heads
    return Array.from({ length: sizes.n_heads }, (_, i) => i + 1).filter((n) => sizes.n_heads % n === 0);
  }
  const own = models.map(({ config }) => config[name === "context" ? "max_seq_len" : name]);
  const all = new Set([...STOPS[name], ...own, sizes[name]]);
  return [...all].sort((a, b) => a - b).filter((n) => name !== "context" || n <= sizes.max_seq_len);
}

// The sizes after one is moved; key/value heads follow, for they must divide the query heads.
function moved(sizes, name, value) {
  const next = { ...sizes, [name]: value };
  if (name === "n_heads") {
    const most = sizes.n_kv_heads === sizes.n_heads ? value : sizes.n_kv_heads;
    next.n_kv_heads = stopsOf("n_kv_heads", next, []).filter((n) => n <= most).at(-1);
  }
  return next;
}

function render({ model, el }) {
  const models = model.get("models"), id = "b2l" + Math.random().toString(36).slice(2);
  function change(sizes, chosen = model.get("chosen")) {
    model.set("chosen", chosen);
    model.set("sizes", sizes);
    model.save_changes();
  }
  const row = (of, name, ...parts) =>
    html("div", { class: "b2l-control" }, html("label", { for: of }, name), ...parts);

  const menu = html("select", { id: `${id}m`, ...QUIET },
    ...models.map(({ name }, i) => html("option", { value: i }, name)));
  const start = (i) => {
    const { config } = models[i];
    change({ ...config, context: Math.min(model.get("sizes").context, config.max_seq_len) }, i);
  };
  menu.addEventListener("change", () => start(Number(menu.value)));
  const again = html("button", { type: "button", ...QUIET }, "Back to its own sizes");
  again.addEventListener("click", () => start(model.get("chosen")));

  const sliders = Object.entries(NAMES).map(([name, label]) => {
    const input = html("input", { id: id + name, type: "range", min: 0, step: 1, ...QUIET });
    const output = html("output", { for: id + name });
    let stops = [];
    input.addEventListener("input", () =>
      change(moved(model.get("sizes"), name, stops[Number(input.value)])));
    const show = (sizes) => {
      stops = stopsOf(name, sizes, models);
      input.max = stops.length - 1;
      input.value = stops.indexOf(sizes[name]);
      input.setAttribute("aria-valuetext", full(sizes[name]));
      output.textContent = full(sizes[name]);
    };
    return { show, root: row(id + name, label, input, output) };
  });
  const boxes = [["gated", "Gated feed-forward"], ["tied", "Head tied to the embedding"]].map(([name, label]) => {
    const input = html("input", { type: "checkbox", ...QUIET });
    input.addEventListener("change", () => change(moved(model.get("sizes"), name, input.checked)));
    return { show: (sizes) => { input.checked = sizes[name]; }, root: html("label", {}, input, ` ${label}`) };
  });

  function makeBar(what) {
    const caption = html("figcaption"), drawing = html("div", { class: "b2l-bar", role: "img" });
    const show = (parts) => {
      const all = total(parts), shown = PARTS.filter(([key]) => parts[key]);
      caption.replaceChildren(html("b", {}, what), ` ${full(all)}`);
      drawing.setAttribute("aria-label",
        `${what}: ${shown.map(([key, name]) => `${name} ${share(parts[key], all)}`).join(", ")}`);
      drawing.replaceChildren(...shown.map(([key, , label, role]) =>
        html("div", { style: `flex: ${parts[key] / all} 0 0; border-color: var(--b2l-${role})` },
          html("span", {}, label))));
    };
    return { show, root: html("figure", {}, caption, drawing) };
  }
  const bars = [makeBar("Parameters"), makeBar("FLOPs per token")];

  const head = html("thead", {}, html("tr", {},
    ...["Part", "Parameters", "Share", "FLOPs", "Share"].map((name) => html("th", { scope: "col" }, name))));
  const body = html("tbody");
  const about = html("p"), reads = html("p", { class: "b2l-reads" });
  const said = html("div", { class: "b2l-said", "aria-live": "polite" });
  const piece = html("div", { class: "b2l-piece b2l-parameters", role: "group" },
    row(`${id}m`, "Start from", menu), about,
    html("div", { class: "b2l-sizes" }, ...sliders.map(({ root }) => root)),
    html("p", { class: "b2l-boxes" }, ...boxes.map(({ root }) => root), again),
    ...bars.map(({ root }) => root),
    html("div", { class: "b2l-scroll", tabindex: 0, role: "group", "aria-label": "Numbers by part" },
      html("table", {}, head, body)), reads, said);
  piece.setAttribute("aria-label", model.get("alt"));
  for (const event of ["keydown", "keypress", "keyup"]) {
    piece.addEventListener(event, (e) => e.stopPropagation());
  }
  el.replaceChildren(piece);

  let timer;
  function say() {
    if (said.textContent !== reads.textContent) said.textContent = reads.textContent;
  }
  function draw() {
    const sizes = model.get("sizes"), held = parameters(sizes), spent = flops(sizes);
    menu.value = model.get("chosen");
    for (const { show } of [...sliders, ...boxes]) show(sizes);
    bars[0].show(held);
    bars[1].show(spent);
    const line = (name, a, b) => [html("th", { scope: "row" }, ...name),
      ...[full(a), share(a, total(held)), short(b), share(b, total(spent))].map((text) => html("td", {}, text))];
    body.replaceChildren(...PARTS.map(([key, name, , role]) => html("tr", {},
      ...line([html("i", { style: `background: var(--b2l-${role})` }), name], held[key], spent[key]))),
    html("tr", { class: "b2l-total" }, ...line(["Total"], total(held), total(spent))));
    const learned = sizes.position === "learned" ? `a table of ${full(sizes.max_seq_len)} positions` : `positions: ${sizes.position}`;
    about.textContent = `As in this model: ${learned}, ${sizes.norm === "layer" ? "LayerNorm" : "RMSNorm"}, ` +
      `${sizes.bias ? "biases" : sizes.qkv_bias ? "biases on q, k, v" : "no biases"}` +
      `${sizes.window ? `, a window of ${full(sizes.window)} tokens` : ""}.`;
    reads.textContent = `${short(total(held))} parameters; ${short(total(spent))} FLOPs ` +
      `for a token that sees ${full(sizes.context)}.`;
    clearTimeout(timer);
    timer = setTimeout(say, SAY_AFTER);
  }
  const events = ["change:sizes", "change:chosen"];
  for (const event of events) model.on(event, draw);
  draw();
  say();
  return () => {
    clearTimeout(timer);
    for (const event of events) model.off(event, draw);
  };
}

export { flops, moved, parameters, short };
export default { render };
