// One query attends over the words of a sentence, in two dimensions: every vector is an arrow, and
// scores, weights and output follow as one is moved. plane.js stands before this in the module.

// q (d), k (S, d), v (S, e) -> softmax(q·k / temperature) v and what leads to it, in the order of
// lib/reference.py: the largest score is subtracted first, or exp would overflow.
function attend(q, k, v, temperature) {
  const scores = k.map((key) => key.reduce((sum, x, i) => sum + x * q[i], 0));
  const scaled = scores.map((score) => score / temperature);
  const top = Math.max(...scaled);
  const e = scaled.map((z) => Math.exp(z - (Number.isFinite(top) ? top : 0)));
  const total = e.reduce((sum, x) => sum + x, 0);
  const weights = e.map((x) => (total ? x / total : 0));
  const output = v[0].map((_, j) => v.reduce((sum, row, i) => sum + weights[i] * row[j], 0));
  return { scores, scaled, weights, output };
}

const QUERY = -1;  // its number among the keys'
const SAY_AFTER = 600;  // ms of rest before the summary is spoken
const GRIP = 16;  // radius of what a pointer can take hold of
const QUIET = { "data-lm-suppress-shortcuts": "true" };  // or JupyterLab takes single keys
const thickness = (weight) => 1.6 + 4.4 * weight;
const degrees = ([x, y]) => (Math.atan2(y, x) * 180) / Math.PI;
const polar = (angle, length) =>
  [Math.cos, Math.sin].map((f) => length * f((angle * Math.PI) / 180));
const short = (word) => ([...word].length > 12 ? `${[...word].slice(0, 11).join("")}…` : word);

// Who is read most, in words: one, several that share the first place, or all alike.
function summary(words, weights, reader) {
  const top = Math.max(...weights), best = words.filter((_, i) => weights[i] > top - 0.005);
  if (best.length === words.length && best.length > 1) return `${reader} reads every word alike.`;
  const each = best.length > 1 ? " each" : "";
  return `${reader} reads ${best.join(" and ")} most: weight ${fixed(top)}${each}.`;
}

// A line of the piece: a label, an input, and its value as text. `show(value, text)` sets both.
function makeSlider(name, range, onInput) {
  const id = "b2l" + Math.random().toString(36).slice(2), output = html("output", { for: id });
  const input = html("input", { id, type: "range", ...range, ...QUIET });
  input.addEventListener("input", () => onInput(Number(input.value)));
  const show = (value, text) => {
    input.value = value;
    input.setAttribute("aria-valuetext", text);
    output.textContent = text;
  };
  const label = html("label", { for: id }, name);
  return { show, row: html("div", { class: "b2l-control" }, label, input, output) };
}

// The numbers, a row for each word; `show(parts)` writes what attend gives into it.
function makeTable(words) {
  const kinds = ["key", "score", "scaled", "weight", "value"];
  const names = ["word", "key k", "score q·k", "÷ τ", "weight", "value v"];
  const bar = (kind) =>
    (["score", "weight"].includes(kind) ? [html("div", { class: "b2l-bar" }, html("i"))] : []);
  const rows = words.map((word) => html("tr", {}, html("th", { scope: "row" }, word), ...kinds.map(
    (kind) => html("td", { class: `b2l-${kind}-cell` }, html("span"), ...bar(kind)))));
  const head = names.map((name, i) =>
    html("th", { scope: "col", class: i ? `b2l-${kinds[i - 1]}-cell` : "" }, name));
  const table = html("table", {},
    html("thead", {}, html("tr", {}, ...head)), html("tbody", {}, ...rows));
  let widest = 1;  // only grows, so that bars stay comparable while a vector moves
  const show = ({ k, v, scores, scaled, weights }) => {
    widest = Math.max(widest, ...scores.map(Math.abs));
    rows.forEach((row, i) => {
      const texts = [number(scores[i]), fixed(scaled[i]), fixed(weights[i])];
      const cells = [point(k[i]), ...texts, point(v[i])];
      row.querySelectorAll("span").forEach((span, column) => { span.textContent = cells[column]; });
      const [score, weight] = row.querySelectorAll("i"), long = (50 * scores[i]) / widest;
      score.style.left = `${50 + Math.min(long, 0)}%`;  // to the left of the middle if negative
      score.style.width = `${Math.abs(long)}%`;
      weight.style.width = `${100 * weights[i]}%`;
      row.classList.toggle("b2l-most", weights[i] > Math.max(...weights) - 0.005);
    });
  };
  return { table, show };
}

function render({ model, el }) {
  const words = model.get("words"), of = model.get("query_of");
  const start = { q: model.get("q"), k: model.get("k"), temperature: model.get("temperature") };
  const reach = reachOf([start.q, ...start.k]), everyone = [QUERY, ...words.keys()];
  const kept = new Map();  // the angle of a vector, which is not lost while its length is 0
  const vector = (i) => (i === QUERY ? model.get("q") : model.get("k")[i]);
  const chosen = () => model.get("chosen") ?? QUERY;

  function change(changes) {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  }
  const choose = (i) => change({ chosen: i === QUERY ? null : i });
  function move(to) {
    const i = chosen(), replaced = model.get("k").map((key, j) => (j === i ? to : key));
    change(i === QUERY ? { q: to } : { k: replaced });
  }

  const angle = makeSlider("Angle", { min: -180, max: 180, step: 1 }, (value) => {
    kept.set(chosen(), value);
    move(polar(value, Math.hypot(...vector(chosen()))));
  });
  const length = makeSlider("Length", { min: 0, max: reach, step: reach / 40 },
    (value) => move(polar(kept.get(chosen()), value)));
  // Quarter steps between powers of 2, so that 1 and √2, which is √d here, are among them.
  const temperature = makeSlider("Temperature τ", { min: -12, max: 16, step: 1 },
    (value) => change({ temperature: 2 ** (value / 4) }));
  const name = (i) => {
    if (i === QUERY) return of ? `query of ${of}` : "query";
    const again = words.indexOf(words[i]) < words.lastIndexOf(words[i]);
    return `key of ${words[i]}${again ? `, word ${i + 1}` : ""}`;
  };
  const which = html("select", QUIET,
    ...everyone.map((i) => html("option", { value: i }, name(i))));
  which.addEventListener("change", () => choose(Number(which.value)));
  const reset = html("button", { type: "button", ...QUIET }, "Reset");
  reset.addEventListener("click", () => change(start));

  const keys = makePlane(reach, "The query and the keys as arrows; their numbers are in the table");
  const values = makePlane(reachOf(model.get("v")), "The values and their weighted sum as arrows");
  const { table, show } = makeTable(words);
  const role = (name, text = name) =>
    html("b", { style: `border-color: var(--b2l-${name})` }, text);
  const meaning = (axes) => (axes.length ? [html("br"), `→ ${axes[0]}, ↑ ${axes[1]}`] : []);
  const figure = (area, plane, ...caption) =>
    html("figure", { style: `grid-area: ${area}` }, html("figcaption", {}, ...caption), plane.root);
  // Heard from `said`, when the hand rests; what is seen follows at once.
  const read = html("p", { class: "b2l-reads", "aria-hidden": "true" }), sum = html("p");
  const said = html("div", { class: "b2l-said", "aria-live": "polite" });
  const first = html("div", { class: "b2l-control" }, html("label", {}, "Move ", which), reset);
  const controls = [first, angle.row, length.row, temperature.row];
  const grid = html("div", { class: "b2l-attention-grid" },
    html("div", { class: "b2l-attention-controls" }, ...controls),
    figure("keys", keys, role("query", name(QUERY)), ", ", role("key", "keys"),
      ...meaning(model.get("key_axes"))),
    html("div", { style: "grid-area: table" }, read, table, sum),
    figure("values", values, role("value", "values"), ", ", role("output"),
      "; dashed: each weight × value", ...meaning(model.get("value_axes"))));
  const piece = html("div", { class: "b2l-piece b2l-attention", role: "group" }, grid, said);
  piece.setAttribute("aria-label", model.get("alt"));
  el.replaceChildren(piece);

  // What a pointer takes hold of. It stays while arrows are redrawn, so that a drag goes on.
  const handles = everyone.map(() => svg("circle", { r: GRIP, class: "b2l-handle" }));
  keys.root.append(...handles);
  function grab(event) {  // of the tips that overlap here, the nearest
    const [x, y] = keys.read(event);
    const far = (i) => Math.hypot(vector(i)[0] - x, vector(i)[1] - y);
    choose([chosen(), ...everyone].reduce((best, i) => (far(i) < far(best) ? i : best)));
    event.target.setPointerCapture(event.pointerId);
  }
  function drag(event) {  // to the nearest fortieth, but not out of the plane
    if (!event.target.hasPointerCapture(event.pointerId)) return;
    const to = keys.read(event), shrink = Math.min(1, reach / Math.hypot(...to));
    move(to.map((x) => (Math.round((x * shrink * 40) / reach) * reach) / 40));
  }
  for (const handle of handles) {
    handle.addEventListener("pointerdown", grab);
    handle.addEventListener("pointermove", drag);
  }
  for (const event of ["keydown", "keypress", "keyup"]) {
    piece.addEventListener(event, (e) => e.stopPropagation());
  }

  function drawPlanes({ q, k, v, weights, output }) {
    const one = (vector, role) => ({ vector, role, label: role, width: 4 });
    const each = (vectors, role) => vectors.map((vector, i) =>
      ({ vector, role, label: short(words[i]), width: thickness(weights[i]) }));
    const [cx, cy] = keys.place(vector(chosen()));
    const ring = svg("circle", { cx, cy, r: 9, class: "b2l-ring" });
    keys.draw([one(q, "query"), ...each(k, "key")], ring);
    for (const i of everyone) {
      const [cx, cy] = keys.place(vector(i));
      set(handles[i + 1], { cx, cy });
    }
    let end = [0, 0];  // weight × value, head to tail: the chain ends where the output does
    const steps = v.map((value, i) => (end = end.map((x, j) => x + weights[i] * value[j])));
    const path = [[0, 0], ...steps].map(values.place).join("L");
    const chain = svg("path", { d: `M${path}`, class: "b2l-chain" });
    values.draw([one(output, "output"), ...each(v, "value")], chain);
  }

  let timer;
  function say() {  // once for each change of what there is to say
    if (said.textContent !== read.textContent) said.textContent = read.textContent;
  }
  function draw() {
    const [q, k, v, tau] = ["q", "k", "v", "temperature"].map((name) => model.get(name));
    const parts = { q, k, v, ...attend(q, k, v, tau) };
    const i = chosen(), size = Math.hypot(...vector(i));
    if (size || !kept.has(i)) kept.set(i, degrees(vector(i)));
    which.value = i;
    angle.show(kept.get(i), `${number(Math.round(kept.get(i)))}°`);
    length.show(size, number(size));
    const isRoot = Math.abs(tau - Math.SQRT2) < 1e-9;
    temperature.show(4 * Math.log2(tau), number(tau) + (isRoot ? " = √d" : ""));
    drawPlanes(parts);
    show(parts);
    read.textContent = summary(words, parts.weights, of || "The query");
    sum.textContent = `q = ${point(q)}, τ = ${number(tau)}; the output, the sum of ` +
      `weight × value, is (${parts.output.map(fixed).join(", ")}).`;
    clearTimeout(timer);
    timer = setTimeout(say, SAY_AFTER);
  }
  const events = ["q", "k", "v", "temperature", "chosen"].map((name) => `change:${name}`);
  for (const event of events) model.on(event, draw);
  draw();
  say();  // so that a page that opens has nothing new to say
  return () => {
    clearTimeout(timer);
    for (const event of events) model.off(event, draw);
  };
}

export { attend };
export default { render };
