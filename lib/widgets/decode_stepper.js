// Which cells of q, K, V and the scores are computed at each step of prefill and decode, and which
// rows are read from the cache. plane.js and controls.js stand before this in the module.

const FEEDS = [[null, "at once"], [2, "in chunks of 2"], [1, "one by one"]];
const LEGEND = {
  new: "computed now", again: "computed again", hidden: "computed, then hidden by the mask",
  kept: "read from the cache", past: "computed earlier, not needed now",
};

// The tokens [from, to) that each step reads: the prompt in chunks, then one at a time. The last
// word is chosen, never read.
function stepsOf(words, prompt, chunk) {
  const steps = [];
  for (let from = 0, to; from < words - 1; from = to) {
    to = from < prompt ? Math.min(from + (chunk ?? prompt), prompt) : from + 1;
    steps.push({ from, to });
  }
  return steps;
}

// The work of one step: rows from `first` on are computed, those before are read. Scores are the
// whole rectangle of T queries and S = `to` keys; `rows` are those of K and of V together.
function workOf({ from, to }, cached) {
  const first = cached ? from : 0, T = to - first;
  return { first, scores: T * to, hidden: (T * (T - 1)) / 2, rows: 2 * T, read: 2 * first };
}

const sum = (works, name) => works.reduce((all, work) => all + work[name], 0);

// What one step does, in words.
function tell({ words, prompt, chunk, cached }, { from, to }) {
  const { first, scores, hidden } = workOf({ from, to }, cached), T = to - first;
  const chunks = Math.ceil(prompt / (chunk ?? prompt));
  const part = chunks > 1 ? `, part ${Math.ceil(to / chunk)} of ${chunks}` : "";
  const stage = from < prompt ? `prefill${part}` : "decode";
  const queries = T > 1 ? `${T} queries read` : `the query of “${words[to - 1]}”` +
    `${to < prompt ? "" : ", the last known token,"} reads`;
  const keys = `${queries} ${to} ${to > 1 ? "keys and values" : "key and its value"}`;
  const source = first ? `: ${first} from the cache, ${T} new` :
    from ? `, all computed, ${from} of them again` : T > 1 ? ", all new" : "";
  const mask = hidden ? `; the mask hides ${hidden} of ${full(scores)} scores` : "";
  const needed = T > 1 && to >= prompt ? " The last row alone says what comes next:" : " Next:";
  const end = to < prompt ? " Nothing is said yet." : `${needed} “${words[to]}”`;
  return `${stage}: ${keys}${source}${mask}.${end}`;
}

function render({ model, el }) {
  const words = model.get("words"), N = words.length - 1;  // tokens that are read
  const get = () => {
    const [prompt, chunk, cached] = ["prompt", "chunk", "cached"].map((name) => model.get(name));
    const steps = stepsOf(words.length, prompt, chunk);
    return { prompt, chunk, cached, steps, step: Math.min(model.get("step"), steps.length - 1) };
  };
  function change(name, value) {
    model.set(name, value);
    model.set("step", get().step);  // there may be fewer now
    model.save_changes();
  }
  const slider = makeSlider("Step", (step) => change("step", step));
  const back = makeButton("‹ Previous", () => change("step", get().step - 1));
  const next = makeButton("Next ›", () => change("step", get().step + 1));
  const given = makeSlider("Prompt", (i) => change("prompt", i + 1));
  const feed = makeMenu("Prompt is read", FEEDS, (chunk) => change("chunk", chunk));
  const box = makeBox("keep keys and values in a cache", (cached) => change("cached", cached));

  const grid = html("div", { class: "b2l-decode-grid", role: "img" });
  grid.style.setProperty("--n", N);
  const legend = html("p", { class: "b2l-decode-legend" });
  const reads = html("p", { class: "b2l-reads", "aria-hidden": "true" }), said = makeSaid();
  const grown = html("p"), body = html("tbody"), th = (text, scope, more) => html("th", { scope, ...more }, text);
  const head = html("thead", {},
    html("tr", {}, html("td"), th("with a cache", "colgroup", { colspan: 2 }), th("without", "colgroup", { colspan: 2 })),
    html("tr", {}, th("one head, one layer", "col"),
      ...["step", "so far", "step", "so far"].map((text) => th(text, "col"))));
  mount({ model, el }, "b2l-decode", slider.row,
    html("div", { class: "b2l-decode-buttons" }, back.button, next.button, box.row),
    html("div", { class: "b2l-decode-feed" }, given.row, feed.row),
    reads, grid, legend, html("table", {}, head, body), grown, said);

  // A cell: `times` it has been computed, and how it takes part in this step.
  const cell = (role, row, column, times, state) => html("span", {
    class: `b2l-cell${state ? ` b2l-${state}` : ""}`, style: `grid-area: ${row} / ${column}; --role: var(--b2l-${role})`,
  }, times ? String(times) : "");
  const name = (text, row, column, kind, role) => html("span", {
    class: `b2l-name b2l-${kind}`, style: `grid-area: ${row} / ${column}`,
  }, role ? html("b", { style: `border-color: var(--b2l-${role})` }, text) : html("span", {}, text));

  // Columns: word, q, a gap, the N keys, a gap, y. Rows: words, the N queries, a gap, K, V.
  function drawCells({ steps, step, cached }) {
    const { from, to } = steps[step], { first } = workOf(steps[step], cached);
    const done = steps.slice(0, step + 1).map((s) => ({ ...s, first: workOf(s, cached).first }));
    const times = (i, j = i) => done.filter((s) => i >= s.first && Math.max(i, j) < s.to).length;
    const asks = (i) => (i >= first && i < to ? (i < from ? "again" : "new") : i < first ? "past" : "");
    const score = (i, j) => {
      if (!times(i, j)) return "";
      if (i < first) return "past";
      return j > i ? "hidden" : times(i, j) > 1 ? "again" : "new";
    };
    const held = (j) => (j < first ? "kept" : asks(j));
    const parts = [name("q", 1, 2, "column", "query"), name("y", 1, N + 5, "column", "output"),
      name("K", N + 3, "1 / auto / 3", "row", "key"), name("V", N + 4, "1 / auto / 3", "row", "value")];
    for (let i = 0; i < N; i += 1) {
      parts.push(name(words[i], i + 2, 1, "row"), name(words[i], 1, i + 4, "column"),
        cell("query", i + 2, 2, times(i), asks(i)), cell("output", i + 2, N + 5, times(i), asks(i)),
        cell("key", N + 3, i + 4, times(i), held(i)), cell("value", N + 4, i + 4, times(i), held(i)));
      for (let j = 0; j < N; j += 1) parts.push(cell("query", i + 2, j + 4, times(i, j), score(i, j)));
    }
    grid.replaceChildren(...parts);
    const range = (a, b) => (b - a > 1 ? `“${words[a]}” to “${words[b - 1]}”` : `“${words[a]}”`);
    grid.setAttribute("aria-label", `Scores, a row for each query and a column for each key, K and V below: ` +
      `now computed are rows ${range(first, to)}, columns ${range(0, to)}` +
      `${first ? `; K and V of ${range(0, first)} are read` : ""}`);
    const shown = Object.entries(LEGEND).filter(([state]) => grid.querySelector(`.b2l-${state}`));
    legend.replaceChildren(...shown.map(([state, text]) =>
      html("span", {}, html("i", { class: `b2l-cell b2l-${state}`, style: "--role: var(--b2l-query)" }), text)),
    html("span", {}, "number: how often computed"));
  }

  function drawTable({ steps, step, cached }) {
    const ways = [true, false].map((way) => steps.slice(0, step + 1).map((s) => workOf(s, way)));
    const rows = [["scores", "scores"], ["rows of K and V computed", "rows"],
      ["rows of K and V read", "read"]];
    body.replaceChildren(...rows.map(([text, name]) => html("tr", {}, th(text, "row"),
      ...ways.flatMap((works, i) => [works[step][name], sum(works, name)].map((n) =>
        html("td", cached === !i ? { class: "b2l-way" } : {}, full(n)))))));
    const n = steps[step].to;
    const single = n > 1 && steps.slice(0, step + 1).every(({ from, to }) => to - from === 1);
    grown.textContent = single ? `${n} tokens, one by one: ${n} · ${n + 1} / 2 = ${full(sum(ways[0], "scores"))} scores, ` +
      `or ${n} · ${n + 1} · ${2 * n + 1} / 6 = ${full(sum(ways[1], "scores"))}: quadratic against cubic.` : "";
  }

  return follow(model, ["step", "prompt", "chunk", "cached"], said, () => {
    const now = get(), { steps, step, prompt, cached } = now;
    const where = `${step + 1} of ${steps.length}`;
    slider.show(step, steps.length - 1, where);
    given.show(prompt - 1, N - 1, prompt > 1 ? `${prompt} words` : "1 word");
    feed.show(now.chunk);
    box.show(cached);
    back.show(step > 0);
    next.show(step < steps.length - 1);
    drawCells(now);
    drawTable(now);
    reads.textContent = `Step ${where}, ${tell({ words, ...now }, steps[step])}`;
    return reads.textContent;
  });
}

export { stepsOf, workOf };
export default { render };
