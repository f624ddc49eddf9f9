// Vectors as arrows in a plane, with labels that stay off each other. Pieces stand after this in
// their module and use makePlane, reachOf, html, svg, set, fixed, number and point.

// A drawing, 320 wide: the plane's left and upper edge, half its side, and room for numbers.
const LEFT = 38, TOP = 4, HALF = 138, RIGHT = LEFT + 2 * HALF, BOTTOM = TOP + 2 * HALF;
const WIDTH = 320, HEIGHT = BOTTOM + 20;
const FONT = 13;
const ruler = document.createElement("canvas").getContext("2d");
ruler.font = `600 ${FONT}px "DejaVu Sans", Verdana, "Segoe UI", sans-serif`;

const fixed = (x) => (Math.abs(x) < 0.005 ? 0 : x).toFixed(2).replace("-", "−");
const number = (x) => fixed(x).replace(/\.?0+$/, "");
const point = (vector) => `(${vector.map(number).join(", ")})`;

function set(element, attributes, content = []) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...content);
  return element;
}
const html = (tag, attributes = {}, ...content) =>
  set(document.createElement(tag), attributes, content);
const svg = (tag, attributes = {}, ...content) =>
  set(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, content);

// How far a plane for these vectors reaches: 1, 2, 4 or 8 times a power of ten.
function reachOf(vectors) {
  const longest = 1.1 * Math.max(...vectors.map(([x, y]) => Math.hypot(x, y))) || 1;
  const unit = 10 ** Math.floor(Math.log10(longest));
  return [1, 2, 4, 8, 10].find((n) => n * unit >= longest) * unit;
}

// A plane from -reach to reach. `place` goes from a vector to its place in the drawing, `read` back
// from a pointer; `draw` takes arrows { vector, role, label, width }, the first drawn on top.
function makePlane(reach, name) {
  const unit = HALF / reach, place = ([x, y]) => [LEFT + HALF + x * unit, TOP + HALF - y * unit];
  const grid = [-4, -3, -2, -1, 0, 1, 2, 3, 4].flatMap((quarter) => {
    const at = (quarter * reach) / 4, [x, y] = place([at, at]);
    const line = svg("path", { d: `M${x} ${TOP}V${BOTTOM}M${LEFT} ${y}H${RIGHT}`,
      stroke: "currentColor", "stroke-opacity": quarter ? 0.13 : 0.5 });
    const tick = (x, y, anchor) => svg("text", { x, y, "text-anchor": anchor, "font-size": 11,
      fill: "currentColor" }, number(at));
    return quarter % 2 ? [line] :
      [line, tick(x, HEIGHT - 5, quarter < 4 ? "middle" : "end"), tick(LEFT - 5, y + 4, "end")];
  });
  const drawing = svg("g");
  const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": name },
    ...grid, drawing);
  const read = ({ clientX, clientY }) => {
    const box = root.getBoundingClientRect(), scale = WIDTH / box.width;
    const [x, y] = [(clientX - box.left) * scale, (clientY - box.top) * scale];
    return [(x - LEFT - HALF) / unit, (TOP + HALF - y) / unit];
  };
  const draw = (arrows, ...above) => {
    const from = place([0, 0]);
    const drawn = arrows.map((mark) => ({ ...mark, from, to: place(mark.vector) }));
    drawing.replaceChildren(...drawn.map(arrow).reverse(), ...above, ...placeLabels(drawn));
  };
  return { root, place, read, draw };
}

// The shaft and the head, which ends in `to`. A vector of length 0 is a dot.
function arrow({ from, to, role, width }) {
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]], length = Math.hypot(dx, dy);
  const color = `var(--b2l-${role})`, head = Math.min(6 + 1.5 * width, length);
  if (length < 1) return svg("circle", { cx: to[0], cy: to[1], r: 2 + width / 2, fill: color });
  const [ux, uy] = [dx / length, dy / length], neck = [to[0] - head * ux, to[1] - head * uy];
  const [a, b] = [0.45, -0.45].map((s) => [neck[0] - s * head * uy, neck[1] + s * head * ux]);
  return svg("g", {},
    svg("path", { d: `M${from}L${neck}`, stroke: color, "stroke-width": width }),
    svg("path", { d: `M${to}L${a}L${b}z`, fill: color }));
}

// A label for each of the arrows { from, to, label }, by its tip: the place around it that costs
// least. Another label or the edge costs most, then a tip, a line, distance, and a turn away from
// the arrow's own direction. A label that had to go far gets a line to its tip.
function placeLabels(arrows) {
  const taken = [], along = [0.2, 0.35, 0.5, 0.65, 0.8, 0.92];
  const tips = arrows.map(({ to }) => to);
  const shafts = arrows.flatMap(({ from, to }) =>
    along.map((t) => [from[0] + t * (to[0] - from[0]), from[1] + t * (to[1] - from[1])]));
  const meets = (a, b) => Math.abs(a.x - b.x) < a.w + b.w && Math.abs(a.y - b.y) < a.h + b.h;
  const covers = (box, [x, y]) => meets(box, { x, y, w: 0, h: 0 });
  const outside = ({ x, y, w, h }) => x - w < LEFT || x + w > WIDTH || y - h < 0 || y + h > BOTTOM;
  const cost = (box) => 1000 * taken.filter((other) => meets(box, other)).length +
    1000 * outside(box) + 80 * tips.filter((tip) => covers(box, tip)).length +
    15 * shafts.filter((place) => covers(box, place)).length;
  return arrows.filter(({ label }) => label).map(({ from, to, label }) => {
    const w = ruler.measureText(label).width / 2 + 4, h = FONT / 2 + 3;
    const outward = Math.atan2(to[1] - from[1], to[0] - from[0]);
    let best = { cost: Infinity };
    for (const gap of [11, 17, 27, 40, 56]) {
      for (let turn = -8; turn < 8; turn++) {
        const angle = outward + (turn * Math.PI) / 8;
        const [x, y] = [to[0] + Math.cos(angle) * (gap + w), to[1] + Math.sin(angle) * (gap + h)];
        const box = { x, y, w, h, gap };
        box.cost = cost(box) + gap + 3 * Math.abs(turn);
        if (box.cost < best.cost) best = box;
      }
    }
    taken.push(best);
    const x = Math.min(Math.max(to[0], best.x - w), best.x + w);  // the side of the label that
    const y = best.y + Math.sign(to[1] - best.y) * h;  // faces the tip
    const leader = svg("path", { d: `M${to}L${x} ${y}`, stroke: "currentColor",
      "stroke-width": 0.8 });
    const text = svg("text", { x: best.x, y: best.y + FONT * 0.36, "text-anchor": "middle",
      "font-size": FONT, "font-weight": 600, fill: "currentColor", class: "b2l-label" }, label);
    return svg("g", {}, ...(best.gap > 17 ? [leader] : []), text);
  });
}
