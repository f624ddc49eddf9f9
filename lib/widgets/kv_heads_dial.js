// Query heads wired to the key and value heads that they share, as n_kv_heads moves from H to 1.
// plane.js and controls.js stand before this in the module.

const CONTEXTS = Array.from({ length: 18 }, (_, i) => 2 ** i);  // 1 to 131,072
const BYTES = 2;  // a number, in bfloat16

const divisorsOf = (n) => Array.from({ length: n }, (_, i) => i + 1).filter((k) => n % k === 0);
const variant = (H, K) => (K === H ? "MHA" : K === 1 ? "MQA" : "GQA");

// Bytes of keys and values in all layers; a windowed one keeps no more tokens than its window.
function cacheBytes(c, K, tokens) {
  const windowed = c.window === null ? 0 : c.n_layers - c.n_global_layers;
  const held = windowed * Math.min(tokens, c.window) + (c.n_layers - windowed) * tokens;
  return BYTES * 2 * K * c.head_dim * held;
}

// Parameters of the attention layers: maps and biases of q, k, v and of the output.
function attentionParameters(c, K) {
  const qkv = (c.n_heads + 2 * K) * c.head_dim;
  return c.n_layers * (c.d_model * (qkv + c.n_heads * c.head_dim) +
    (c.qkv_bias ? qkv : 0) + (c.bias ? c.d_model : 0));
}

// Everything the table says of K key and value heads.
function account(c, K, context) {
  const attention = attentionParameters(c, K);
  return { token: cacheBytes(c, K, 1), cache: cacheBytes(c, K, context), attention,
    whole: c.rest + attention };
}

// What the measured rows say: contexts, numbers of key heads with MHA first, and how many times
// faster than MHA each is.
function compare(speeds) {
  const sorted = (name) => [...new Set(speeds.map((row) => row[name]))].sort((a, b) => a - b);
  const contexts = sorted("context"), heads = sorted("n_kv_heads").reverse();
  const took = (K, S) =>
    speeds.find((row) => row.n_kv_heads === K && row.context === S).milliseconds;
  return { contexts, heads, took, faster: (K, S) => took(heads[0], S) / took(K, S) };
}

// The measured number of key heads whose groups are nearest in size to those of H heads over K.
function nearest(heads, H, K) {
  const off = (k) => Math.abs(Math.log((heads[0] / k) / (H / K)));
  return heads.reduce((best, k) => (off(k) < off(best) - 1e-9 ? k : best));
}

// The wiring: `show(H, K, head)`. Lines are stretched to the page's width, so heads are no part
// of their drawing. A click chooses the query head above it, as its slider does.
function makeWiring(onChoose) {
  const box = html("div", { class: "b2l-wiring", role: "img" });
  let heads = 1;
  box.addEventListener("click", ({ clientX }) => {
    const { left, width } = box.getBoundingClientRect();
    onChoose(Math.min(heads - 1, Math.max(0, Math.floor((heads * (clientX - left)) / width))));
  });
  const across = (i, n) => (100 * (i + 0.5)) / n;
  const show = (H, K, head) => {
    heads = H;
    box.style.setProperty("--n", H);  // many heads are drawn small, on thin lines
    const G = H / K, of = (h) => Math.floor(h / G), own = of(head);
    const all = Array.from({ length: H }, (_, h) => h);
    const wires = (chosen, kind) => svg("path", { class: kind,
      d: chosen.map((h) => `M${across(h, H)} 0L${across(of(h), K)} 100`).join("") });
    const dots = (n, kind, state) => Array.from({ length: n }, (_, i) =>
      html("i", { class: `${kind} ${state(i)}`, style: `left: ${across(i, n)}%` }));
    const label = (kind, text, at) => html("span", { class: kind,
      style: `left: ${at}%; transform: translateX(-${at}%)` }, text);
    box.replaceChildren(
      svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" },
        wires(all.filter((h) => of(h) !== own), "b2l-others"),
        wires(all.filter((h) => of(h) === own), "b2l-group"), wires([head], "b2l-own")),
      ...dots(H, "b2l-q", (h) => (h === head ? "b2l-on" : of(h) === own ? "" : "b2l-dim")),
      ...dots(K, "b2l-kv", (k) => (k === own ? "b2l-on" : "b2l-dim")),
      label("b2l-above", `query head ${head}`, across(head, H)),
      label("b2l-below", `key/value head ${own}`, across(own, K)));
    const first = own * G;
    box.setAttribute("aria-label", `${H} query heads above, ${K} key and value heads below; query ` +
      `head ${head} reads key and value head ${own}, ` +
      `${G === 1 ? "alone" : `as all from ${first} to ${first + G - 1} do`}`);
  };
  return { box, show };
}

// The measured times, as bars in groups: one group a context. `show(H, K)` marks one of each.
function makeSpeeds(speeds, measured) {
  const { contexts, heads, took, faster } = compare(speeds), most = heads[0];
  const tallest = Math.max(...contexts.flatMap((S) => heads.map((K) => faster(K, S))));
  const digits = (n) => Number(n.toPrecision(2)), times = (n) => `${digits(n)}×`;
  const name = (K) => `${variant(most, K)}${variant(most, K) === "GQA" ? `, G = ${most / K}` : ""}`;
  const bars = html("div", { class: "b2l-speeds", role: "img" });
  const marked = html("p"), legend = html("p", { class: "b2l-small" });
  legend.textContent = `Each group from left: ${heads.map((K) => `${K} (${name(K)})`).join(", ")}` +
    " key/value heads; below it the context, and how many times faster the marked one is. The line is MHA.";
  const root = html("figure", {}, html("figcaption", {},
    html("b", {}, "Measured on another, small shape: times faster than MHA"), html("br"), measured),
  bars, legend, marked);
  const show = (H, K) => {
    const near = nearest(heads, H, K), last = contexts.at(-1);
    bars.style.setProperty("--one", `${100 / tallest}%`);
    bars.replaceChildren(...contexts.map((S) => html("div", {}, ...heads.map((k) =>
      html("i", { class: k === near ? "b2l-on" : "", style: `height: ${(100 * faster(k, S)) / tallest}%` })),
    html("span", {}, full(S), html("br"), html("b", {}, times(faster(near, S)))))));
    bars.setAttribute("aria-label", `With ${near} of ${most} key heads, times faster than MHA: ` +
      contexts.map((S) => `${times(faster(near, S))} at ${full(S)} tokens`).join(", "));
    const same = most / near === H / K ? "as large as here" :
      `nearest to those here, G = ${Number((H / K).toFixed(2))}`;
    marked.textContent = `Marked: ${near} of ${most}, its groups (G = ${most / near}) ${same}. At ` +
      `${full(last)} tokens it took ${digits(took(near, last))} ms` +
      `${near === most ? "" : `, MHA ${digits(took(most, last))} ms`}.`;
  };
  return { root, show };
}

function render({ model, el }) {
  const models = model.get("models"), speeds = model.get("speeds");
  const change = (changes) => {
    model.set("at", { ...model.get("at"), ...changes });
    model.save_changes();
  };
  const here = () => models[model.get("at").model];
  const menu = makeMenu("Start from", models.map(({ name }, i) => [i, name]), (i) => change({
    model: i, n_kv_heads: models[i].n_kv_heads,
    head: Math.min(model.get("at").head, models[i].n_heads - 1) }));
  const dial = makeSlider("Key/value heads", (i) => change({ n_kv_heads: divisorsOf(here().n_heads)[i] }));
  const pick = makeSlider("Query head", (head) => change({ head }));
  let stops = [];
  const length = makeSlider("Context", (i) => change({ context: stops[i] }));
  const wiring = makeWiring((head) => change({ head }));
  const measured = speeds.length ? makeSpeeds(speeds, model.get("measured")) : null;
  const th = (text, scope = "col") => html("th", { scope }, text);
  const head = html("tr"), body = html("tbody"), small = html("p", { class: "b2l-small" });
  const reads = html("p", { class: "b2l-reads", "aria-hidden": "true" }), said = makeSaid();
  mount({ model, el }, "b2l-kvdial",
    html("div", { class: "b2l-kvdial-controls" }, menu.row, dial.row, length.row, pick.row), reads, wiring.box,
    html("table", {}, html("thead", {}, head), body), small, ...(measured ? [measured.root] : []), said);

  function drawTable(c, K, context) {
    const [all, now] = [c.n_heads, K].map((n) => account(c, n, context));
    const saved = `1/${c.n_heads / K}`, moved = (key) => {
      const percent = (100 * (now[key] - all[key])) / all[key];
      return percent ? `${percent.toFixed(1).replace("-", "−")} %` : "0 %";
    };
    const row = (name, key, ratio) => html("tr", {}, th(name, "row"),
      ...[full(all[key]), full(now[key]), ratio].map((text) => html("td", {}, text)));
    head.replaceChildren(html("td"), th("MHA"), th(`K = ${K}`), th("change"));
    const part = K === c.n_heads ? "1" : saved;
    body.replaceChildren(row("Cache bytes a token", "token", part),
      row(`Cache bytes at ${full(context)} tokens`, "cache", part),
      row("Parameters of attention", "attention", moved("attention")),
      row("Parameters of the model", "whole", moved("whole")));
    small.textContent = `Two bytes a number, all ${c.n_layers} layers, D = ${c.head_dim}.` +
      (c.window === null ? "" : ` ${c.n_layers - c.n_global_layers} layers keep only the last ${full(c.window)} tokens.`);
  }

  return follow(model, ["at"], said, () => {
    const { model: i, n_kv_heads: K, head, context } = model.get("at"), c = models[i], H = c.n_heads;
    const G = H / K, kind = variant(H, K), dials = divisorsOf(H);
    stops = [...new Set([...CONTEXTS, context])].sort((a, b) => a - b);
    menu.show(i);
    dial.show(dials.indexOf(K), dials.length - 1, `${K} of ${H}: ${kind}${kind === "GQA" ? `, G = ${G}` : ""}`);
    pick.show(head, H - 1, `${head} reads ${Math.floor(head / G)}`);
    length.show(stops.indexOf(context), stops.length - 1, full(context));
    wiring.show(H, K, head);
    drawTable(c, K, context);
    measured?.show(H, K);
    const shares = { MHA: "each query head has its own key and value head", MQA: `all ${H} query heads share one key and value head`,
      GQA: `${G} query heads share a key and value head` }[kind];
    reads.textContent = `${kind}${K === c.n_kv_heads ? `, as in ${c.name}` : ""}: ${shares}; ` +
      `the cache is ${K === H ? "full size" : `1/${G} of MHA's`}.`;
    return `${reads.textContent} Query head ${head} reads key and value head ${Math.floor(head / G)}. ` +
      `${full(cacheBytes(c, K, 1))} bytes a token, ${full(cacheBytes(c, K, context))} at ${full(context)} tokens.`;
  });
}

export { account, compare, divisorsOf, nearest };
export default { render };
