"""A browser for the tests, an installed one or else Playwright's own, and a page for one piece."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error, sync_playwright

from lib.widgets.piece import module

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]


@contextlib.contextmanager
def open_browser():
    """A headless browser; ends the tests with one sentence where none can be had."""
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, NAMES)), None)
        try:
            browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        except Error:
            get = [sys.executable, "-m", "playwright", "install", "chromium"]
            if path or subprocess.run(get, capture_output=True).returncode:
                raise SystemExit(
                    "The site's tests need a browser: install Chrome or Chromium, then run again."
                ) from None
            browser = playwright.chromium.launch(args=QUIET)
        yield browser
        browser.close()


@contextlib.contextmanager
def open_pages(browser):
    """A function of (piece, theme, width) that draws the piece in a page like the book's.

    It is drawn by the host script, without a kernel; afterwards: nothing may be amiss.
    """
    opened, amiss = [], []

    def go(piece, theme="light", width=1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        opened.append(page)
        page.on("console", lambda m: amiss.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: amiss.append(str(e)))
        page.set_content(page_of(piece, theme))
        page.wait_for_selector("html[data-widgets=drawn]")
        return page

    yield go
    for page in opened:
        page.close()
    assert not amiss, amiss


def page_of(piece, theme="light"):
    """The HTML of a page with one piece: its state, its view, the book's style and host script."""
    state = {n: s for n, s in piece.get_state().items() if n in ("_esm", "_css") or n[0] != "_"}
    for name in ("layout", "tabbable", "tooltip"):
        del state[name]
    states = json.dumps({"state": {"m": {"state": state}}})
    host = (ROOT / "_static/widgets.js").read_text(encoding="utf-8")
    book = (ROOT / "_static/book.css").read_text(encoding="utf-8")
    kind = "application/vnd.jupyter.widget"
    return f"""<!doctype html><html lang="en" data-theme="{theme}"><title>t</title>
        <style>{book} html[data-theme=dark] {{
        background: #121212; color: #ced6dd; color-scheme: dark }}</style>
        <main class="bd-article" style="max-width: 46rem"><h1>Test</h1>
        <script type="{kind}-state+json">{states}</script>
        <script type="{kind}-view+json">{{"model_id": "m"}}</script></main>
        <script>{host}</script>"""


def in_the_page(browser, name, expression, x):
    """What an expression of `x` gives with what the piece `name` exports to a page."""
    page = browser.new_page()
    found = page.evaluate(
        """async ([text, expression, x]) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            const { default: _, ...names } = await import(url);
            return Function(...Object.keys(names), "x", `return ${expression}`)(
                ...Object.values(names), x);
        }""",
        [module("plane") + module("controls") + module(name), expression, x],
    )
    page.close()
    return found


def keys_stay_in(page, piece, count=None):
    """Keys pressed in the controls of a piece reach neither the page nor JupyterLab's shortcuts."""
    page.evaluate("addEventListener('keydown', () => { document.title = 'taken' })")
    controls = page.locator(f"{piece} :is(input, select, button)").all()
    assert controls and count in (None, len(controls))
    for control in controls:
        assert control.get_attribute("data-lm-suppress-shortcuts") == "true"
        control.press("a")
    assert page.title() == "t"


def spoken_at_rest(page, label, key):
    """After a key in the control `label` its sentence is spoken too, once the hand rests."""
    said = page.locator("[aria-live=polite]")
    before = said.inner_text()
    page.get_by_label(label).press(key)
    assert said.inner_text() == before
    page.wait_for_timeout(800)
    assert said.inner_text() == page.inner_text(".b2l-reads") != before


def axe(page):
    """What the accessibility scan finds amiss: violations of any weight."""
    return Axe().run(page, options={"preload": False}).response["violations"]


def overlapping(page, kind):
    """Pairs of texts that lie on each other, and what sticks out of the piece."""
    return page.evaluate(
        """(kind) => {
            const piece = document.querySelector(kind), frame = piece.getBoundingClientRect();
            const texts = [...piece.querySelectorAll("*")].filter(
                (e) => !e.children.length && e.textContent && !e.closest(".b2l-said, select"));
            const cut = (e) => e.closest(".b2l-memory")  // a label out of sight
                && e.getBoundingClientRect().top >= e.parentElement.getBoundingClientRect().bottom;
            const boxes = texts.filter((e) => !cut(e)).flatMap(
                (e) => [...e.getClientRects()].map((b) => [e.textContent, b]));
            const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
                && a.top + 3 < b.bottom - 3 && b.top + 3 < a.bottom - 3;
            const all = [...piece.querySelectorAll("input, button, select, table")].map(
                (e) => [e.tagName, e.getBoundingClientRect()]);
            const out = (b) => b.left < frame.left || b.right > frame.right;
            return [...[...boxes, ...all].filter(([, b]) => out(b)),
                ...boxes.flatMap(([text, a], i) => boxes.slice(0, i).flatMap(
                    ([other, b]) => (meet(a, b) ? [[text, other]] : [])))];
        }""",
        kind,
    )
