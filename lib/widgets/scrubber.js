// One slider per axis over pre-drawn frames. With a kernel, `live` brings the frame drawn anew.
function render({ model, el }) {
  const names = model.get("names"), labels = model.get("labels"), grid = model.get("grid");
  const uid = "b2l" + Math.random().toString(36).slice(2);
  el.innerHTML = "";
  const piece = document.createElement("div");
  piece.className = "b2l-piece";
  piece.setAttribute("role", "group");
  piece.setAttribute("aria-label", model.get("alt"));
  const frame = document.createElement("div");
  frame.className = "b2l-frame";
  const said = document.createElement("div");
  said.className = "b2l-said";
  said.setAttribute("aria-live", "polite");
  const sliders = names.map((name, axis) => {
    const row = document.createElement("div");
    row.className = "b2l-control";
    row.innerHTML = `<label for="${uid}-${axis}"></label>
      <input id="${uid}-${axis}" type="range" min="0" step="1" data-lm-suppress-shortcuts="true">
      <output for="${uid}-${axis}"></output>`;
    const [label, input, output] = row.children;
    label.textContent = name;
    input.max = labels[axis].length - 1;
    input.addEventListener("input", () => {
      const position = [...model.get("position")];
      position[axis] = Number(input.value);
      model.set("position", position);
      model.save_changes();
    });
    piece.append(row);
    return { input, output };
  });
  piece.append(frame, said);
  el.append(piece);

  function show(picture, aloud) {
    frame.innerHTML = picture.svg;
    if (aloud) said.textContent = picture.alt;
  }
  function move(aloud) {
    const position = model.get("position");
    let index = 0;
    sliders.forEach(({ input, output }, axis) => {
      const label = labels[axis][position[axis]];
      input.value = position[axis];
      input.setAttribute("aria-valuetext", label);
      output.textContent = label;
      index = index * labels[axis].length + position[axis];
    });
    show(model.get("frames")[grid[index]], aloud);
  }
  function redrawn() {
    const live = model.get("live");
    if (String(live.position) === String(model.get("position"))) show(live, true);
  }
  const moved = () => move(true);
  model.on("change:position", moved);
  model.on("change:live", redrawn);
  move(false);
  return () => { model.off("change:position", moved); model.off("change:live", redrawn); };
}
export default { render };
