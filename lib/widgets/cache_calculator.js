// The cache of a published model beside its weights on one card. plane.js and controls.js stand
// before this in the module.

const GB = 1e9, CARDS = [24, 40, 80, 141, 192];
const PRECISIONS = [[4, "fp32: 4 bytes"], [2, "bf16: 2 bytes"], [1, "int8: 1 byte"], [0.5, "int4: ½ byte"]];
const CONTEXTS = Array.from({ length: 14 }, (_, i) => 2 ** (i + 7));  // 128 to 1,048,576
const BATCHES = Array.from({ length: 11 }, (_, i) => 2 ** i);  // 1 to 1,024

// How many numbers one token leaves in one layer.
const widthOf = (c) => (c.kv_lora_rank ? c.kv_lora_rank + c.qk_rope_head_dim : 2 * c.n_kv_heads * c.head_dim);
const windowed = (c) => (c.window === null ? 0 : c.n_layers - c.n_global_layers);

// Bytes of keys and values in all layers; a windowed one keeps no more tokens than its window.
function cacheBytes(c, tokens, batch, bytes) {
  const held = windowed(c) * Math.min(tokens, c.window) + (c.n_layers - windowed(c)) * tokens;
  return Math.ceil(batch * widthOf(c) * held * bytes);
}

// The longest context whose cache fits into `room` bytes; without end where windows end the growth.
function longest(c, batch, bytes, room) {
  const each = batch * widthOf(c) * bytes;  // a token in a layer
  const within = Math.floor(room / (each * c.n_layers));
  if (c.window === null || within < c.window) return Math.max(within, 0);
  const growing = c.n_layers - windowed(c);
  return growing ? Math.floor((room - each * windowed(c) * c.window) / (each * growing)) : Infinity;
}

// The largest batch whose cache fits into `room` bytes.
const largest = (c, tokens, bytes, room) =>
  Math.max(0, Math.floor(room / (cacheBytes(c, tokens, 1, 1) * bytes)));

// Three digits and a unit of a thousand: 1073741824 -> "1.07 GB".
function size(bytes) {
  const [unit, name] = [[1e12, "TB"], [GB, "GB"], [1e6, "MB"], [1e3, "kB"]]
    .find(([unit]) => bytes >= 0.9995 * unit) ?? [1, "bytes"];
  const n = bytes / unit;  // of four digits before the point all are shown
  return `${n < 999.5 ? Number(n.toPrecision(3)) : full(Math.round(n))} ${name}`;
}
const count = (n, what) => `${full(n)} ${what}${n === 1 ? "" : "s"}`;

// All that the piece shows of its settings. `weights` is null where they are not derived.
function account({ config: c, parameters, context, batch, cache_bytes, weight_bytes, card }) {
  const weights = parameters === null ? null : Math.ceil(parameters * weight_bytes);
  const room = card * GB - (weights ?? 0), cache = cacheBytes(c, context, batch, cache_bytes);
  return {
    weights, cache, free: room - cache,
    layer: Math.ceil(widthOf(c) * cache_bytes), token: cacheBytes(c, 1, 1, cache_bytes),
    outgrows: weights === null ? null : longest(c, batch, cache_bytes, weights) + 1,
    batches: largest(c, context, cache_bytes, room), tokens: longest(c, batch, cache_bytes, room),
  };
}

function render({ model, el }) {
  const models = model.get("models");
  const get = () => {
    const names = ["context", "batch", "cache_bytes", "weight_bytes", "card"];
    const chosen = Object.fromEntries(names.map((name) => [name, model.get(name)]));
    return { ...models[model.get("chosen")], ...chosen };
  };
  const change = (name) => (value) => {
    model.set(name, value);
    model.save_changes();
  };
  // A slider over round numbers, the model's own, and where it stands now.
  function makeStops(label, name, round, own) {
    let stops = [];
    const slider = makeSlider(label, (i) => change(name)(stops[i]));
    const show = (all) => {
      stops = [...new Set([...round, ...own(all), all[name]])].sort((a, b) => a - b);
      slider.show(stops.indexOf(all[name]), stops.length - 1, full(all[name]));
    };
    return { row: slider.row, show };
  }
  const menu = (label, name, options) => {
    const { row, show } = makeMenu(label, options, change(name));
    return { row, show: () => show(model.get(name)) };
  };
  const controls = [
    menu("Model", "chosen", models.map(({ name }, i) => [i, name])),
    menu("Card", "card", CARDS.map((n) => [n, `${n} GB`])),
    makeStops("Context", "context", CONTEXTS, ({ config }) => [config.max_seq_len]),
    makeStops("Sequences", "batch", BATCHES, () => []),
    menu("Cache in", "cache_bytes", PRECISIONS), menu("Weights in", "weight_bytes", PRECISIONS),
  ];
  const body = html("tbody"), facts = html("ul");
  const bar = html("div", { class: "b2l-memory", role: "img" });
  const caption = html("figcaption"), reads = html("p", { class: "b2l-reads", "aria-hidden": "true" });
  const said = makeSaid(), th = (text, scope) => html("th", { scope }, text);
  mount({ model, el }, "b2l-calculator",
    html("div", { class: "b2l-calculator-controls" }, ...controls.map(({ row }) => row)),
    reads, html("figure", {}, bar, caption),
    html("table", {}, html("thead", {}, html("tr", {}, th("1 GB = 1,000,000,000 bytes", "col"),
      th("bytes", "col"), th("about", "col"))), body), facts,
    html("p", { class: "b2l-small" }, "Only cache and weights are counted; a real card needs memory " +
      "for more, and int8 and int4 keep scales, too."), said);

  function drawBar({ config, card }, { weights, cache, free }) {
    const cacheRole = config.kv_lora_rank ? "latent" : "key", end = Math.max(card * GB, card * GB - free);
    const parts = [["weights", weights ?? 0, "muted"], ["cache", cache, cacheRole], ["free", Math.max(free, 0)]]
      .filter(([, bytes]) => bytes);
    const color = (role) => (role ? `--role: var(--b2l-${role})` : "");
    bar.replaceChildren(...parts.map(([name, bytes, role]) => html("div", { class: `b2l-${name}`,
      style: `flex: ${bytes / end} 0 0; ${color(role)}` }, html("span", {}, name))),
    ...(free < 0 ? [html("i", { style: `left: ${(100 * card * GB) / end}%` })] : []));
    const said = parts.map(([name, bytes]) => `${name} ${size(bytes)}`).join(", ");
    bar.setAttribute("aria-label", `${card} GB of memory: ${said}`);
    caption.replaceChildren(...parts.map(([name, bytes, role]) => html("span", {},
      html("i", { class: `b2l-${name}`, style: color(role) }), `${name} ${size(bytes)}`)),
    free < 0 ? html("b", {}, `${size(-free)} too much; the line is the end of the card`) : `of ${card} GB`);
  }

  function drawTable({ config: c, parameters, context, batch, cache_bytes: bytes, weight_bytes }, found) {
    const row = (name, exact) => html("tr", {}, th(name, "row"),
      ...[full, size].map((text) => html("td", {}, exact === null ? "–" : text(exact))));
    const parts = c.kv_lora_rank ? `(latent ${c.kv_lora_rank} + rope ${c.qk_rope_head_dim})` :
      `2 · ${count(c.n_kv_heads, "KV head")} · ${c.head_dim}`;
    body.replaceChildren(row(`A token in a layer: ${parts} · ${bytes}`, found.layer),
      row(`A token in ${count(c.n_layers, "layer")}`, found.token),
      row(`Cache: ${count(context, "token")} × ${count(batch, "sequence")}`, found.cache),
      row(parameters === null ? "Weights: a mixture of experts, not derived here" :
        `Weights: ${full(parameters)} · ${weight_bytes}`, found.weights));
  }

  function drawFacts({ config: c, context, batch }, { weights, outgrows, batches, tokens }) {
    const own = (n) => (n > c.max_seq_len ? ` (the model's own: ${full(c.max_seq_len)})` : "");
    const alone = weights === null ? "The cache alone on this card" : "Beside the weights on this card";
    const some = windowed(c) < c.n_layers ? `${windowed(c)} of ${c.n_layers} layers keep` : "every layer keeps";
    const fits = batches ? `at most ${count(batches, "sequence")}` : "not one sequence";
    const reaches = tokens === Infinity ? "any context, the window ends the growth" :
      tokens ? `at most ${count(tokens, "token")}${batch > 1 ? " each" : ""}` : "not one token";
    const fact = (...parts) => html("li", {}, ...parts);
    facts.replaceChildren(
      ...(c.window === null ? [] : [fact(`A window: ${some} the last ${full(c.window)} tokens only.`)]),
      ...(weights === null ? [] : [outgrows < Infinity ?
        fact(`The cache outgrows the weights at ${count(outgrows, "token")} a sequence${own(outgrows)}.`) :
        fact("The cache never outgrows the weights: the window ends its growth.")]),
      fact(`${alone}, at ${count(context, "token")}: `, html("b", {}, fits), "."),
      fact(`${alone}, with ${count(batch, "sequence")}: `, html("b", {}, reaches),
        `${tokens < Infinity ? own(tokens) : ""}.`));
  }

  const names = ["chosen", "context", "batch", "cache_bytes", "weight_bytes", "card"];
  return follow(model, names, said, () => {
    const all = get(), found = account(all), { config, context, batch, name, card } = all;
    for (const { show } of controls) show(all);
    drawBar(all, found);
    drawTable(all, found);
    drawFacts(all, found);
    const { weights, cache, free } = found, own = full(config.max_seq_len);
    const left = free < 0 ? `${size(-free)} more than ${card} GB` :
      `${size(free)} of ${card} GB ${weights === null ? "are left for them" : "stay free"}`;
    const beyond = context > config.max_seq_len ?
      [" ", html("span", {}, `Longer than the model's own ${own} tokens, and counted all the same.`)] : [];
    reads.replaceChildren(`${name}, ${count(context, "token")} × ${count(batch, "sequence")}: ` +
      `the cache takes ${size(cache)}, the weights ` +
      `${weights === null ? "are not counted" : size(weights)}; ${left}.`, ...beyond);
    return reads.textContent;
  });
}

export { account, cacheBytes, largest, longest, size };
export default { render };
