// Draws the course's interactive pieces on the static page: no kernel, no network, no framework.
// myst-nb leaves each piece as a view (a model's id) and all models' states as JSON in the page.
(() => {
  class Model {
    constructor(state) { this.state = state; this.listeners = {}; this.changed = new Set(); }
    get(name) { return this.state[name]; }
    set(name, value) { this.state[name] = value; this.changed.add(name); this.emit(name); }
    on(event, callback) { (this.listeners[event] ??= []).push(callback); }
    off(event, callback) {
      this.listeners[event] = (this.listeners[event] ?? []).filter((c) => callback && c !== callback);
    }
    emit(name) { for (const c of this.listeners[`change:${name}`] ?? []) c(); }
    save_changes() { this.changed.clear(); }
    send() {}
  }

  async function load(text) {
    const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    try { return (await import(url)).default; } finally { URL.revokeObjectURL(url); }
  }

  function parse(script) {
    const value = JSON.parse(script.textContent);
    return typeof value === "string" ? JSON.parse(value.replaceAll("'", '"')) : value;
  }

  async function draw() {
    const states = Object.assign({}, ...[...document.querySelectorAll(
      'script[type="application/vnd.jupyter.widget-state+json"]')].map((s) => parse(s).state));
    const modules = new Map(), styles = new Set();
    for (const view of document.querySelectorAll(
      'script[type="application/vnd.jupyter.widget-view+json"]')) {
      const { state } = states[parse(view).model_id] ?? {};
      if (!state?._esm) continue;
      const el = document.createElement("div");
      el.className = "b2l b2l-widget";
      view.after(el);
      if (state._css && !styles.has(state._css)) {
        styles.add(state._css);
        document.head.append(Object.assign(document.createElement("style"), { textContent: state._css }));
      }
      try {
        if (!modules.has(state._esm)) modules.set(state._esm, load(state._esm));
        let piece = await modules.get(state._esm);
        if (typeof piece === "function") piece = await piece();
        const model = new Model(state);
        await piece.initialize?.({ model });
        await piece.render({ model, el });
        el.dataset.drawn = "true";
      } catch (error) {
        console.error("A piece of this page could not be drawn.", error);
        el.textContent = state.alt;
      }
    }
    document.documentElement.dataset.widgets = "drawn";
  }
  document.readyState === "loading" ? addEventListener("DOMContentLoaded", draw) : draw();
})();
