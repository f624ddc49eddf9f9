// Labelled controls, the frame around a piece, and a summary that is spoken when the hand rests.
// plane.js stands before this in a module, the piece after it.

const QUIET = { "data-lm-suppress-shortcuts": "true" };  // or JupyterLab takes single keys
const SAY_AFTER = 600;  // ms of rest before the summary is spoken
const full = (n) => n.toLocaleString("en");

function labelled(name, control, ...more) {
  const id = "b2l" + Math.random().toString(36).slice(2);
  control.id = id;
  return html("div", { class: "b2l-control" }, html("label", { for: id }, name), control, ...more);
}

// A slider and its value as text; `show(value, max, text)`.
function makeSlider(name, onInput) {
  const input = html("input", { type: "range", min: 0, step: 1, ...QUIET });
  const output = html("output");
  const row = labelled(name, input, output);
  output.setAttribute("for", input.id);
  input.addEventListener("input", () => onInput(Number(input.value)));
  const show = (value, max, text) => {
    input.max = max;  // before the value, which it would cut
    input.value = value;
    input.setAttribute("aria-valuetext", text);
    output.textContent = text;
  };
  return { row, show };
}

// A menu of [value, text]; `show(value)`.
function makeMenu(name, options, onChange) {
  const menu = html("select", QUIET, ...options.map(([, text], i) => html("option", { value: i }, text)));
  menu.addEventListener("change", () => onChange(options[Number(menu.value)][0]));
  const show = (value) => { menu.value = options.findIndex(([option]) => option === value); };
  return { row: labelled(name, menu), show };
}

function makeBox(name, onChange) {
  const input = html("input", { type: "checkbox", ...QUIET });
  input.addEventListener("change", () => onChange(input.checked));
  const show = (value) => { input.checked = value; };
  return { row: html("label", { class: "b2l-box" }, input, ` ${name}`), show };
}

// A button that keeps the focus when it has nothing to do; `show(able)`.
function makeButton(name, onClick) {
  const button = html("button", { type: "button", ...QUIET }, name);
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") !== "true") onClick();
  });
  return { button, show: (able) => button.setAttribute("aria-disabled", !able) };
}

// The piece in its place: named, and with its keys kept to itself.
function mount({ model, el }, kind, ...content) {
  const piece = html("div", { class: `b2l-piece ${kind}`, role: "group" }, ...content);
  piece.setAttribute("aria-label", model.get("alt"));
  for (const event of ["keydown", "keypress", "keyup"]) {
    piece.addEventListener(event, (e) => e.stopPropagation());
  }
  el.replaceChildren(piece);
}

// Draws now and at each change of these traits. `draw` returns what is to be said, which is heard
// at rest; a page that opens has nothing new to say. Returns how to stop.
function follow(model, names, said, draw) {
  let timer;
  const redraw = () => {
    const sentence = draw();
    clearTimeout(timer);
    timer = setTimeout(() => { if (said.textContent !== sentence) said.textContent = sentence; }, SAY_AFTER);
  };
  const events = names.map((name) => `change:${name}`);
  for (const event of events) model.on(event, redraw);
  said.textContent = draw();
  return () => {
    clearTimeout(timer);
    for (const event of events) model.off(event, redraw);
  };
}
const makeSaid = () => html("div", { class: "b2l-said", "aria-live": "polite" });
