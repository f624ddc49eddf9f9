// Every head's map as a small picture; the chosen one large, with one query's weights over the tokens.
// plane.js stands before this in the module.

const STEPS = 10;  // tints, as in lib/figures.py's heat
const QUIET = { "data-lm-suppress-shortcuts": "true" };  // or JupyterLab takes single keys
const SAY_AFTER = 600;  // ms of rest before the summary is spoken

// One byte a weight, packed as base64 -> weights[((layer * H + head) * T + query) * T + key].
const unpack = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// The weights of one query over all keys.
function rowOf(bytes, T, H, [layer, head, query]) {
  const start = ((layer * H + head) * T + query) * T;
  return [...bytes.subarray(start, start + T)].map((byte) => byte / 255);
}

// The keys that are read most, with their weights; ties in the order of the text.
function most(row, n = 3) {
  return row.map((weight, key) => ({ weight, key })).filter(({ weight }) => weight >= 0.01)
    .sort((a, b) => b.weight - a.weight || a.key - b.key).slice(0, n);
}

// A map as one path for each tint, so that T² cells stay a handful of elements.
function drawMap(bytes, T, H, layer, head) {
  const paths = Array.from({ length: STEPS }, () => "");
  for (let query = 0; query < T; query += 1) {
    rowOf(bytes, T, H, [layer, head, query]).forEach((weight, key) => {
      if (!weight) return;
      paths[Math.min(STEPS - 1, Math.floor(weight * STEPS))] += `M${key} ${query}h1v1h-1z`;
    });
  }
  return paths.map((d, step) => svg("path", {
    d, fill: "var(--b2l-output)", "fill-opacity": (0.08 + (0.87 * step) / (STEPS - 1)).toFixed(2),
  }));
}

function render({ model, el }) {
  const L = model.get("n_layers"), H = model.get("n_heads"), sequences = model.get("sequences");
  const maps = sequences.map((sequence) => unpack(sequence.maps));
  const names = (layer, head) => `layer ${layer}, head ${head}`;

  function choose(changes) {
    const next = model.get("chosen").map((old, i) => changes[i] ?? old);
    next[3] = Math.min(next[3], sequences[next[0]].tokens.length - 1);
    model.set("chosen", next);
    model.save_changes();
  }

  const id = "b2l" + Math.random().toString(36).slice(2);
  const which = html("select", { id: `${id}s`, ...QUIET },
    ...sequences.map(({ name }, i) => html("option", { value: i }, name)));
  which.addEventListener("change", () => choose({ 0: Number(which.value) }));
  const slider = html("input", { id: `${id}q`, type: "range", min: 0, step: 1, ...QUIET });
  slider.addEventListener("input", () => choose({ 3: Number(slider.value) }));
  const where = html("output", { for: `${id}q` });
  const control = (of, name, ...parts) =>
    html("div", { class: "b2l-control" }, html("label", { for: of }, name), ...parts);
  const choice = sequences.length > 1 ? [control(`${id}s`, "Sequence", which)] : [];
  const controls = html("div", {}, ...choice,
    control(`${id}q`, "Query token", slider, where));

  const heads = [];
  for (let layer = 0; layer < L; layer += 1) {
    for (let head = 0; head < H; head += 1) {
      const picture = svg("svg", { "aria-hidden": "true" });
      const button = html("button", { type: "button", ...QUIET }, names(layer, head));
      button.append(picture);
      button.addEventListener("click", () => choose({ 1: layer, 2: head }));
      heads.push({ layer, head, picture, button });
    }
  }
  const line = html("div", { class: "b2l-gallery-tokens", "aria-hidden": "true" });
  const large = svg("svg", { class: "b2l-gallery-map", role: "img" });
  large.addEventListener("click", (event) => {
    const box = large.getBoundingClientRect(), { tokens } = sequences[model.get("chosen")[0]];
    const row = Math.floor(((event.clientY - box.top) / box.height) * tokens.length);
    choose({ 3: Math.max(0, Math.min(tokens.length - 1, row)) });
  });
  const title = html("figcaption"), reads = html("p", { class: "b2l-reads", "aria-hidden": "true" });
  const said = html("div", { class: "b2l-said", "aria-live": "polite" });
  const small = html("div", { class: "b2l-gallery-heads", role: "group", "aria-label": "Heads" },
    ...heads.map(({ button }) => button));
  const piece = html("div", { class: "b2l-piece b2l-gallery", role: "group" }, controls,
    html("div", { class: "b2l-gallery-grid" }, small,
      html("div", {}, html("figure", {}, title, large), reads, line)), said);
  piece.setAttribute("aria-label", model.get("alt"));
  for (const event of ["keydown", "keypress", "keyup"]) {
    piece.addEventListener(event, (e) => e.stopPropagation());
  }
  el.replaceChildren(piece);

  let drawn;  // the sequence whose maps stand in the small pictures
  function drawHeads(sequence, T) {
    if (drawn === sequence) return;
    drawn = sequence;
    for (const { layer, head, picture } of heads) {
      set(picture, { viewBox: `0 0 ${T} ${T}` });
      picture.replaceChildren(...drawMap(maps[sequence], T, H, layer, head));
    }
    line.replaceChildren(...sequences[sequence].tokens.map((token, t) => {
      const box = html("span", {}, token);
      box.addEventListener("click", () => choose({ 3: t }));
      return box;
    }));
  }
  let timer;
  function say() {
    if (said.textContent !== reads.textContent) said.textContent = reads.textContent;
  }
  function draw() {
    const [sequence, layer, head, query] = model.get("chosen");
    const { tokens } = sequences[sequence], T = tokens.length;
    drawHeads(sequence, T);
    which.value = sequence;
    slider.max = T - 1;
    slider.value = query;
    where.textContent = `${query}: ${tokens[query]}`;
    slider.setAttribute("aria-valuetext", where.textContent);
    for (const { layer: l, head: h, button } of heads) {
      button.setAttribute("aria-pressed", l === layer && h === head);
    }
    title.textContent = `${names(layer, head)}: rows ask, columns are read`;
    set(large, { viewBox: `0 0 ${T} ${T}` });
    large.setAttribute("aria-label", `Map of ${names(layer, head)}`);
    large.replaceChildren(...drawMap(maps[sequence], T, H, layer, head), svg("rect", {
      x: 0.05, y: query + 0.05, width: T - 0.1, height: 0.9, class: "b2l-gallery-row" }));
    const row = rowOf(maps[sequence], T, H, [layer, head, query]);
    [...line.children].forEach((box, key) => {
      box.style.setProperty("--weight", `${Math.round(row[key] * 100)}%`);
      box.classList.toggle("b2l-asks", key === query);
    });
    const top = most(row).map(({ weight, key }) => `${tokens[key]} at ${key} (${fixed(weight)})`);
    const found = top.join(", ") || "nothing";
    reads.textContent = `${names(layer, head)}: ${tokens[query]} at ${query} reads ${found}`;
    clearTimeout(timer);
    timer = setTimeout(say, SAY_AFTER);
  }
  model.on("change:chosen", draw);
  draw();
  say();
  return () => {
    clearTimeout(timer);
    model.off("change:chosen", draw);
  };
}

export { most, rowOf, unpack };
export default { render };
