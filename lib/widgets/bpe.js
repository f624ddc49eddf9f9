// Byte pair encoding as lib/tokenizer.py has it, for pages without a kernel: the same split, the
// same merges, the same ids. Left out: training, and special tokens, which are plain text here.

// The split patterns of lib/tokenizer.py for JavaScript. `(?i:...)` is spelled out; `++` may be `+`,
// for giving characters back leads to no other match after any of them.
const PATTERNS = {
  gpt2: String.raw`'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
  gpt4: String.raw`'(?:[sdmtSDMT\u017f]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+` +
    String.raw`|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+$|\s*[\r\n]|\s+(?!\S)|\s`,
};
// White space in Python is Unicode's; JavaScript's \s has U+FEFF as well and lacks U+0085.
const compile = (source) => new RegExp(
  source.replaceAll("\\s", "\\p{White_Space}").replaceAll("\\S", "\\P{White_Space}"), "gu");

const LONG_WORD = 64, CACHE_WORDS = 20000;
const utf8 = new TextEncoder();

// state: { pattern: "gpt2" | "gpt4", byte_ids: [256 ids], merges: "left right left right ...",
// made: [[first id, how many], ...] }, the merges in the order of the ids that they make.
function makeEncoder(state) {
  const pattern = compile(PATTERNS[state.pattern]);
  const pairs = state.merges ? state.merges.split(" ").map(Number) : [];
  const made = state.made.flatMap(([first, n]) => Array.from({ length: n }, (_, i) => first + i));
  const key = (left, right) => left * 2 ** 24 + right;
  const table = new Map();  // pair -> number of the merge
  const tokens = new Map(state.byte_ids.map((id, byte) => [id, { bytes: [byte] }]));
  made.forEach((id, merge) => {
    const left = pairs[2 * merge], right = pairs[2 * merge + 1];
    table.set(key(left, right), merge);
    const bytes = [...tokens.get(left).bytes, ...tokens.get(right).bytes];
    tokens.set(id, { bytes, left, right, merge });
  });

  // The lowest merge that is possible, everywhere in the word, until none is.
  function mergeShort(ids, steps) {
    for (;;) {
      let merge = Infinity;
      for (let i = 0; i + 1 < ids.length; i++) {
        merge = Math.min(merge, table.get(key(ids[i], ids[i + 1])) ?? Infinity);
      }
      if (merge === Infinity) return ids;
      const merged = [];
      for (let i = 0; i < ids.length; i++) {
        const here = ids[i] === pairs[2 * merge] && ids[i + 1] === pairs[2 * merge + 1];
        merged.push(here ? made[merge] : ids[i]);
        if (here) i++;
      }
      ids = merged;
      steps?.push({ merge, ids });
    }
  }

  // The same in one pass through the merges: what a merge makes is joined by later merges only.
  function mergeLong(ids) {
    const n = ids.length, next = ids.map((_, i) => i + 1), before = ids.map((_, i) => i - 1);
    const places = [];  // number of a merge -> where it may be possible
    const note = (at) => {
      const merge = at < 0 ? undefined : table.get(key(ids[at], ids[next[at]]));
      if (merge !== undefined) (places[merge] ??= []).push(at);
    };
    ids.forEach((_, at) => note(at));
    for (let merge = 0; merge < made.length; merge++) {
      for (const at of places[merge]?.sort((a, b) => a - b) ?? []) {
        const gone = next[at];
        if (ids[at] !== pairs[2 * merge] || ids[gone] !== pairs[2 * merge + 1]) continue;
        ids[at] = made[merge];
        ids[gone] = -1;
        next[at] = next[gone];
        if (next[at] < n) before[next[at]] = at;
        note(before[at]);
        note(at);
      }
    }
    return ids.filter((id) => id >= 0);
  }

  const bytesOf = (word) => Array.from(utf8.encode(word), (byte) => state.byte_ids[byte]);
  const known = new Map();
  function encodeWord(word) {
    if (known.has(word)) return known.get(word);
    const start = bytesOf(word), long = start.length > LONG_WORD;
    const ids = long ? mergeLong(start) : mergeShort(start);
    if (known.size >= CACHE_WORDS) known.clear();
    if (!long) known.set(word, ids);
    return ids;
  }
  function steps(word) {
    const found = [{ ids: bytesOf(word) }];
    mergeShort(found[0].ids, found);
    return found;
  }
  const split = (text) => text.match(pattern) ?? [];
  return { split, encodeWord, steps, tokens, encode: (text) => split(text).flatMap(encodeWord) };
}

const MARKS = { " ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍", "\u00a0": "⍽" };
const codePoint = (c) => "U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
const hex = (bytes) => bytes.map((b) => b.toString(16).toUpperCase().padStart(2, "0")).join(" ");
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }), loose = new TextDecoder();

// A token's bytes as [{ text, cut }]: characters with white space made visible, and in hexadecimal
// (cut: true) the bytes of a character that the token has only a part of.
function visible(bytes) {
  const parts = [];
  for (let i = 0, size; i < bytes.length; i += size) {
    size = bytes[i] < 0x80 ? 1 : bytes[i] < 0xe0 ? 2 : bytes[i] < 0xf0 ? 3 : 4;
    let text, cut = false;
    try { text = strict.decode(Uint8Array.from(bytes.slice(i, i + size))); }
    catch { text = hex([bytes[i]]); cut = true; size = 1; }
    if (parts.at(-1)?.cut === cut) parts.at(-1).text += cut ? " " + text : text;
    else parts.push({ text, cut });
  }
  for (const part of parts.filter((p) => !p.cut)) {
    // Joiners and marks of direction do their work unseen, but alone they would be an empty box.
    const unseen = /^[\p{Cf}\p{Variation_Selector}]+$/u.test(part.text);
    const hidden = unseen ? /./gu : /[\p{White_Space}\p{Cc}]/gu;
    if (!unseen && /^\p{M}/u.test(part.text)) part.text = "◌" + part.text;
    part.text = part.text.replace(hidden, (c) => MARKS[c] ?? codePoint(c));
  }
  return parts;
}

export { makeEncoder, visible };
