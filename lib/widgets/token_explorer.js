// Type any text and see its tokens, ids, bytes and merges, computed here on every keystroke.
// bpe.js stands before this in the module: makeEncoder(state), visible(bytes), hex(bytes), utf8.

const DRAWN = 400;  // tokens, at a time
const STEPS_FOR = 48;  // bytes: longer words are not explained merge by merge
const RTL = /^[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const direction = (text) => (RTL.test(text.match(/\p{L}/u)?.[0]) ? "rtl" : "ltr");
const count = new Intl.NumberFormat("en").format;

function element(tag, className, content = [], attributes = {}) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...[content].flat());
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function render({ model, el }) {
  const names = ["pattern", "byte_ids", "merges", "made"];
  const encoder = makeEncoder(Object.fromEntries(names.map((name) => [name, model.get(name)])));
  const { tokens } = encoder, uid = "b2l" + Math.random().toString(36).slice(2);
  const keys = { "data-lm-suppress-shortcuts": "true" };  // or JupyterLab takes single keys
  const area = element("textarea", "", [], {
    id: uid, rows: 4, dir: "auto", spellcheck: "false", ...keys,
  });
  const list = element("div", "b2l-tokens", [], {
    role: "listbox", "aria-label": "Tokens", "aria-orientation": "horizontal", tabindex: 0, ...keys,
  });
  const counts = element("dl", "b2l-counts"), note = element("p", "b2l-note");
  const detail = element("p", "b2l-detail", [], { role: "status" });
  const merges = element("div", "b2l-merges");
  const label = element("label", "", "Type or paste any text", { for: uid });
  const parts = [label, area, counts, note, list, detail, merges];
  el.replaceChildren(element("div", "b2l-piece b2l-explorer", parts, {
    role: "group", "aria-label": model.get("alt"),
  }));

  let words = [];  // { word, end, first }: where it ends in the text, its first place in `ids`
  let ids = [], first = 0, last = -1;  // the tokens; those drawn
  let cursor = 0, chosen = -1, explained;

  const shown = new Map();  // id -> its label in parts
  function labels(id) {
    if (!shown.has(id)) shown.set(id, visible(tokens.get(id).bytes));
    return shown.get(id);
  }
  const spell = (id) => labels(id).map(({ text }) => text).join(" ");
  function box(id, place, attributes) {
    const spans = labels(id).map(({ text, cut }) => element("span", cut ? "b2l-cut" : "", text));
    return element("span", "b2l-token", spans, { dir: "auto", "data-parity": place % 2, ...attributes });
  }

  function encode() {
    const text = area.value.replace(/\p{Cs}/gu, "\ufffd");
    let end = 0;
    words = [];
    ids = [];
    for (const word of encoder.split(text)) {
      words.push({ word, end: (end += word.length), first: ids.length });
      for (const id of encoder.encodeWord(word)) ids.push(id);
    }
    const bytes = utf8.encode(text).length;
    const special = model.get("special").find((name) => text.includes(name));
    counts.replaceChildren(...Object.entries({
      characters: count([...text].length), "UTF-8 bytes": count(bytes), tokens: count(ids.length),
      "bytes per token": ids.length ? (bytes / ids.length).toFixed(2) : "–",
    }).map(([name, value]) => element("div", "", [element("dt", "", name), element("dd", "", value)])));
    note.textContent = [
      text !== area.value && "Half of a surrogate pair stands alone in this text, which lib refuses; " +
        "U+FFFD takes its place here.",
      special && `${special} is ordinary text here; lib refuses it unless told what it may mean.`,
    ].filter(Boolean).join(" ");
    choose(-1);
  }

  const wordAtCursor = () => words.find(({ end }) => end >= cursor);

  function draw() {  // all tokens, or DRAWN of them around the cursor; a new row after a line's end
    const half = DRAWN / 2, at = wordAtCursor()?.first ?? 0, rows = [];
    first = Math.max(0, Math.min(Math.floor(at / half) * half - half / 2, ids.length - DRAWN));
    last = Math.min(first + DRAWN, ids.length) - 1;
    for (let i = first, open = false; i <= last; i++) {
      if (!open) rows.push({ line: element("div", "b2l-line", [], { role: "none" }), bytes: [] });
      const { line, bytes } = rows.at(-1);
      line.append(box(ids[i], i, { id: `${uid}-${i}`, role: "option", "aria-selected": "false" }));
      for (const byte of tokens.get(ids[i]).bytes) bytes.push(byte);
      open = bytes.at(-1) !== 10;
    }
    for (const { line, bytes } of rows) line.dir = direction(loose.decode(Uint8Array.from(bytes)));
    list.replaceChildren(...rows.map(({ line }) => line));
    list.hidden = !ids.length;
  }

  function describe(i) {
    if (i < 0) {
      const part = `Drawn are tokens ${count(first + 1)} to ${count(last + 1)}, around the cursor. `;
      detail.textContent = !ids.length ? "No text, no tokens." : (ids.length > DRAWN ? part : "") +
        "Point at a token or tap it for its id and bytes; with the keyboard, Tab and the arrow keys.";
      return;
    }
    const { bytes, left, right, merge } = tokens.get(ids[i]);
    const origin = merge === undefined ? "one of the 256 bytes."
      : `made by merge ${count(merge + 1)}: ${spell(left)} + ${spell(right)}.`;
    detail.replaceChildren(`Token ${count(i + 1)} of ${count(ids.length)}: `, box(ids[i], i),
      ` id ${ids[i]}, ${bytes.length === 1 ? "byte" : "bytes"} ${hex(bytes)}, ${origin}`);
  }

  function explain(word = "") {  // the merges of one word, in the order in which they are applied
    if (word === explained) return;
    explained = word;
    const bytes = [...utf8.encode(word)];
    const steps = bytes.length > STEPS_FOR ? [] : encoder.steps(word);
    const name = element("bdi", "b2l-word", visible(bytes)[0]?.text ?? "");
    const title = ["The word ", name, steps.length > 1 ? ", merge by merge, the lowest number first:"
      : ": no merge joins two of its bytes."];
    const rows = steps.map(({ merge, ids: now }) => {
      const line = now.map((id, i) => box(id, i));
      const isNew = (i) => merge !== undefined && tokens.get(now[i]).merge === merge;
      line.forEach((token, i) => token.classList.toggle("b2l-new", isNew(i)));
      const step = element("span", "", merge === undefined ? "bytes" : `merge ${count(merge + 1)}`);
      return element("li", "", [step, element("span", "b2l-line", line, { dir: direction(word) })]);
    });
    const tooLong = `A word of ${count(bytes.length)} bytes; merges are listed up to ${STEPS_FOR}.`;
    if (!word) merges.replaceChildren();
    else if (!steps.length) merges.replaceChildren(element("p", "", tooLong));
    else merges.replaceChildren(element("p", "", title), element("ol", "", rows));
  }

  function choose(i) {  // a token, or with -1 none: then the word at the cursor is explained
    if (i < 0) draw();
    for (const [j, on] of [[chosen, "false"], [i, "true"]]) {
      document.getElementById(`${uid}-${j}`)?.setAttribute("aria-selected", on);
    }
    chosen = i;
    if (i < 0) list.removeAttribute("aria-activedescendant");
    else list.setAttribute("aria-activedescendant", `${uid}-${i}`);
    describe(i);
    explain((i < 0 ? wordAtCursor() : words.findLast((word) => word.first <= i))?.word);
  }

  const place = (event) => {
    const token = event.target.closest("[role=option]");
    return token ? Number(token.id.split("-")[1]) : -1;
  };
  area.addEventListener("input", () => {
    cursor = area.selectionStart;
    encode();
    model.set("text", area.value);
    model.save_changes();
  });
  for (const event of ["keyup", "click"]) {
    area.addEventListener(event, () => {
      if (cursor === area.selectionStart) return;
      cursor = area.selectionStart;
      const at = wordAtCursor()?.first ?? 0;
      if (at < first || at > last) choose(-1);
      else explain(wordAtCursor()?.word);
    });
  }
  for (const event of ["keydown", "keypress", "keyup"]) {
    el.firstChild.addEventListener(event, (e) => e.stopPropagation());
  }
  list.addEventListener("click", (event) => { if (place(event) >= 0) choose(place(event)); });
  list.addEventListener("pointerover", (event) => describe(place(event) < 0 ? chosen : place(event)));
  list.addEventListener("pointerleave", () => describe(chosen));
  list.addEventListener("focus", () => {
    if (chosen < 0 && list.matches(":focus-visible")) choose(first);
  });
  list.addEventListener("keydown", (event) => {
    const back = list.querySelector("[aria-selected=true]")?.parentElement.dir === "rtl" ? -1 : 1;
    const moves = { ArrowRight: chosen + back, ArrowLeft: chosen - back, Home: first, End: last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(Math.min(Math.max(moves[event.key], first), last));
    list.querySelector("[aria-selected=true]").scrollIntoView({ block: "nearest" });
  });

  function fill() {  // the text as the page or the kernel gives it
    if (area.value === model.get("text")) return;
    area.value = model.get("text");
    cursor = 0;
    encode();
  }
  model.on("change:text", fill);
  area.value = model.get("text");
  encode();
  return () => model.off("change:text", fill);
}
export default { render };
