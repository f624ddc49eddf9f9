// Small repairs to what the theme generates, so that everyone can use it.
addEventListener("DOMContentLoaded", () => {
  // The fold buttons in the navigation are icons only: give them a name.
  for (const summary of document.querySelectorAll("details > summary:not([aria-label])")) {
    if (summary.textContent.trim()) continue;
    const name = summary.closest("li")?.querySelector("a")?.textContent.trim() ?? "this part";
    summary.setAttribute("aria-label", `Fold or unfold ${name}`);
  }
  // The bibliography claims to be a list but holds bare links.
  for (const part of document.querySelectorAll(".citation-list, .citation-list [role]")) {
    part.removeAttribute("role");
  }
  // A table that scrolls sideways can be reached by keyboard.
  const reach = () => {
    for (const table of document.querySelectorAll(".bd-article table")) {
      table.toggleAttribute("tabindex", table.scrollWidth > table.clientWidth);
      if (table.hasAttribute("tabindex")) table.tabIndex = 0;
    }
  };
  reach();
  addEventListener("resize", reach);
  addEventListener("toggle", reach, true); // a fold opened
});
