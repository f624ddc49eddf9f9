// A query and a key as arrows on circles, one circle for each pair of features, turned by their
// positions m and n as RoPE does. plane.js stands before this in the module.

// D/2 frequencies, radians a token: theta^(-2i/dim), and 0 for the pairs that do not turn.
const frequenciesOf = (D, dim, theta) => Array.from({ length: D / 2 },
  (_, i) => (2 * i < dim ? theta ** ((-2 * i) / dim) : 0));

// x (D) at a position -> its pairs (2i, 2i + 1), each turned by position · frequency i.
const turn = (x, position, frequencies) => frequencies.map((frequency, i) => {
  const [a, b] = [x[2 * i], x[2 * i + 1]];
  const [cos, sin] = [Math.cos(position * frequency), Math.sin(position * frequency)];
  return [a * cos - b * sin, a * sin + b * cos];
});

// The turned pairs, each pair's part of the score, and the score, their sum.
function scoreAt({ q, k, m, n, frequencies }) {
  const [queries, keys] = [turn(q, m, frequencies), turn(k, n, frequencies)];
  const parts = queries.map(([x, y], i) => x * keys[i][0] + y * keys[i][1]);
  return { queries, keys, parts, score: parts.reduce((sum, part) => sum + part, 0) };
}

const QUIET = { "data-lm-suppress-shortcuts": "true" };  // or JupyterLab takes single keys
const SAY_AFTER = 600;  // ms of rest before the summary is spoken
const SIDE = 140, CENTRE = SIDE / 2, RADIUS = 62;  // of a circle's drawing
const QUARTERS = 4;  // points of the curve for each token
// Turned back and forth, a sum differs in its last bits: these must not flip what is printed.
const steady = (x) => fixed(Math.round(x * 1e9) / 1e9);
const whole = (n) => String(n).replace("-", "−");
const brief = (x) => (x < 1000 ? String(Number(x.toPrecision(3))) : String(Math.round(x)));
const angleOf = ([x, y]) => Math.atan2(y, x);
const degrees = (angle) => `${whole(Math.round((angle * 180) / Math.PI) || 0)}°`;  // no −0°
const wrapped = (angle) => angle - 2 * Math.PI * Math.round(angle / (2 * Math.PI));

// A line of the piece: a label, an input, and its value as text, unless others show that.
function makeSlider(name, onInput, quiet = false) {
  const id = "b2l" + Math.random().toString(36).slice(2), output = html("output", { for: id });
  const input = html("input", { id, type: "range", min: 0, step: 1, ...QUIET });
  input.addEventListener("input", () => onInput(Number(input.value)));
  const show = (value, max, text) => {
    input.max = max;  // before the value, which it would cut
    input.value = value;
    input.setAttribute("aria-valuetext", text);
    if (!quiet) output.textContent = text;
  };
  const label = html("label", { for: id }, name);
  return { show, row: html("div", { class: "b2l-control" }, label, input, output) };
}

// One pair's circle; `show(distance, query, key, part)` draws the turned pair and its numbers.
function makeCircle(i, frequency, [query0, key0], unit, widest) {
  const place = ([x, y]) => [CENTRE + x * unit, CENTRE - y * unit];
  const shaft = (vector, role, width) =>
    arrow({ from: place([0, 0]), to: place(vector), role, width });
  const orbit = (vector, role) => svg("circle", { cx: CENTRE, cy: CENTRE, class: "b2l-orbit",
    r: Math.hypot(...vector) * unit, stroke: `var(--b2l-${role})` });
  const began = svg("g", { opacity: 0.3 }, shaft(key0, "key", 3.5), shaft(query0, "query", 2));
  const axes = svg("path", { d: `M0 ${CENTRE}H${SIDE}M${CENTRE} 0V${SIDE}`, class: "b2l-axes" });
  const moving = svg("g");
  const root = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img" },
    axes, orbit(key0, "key"), orbit(query0, "query"), began, moving);
  const speed = frequency ? `${brief((2 * Math.PI) / frequency)} tokens a turn` : "never turns";
  const apart = wrapped(angleOf(query0) - angleOf(key0));  // before they are turned
  const angle = html("span"), amount = html("b"), bar = html("i");
  const figure = html("figure", {},
    html("figcaption", {}, html("strong", {}, `Pair ${i}`), html("br"), speed), root,
    html("p", {}, angle, html("br"), "adds ", amount),
    html("div", { class: "b2l-bar" }, bar));
  const show = (distance, query, key, part) => {
    const from = angleOf(key), by = wrapped(angleOf(query) - from);
    const lengths = [Math.hypot(...query), Math.hypot(...key)], exists = Math.min(...lengths) > 0;
    const r = Math.min(...lengths.map((length) => length * unit)) * 0.5;
    const at = (a) => `${CENTRE + r * Math.cos(a)} ${CENTRE - r * Math.sin(a)}`;
    const d = `M${at(from)}A${r} ${r} 0 0 ${by > 0 ? 0 : 1} ${at(from + by)}`;
    moving.replaceChildren(...(exists ? [svg("path", { d, class: "b2l-between" })] : []),
      shaft(key, "key", 4), shaft(query, "query", 2.2));
    root.setAttribute("aria-label", `Pair ${i}: query ${point(query)}, key ${point(key)}`);
    const turned = `${distance < 0 ? "−" : "+"} ${degrees(Math.abs(distance) * frequency)}`;
    angle.textContent = exists ? `angle ${degrees(apart)} ${turned}` : "no angle";
    amount.textContent = steady(part);
    const long = (50 * part) / widest;
    bar.style.left = `${50 + Math.min(long, 0)}%`;  // to the left of the middle if negative
    bar.style.width = `${Math.abs(long)}%`;
  };
  return { figure, show };
}

// Round numbers from low to high, about five of them.
function ticksOf(low, high) {
  const rough = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((n) => n * unit >= rough * 0.999) * unit;
  const first = Math.ceil(low / step), count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => (first + i) * step);
}

// The score of every distance from -last to last; `show(distance, score)` marks one of them.
// The drawing is stretched to the page's width, so numbers and the mark are no part of it.
function makePlot(last, scoreOf) {
  const points = Array.from({ length: 2 * last * QUARTERS + 1 }, (_, i) => {
    const distance = i / QUARTERS - last;
    return [distance, scoreOf(distance)];
  });
  const scores = points.map(([, score]) => score);
  const [least, most] = [Math.min(0, ...scores), Math.max(0, ...scores)];
  const room = 0.06 * (most - least) || 1, low = least - room, high = most + room;
  const across = (distance) => (100 * (distance + last)) / (2 * last);
  const down = (score) => (100 * (high - score)) / (high - low);
  const line = points.map(([distance, score]) => `${across(distance)} ${down(score)}`).join("L");
  const [columns, rows] = [ticksOf(-last, last).filter(Number.isInteger), ticksOf(low, high)];
  const grid = [...columns.map((x) => [x, `M${across(x)} 0V100`]),
    ...rows.map((y) => [y, `M0 ${down(y)}H100`])];
  const drawing = svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none",
    "aria-hidden": "true" },
    ...grid.map(([tick, d]) => svg("path", { d, class: tick ? "b2l-grid" : "b2l-grid b2l-zero" })),
    svg("path", { d: `M${line}`, class: "b2l-curve" }));
  const rule = html("i", { class: "b2l-rule" }), dot = html("i", { class: "b2l-dot" });
  const names = rows.map((y) => brief(Math.abs(y)).replace(/^(?!0$)/, y < 0 ? "−" : ""));
  const tick = (kind, text, style) => html("span", { class: kind, style }, text);
  const area = html("div", { class: "b2l-plot", role: "img", "aria-label":
    `Score against m − n, from ${steady(Math.min(...scores))} to ${steady(most)}; ` +
    `${steady(scoreOf(0))} at 0` }, drawing, rule, dot,
    ...rows.map((y, i) => tick("b2l-tick-y", names[i], `top: ${down(y)}%`)),
    ...columns.map((x) => tick("b2l-tick-x", whole(x), `left: ${across(x)}%`)));
  area.style.setProperty("--gutter", `${Math.max(...names.map((name) => name.length)) + 2}ch`);
  const show = (distance, score) => {
    rule.style.left = dot.style.left = `${across(distance)}%`;
    dot.style.top = `${down(score)}%`;
  };
  return { area, show };
}

function render({ model, el }) {
  const [q, k, dim, theta, last] = ["q", "k", "dim", "theta", "last"].map((name) => model.get(name));
  const frequencies = frequenciesOf(q.length, dim, theta);
  const start = { m: model.get("m"), n: model.get("n") };
  const at = (m, n) => scoreAt({ q, k, m, n, frequencies });
  const { queries, keys } = at(0, 0), lengths = (pairs) => pairs.map((pair) => Math.hypot(...pair));
  const unit = RADIUS / (Math.max(...lengths(queries), ...lengths(keys)) || 1);
  const widest = Math.max(...lengths(queries).map((length, i) => length * lengths(keys)[i])) || 1;

  function change(changes) {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
  }
  const query = makeSlider("Query at m", (m) => change({ m }));
  const key = makeSlider("Key at n", (n) => change({ n }));
  const both = makeSlider("Both together", (first) => {
    const by = first - Math.min(model.get("m"), model.get("n"));
    change({ m: model.get("m") + by, n: model.get("n") + by });
  }, true);
  const reset = html("button", { type: "button", ...QUIET }, "Reset");
  reset.addEventListener("click", () => change(start));

  const circles = frequencies.map((frequency, i) =>
    makeCircle(i, frequency, [queries[i], keys[i]], unit, widest));
  const plot = makePlot(last, (distance) => at(distance, 0).score);
  const role = (name, text) => html("b", { style: `border-color: var(--b2l-${name})` }, text);
  // Heard from `said`, when the hand rests; what is seen follows at once.
  const reads = html("p", { class: "b2l-reads", "aria-hidden": "true" });
  const said = html("div", { class: "b2l-said", "aria-live": "polite" });
  const piece = html("div", { class: "b2l-piece b2l-dial", role: "group" },
    html("div", { class: "b2l-dial-controls" }, query.row, key.row, both.row),
    html("div", { class: "b2l-dial-reads" }, reads, reset),
    html("p", {}, role("query", "query"), " at m, ", role("key", "key"), " at n; faint: both at 0; ",
      role("position", "angle"), " between them: at 0, + (m − n) · speed"),
    html("div", { class: "b2l-dial-circles" }, ...circles.map(({ figure }) => figure)),
    html("figure", {}, html("figcaption", {}, html("strong", {}, "Score against m − n"),
      "; left of 0 the key lies ahead of the query"), plot.area), said);
  piece.setAttribute("aria-label", model.get("alt"));
  for (const event of ["keydown", "keypress", "keyup"]) {
    piece.addEventListener(event, (e) => e.stopPropagation());
  }
  el.replaceChildren(piece);

  let timer, sentence;
  function say() {  // with the positions, so that a move of both is heard with the same score
    if (said.textContent !== sentence) said.textContent = sentence;
  }
  function draw() {
    const [m, n] = [model.get("m"), model.get("n")], first = Math.min(m, n);
    const { queries, keys, parts, score } = at(m, n);
    query.show(m, last, `m = ${m}`);
    key.show(n, last, `n = ${n}`);
    both.show(first, last - Math.abs(m - n), `m = ${m}, n = ${n}`);
    circles.forEach(({ show }, i) => show(m - n, queries[i], keys[i], parts[i]));
    plot.show(m - n, score);
    reads.textContent = `m − n = ${whole(m - n)}: score ${steady(score)}`;
    sentence = `m = ${m}, n = ${n}, ${reads.textContent}`;
    clearTimeout(timer);
    timer = setTimeout(say, SAY_AFTER);
  }
  const events = ["change:m", "change:n"];
  for (const event of events) model.on(event, draw);
  draw();
  say();  // so that a page that opens has nothing new to say
  return () => {
    clearTimeout(timer);
    for (const event of events) model.off(event, draw);
  };
}

export { frequenciesOf, scoreAt };
export default { render };
