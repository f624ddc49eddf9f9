"""The built site, seen through a real browser: every page, no kernel, no foreign host.

Run after `make book`; `make site` does both.
"""

import functools
import http.server
import json
import re
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from axe_playwright_python.sync_playwright import Axe

SITE = Path(__file__).resolve().parent.parent / "_build" / "html"
PAGES = sorted(str(p.relative_to(SITE)) for p in SITE.rglob("*.html") if "_static" not in p.parts)
EACH = pytest.mark.parametrize("page", PAGES)
WIDGET_LIMIT = 1_500_000  # characters of frames and states on a page


def test_the_site_is_built():
    assert "chapters/00_warm_up.html" in PAGES, "build it first: make book"


class Tags(HTMLParser):
    """What the tests ask of a page's HTML: its ids, links, sources and images."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.images = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if found.get("id"):
            self.ids.append(found["id"])
        for name in ("href", "src"):
            if name in found and tag != "base":
                self.links.append((tag, found[name] or ""))
        if tag == "img" or (tag == "svg" and found.get("role") == "img"):
            self.images.append(found)


@functools.cache
def tags(page):
    return Tags((SITE / page).read_text(encoding="utf-8"))


def foreign(link):
    return re.match(r"(?:[a-z]+:)?//", link) is not None


@EACH
def test_links_and_anchors_lead_somewhere(page):
    for tag, link in tags(page).links:
        if foreign(link) or link.startswith(("data:", "mailto:", "javascript:")):
            assert tag == "a" or not foreign(link), f"{tag} would load {link}"
            continue
        path, anchor = urldefrag(urljoin(f"http://site/{page}", re.sub(r"\?[^#]*", "", link)))
        target = unquote(path.removeprefix("http://site/")) or page
        assert (SITE / target).exists(), f"{link} leads nowhere"
        if anchor and tag == "a" and target.endswith(".html"):
            assert anchor in ("", *tags(target).ids), f"{link}: no such place"


@EACH
def test_ids_are_unique_and_every_image_has_words(page):
    ids = [i for i in tags(page).ids if i]
    assert len(set(ids)) == len(ids), {i for i in ids if ids.count(i) > 1}
    for image in tags(page).images:
        words = image.get("alt") or image.get("aria-label")
        assert words or "logo" in image.get("class", ""), image


@EACH
def test_what_a_page_stores_for_its_pieces_stays_small(page):
    text = (SITE / page).read_text(encoding="utf-8")
    states = re.findall(r'widget-state\+json">(.*?)</script>', text, re.S)
    assert sum(map(len, states)) < WIDGET_LIMIT


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=SITE)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(browser, address):
    """visit(page, ...) -> the opened page; afterwards: nothing foreign asked for, nothing amiss."""
    opened, amiss = [], []

    def go(page, theme="light", width=1280):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
        )
        opened.append(context)
        view = context.new_page()
        view.on("console", lambda m: amiss.append(m.text) if m.type == "error" else None)
        view.on("pageerror", lambda e: amiss.append(str(e)))

        def guard(route):
            if route.request.url.startswith(address):
                return route.continue_()
            amiss.append(f"asked for {route.request.url}")
            return route.abort()

        context.route(lambda url: not url.startswith(("data:", "blob:")), guard)
        view.goto(f"{address}/{page}", wait_until="load")
        view.wait_for_selector("html[data-widgets=drawn]")
        return view

    yield go
    for context in opened:
        context.close()
    assert not amiss, amiss


@EACH
def test_a_page_loads_whole_with_its_math_and_one_search_box(page, visit):
    view = visit(page)
    if view.locator(".math").count():
        view.wait_for_selector("mjx-container")
        view.wait_for_function(
            "[...document.querySelectorAll('.math')].every(m => m.querySelector('mjx-container'))"
        )
        assert view.locator("mjx-merror").count() == 0
    boxes = view.locator("input[type=search]:visible, .search-button__button:visible").count()
    assert boxes == (2 if page == "search.html" else 1)


@EACH
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_critical_or_serious(page, theme, visit):
    view = visit(page, theme)
    view.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    view.evaluate("Promise.all(document.getAnimations().map(a => a.finished))")
    found = Axe().run(view, options={"preload": False}).response["violations"]
    bad = [v for v in found if v["impact"] in ("critical", "serious")]
    assert not bad, [
        (v["id"], [n["html"][:150] for n in v["nodes"][:4]], v["nodes"][0]["failureSummary"])
        for v in bad
    ]


@EACH
def test_a_phone_needs_no_sideways_scrolling(page, visit):
    view = visit(page, width=390)
    view.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert view.evaluate("document.documentElement.scrollWidth") <= 390


def views(page):
    """Every piece of a page, by the model ids of its views that are ours to draw."""
    text = (SITE / page).read_text(encoding="utf-8")
    states = re.findall(r'widget-state\+json">(.*?)</script>', text, re.S)
    models = {k: v for s in states for k, v in json.loads(s)["state"].items()}
    shown = re.findall(r'widget-view\+json">(.*?)</script>', text, re.S)
    return [v for v in shown if any(k in v and "_esm" in m["state"] for k, m in models.items())]


WITH_PIECES = [page for page in PAGES if views(page)]


def test_there_are_pages_with_interactive_pieces():
    assert "chapters/00_warm_up.html" in WITH_PIECES


@pytest.mark.parametrize("page", WITH_PIECES)
def test_every_piece_is_drawn_and_follows_the_keyboard_without_a_kernel(page, visit):
    view = visit(page)
    pieces = view.locator(".b2l-widget")
    assert pieces.count() == len(views(page))
    for i in range(pieces.count()):
        piece = pieces.nth(i)
        assert piece.get_attribute("data-drawn") == "true"
        controls = piece.locator("input, textarea, select, button")
        assert controls.count(), "a piece without a control"
        before = piece.inner_html()  # what is drawn, not the state of the control itself
        control = controls.first
        control.focus()
        at_end = control.evaluate("c => c.type === 'range' && c.value === c.max")
        control.press("ArrowLeft" if at_end else "ArrowRight")
        if control.evaluate("c => c.matches('textarea, input[type=text]')"):
            control.press("x")
        view.wait_for_timeout(300)
        after = piece.inner_html()
        assert after != before, f"piece {i} did not follow a key"


@pytest.mark.parametrize("page", WITH_PIECES)
def test_a_drawing_laid_over_its_box_fills_it_whatever_pieces_came_before(page, visit):
    """Every kind of piece brings its style sheet, and the last one on a page wins a draw."""
    spilled = visit(page).evaluate(
        """() => [...document.querySelectorAll(".b2l-widget svg")]
            .filter((s) => getComputedStyle(s).position === "absolute" && s.clientWidth)
            .map((s) => [s, s.parentElement].map((e) => e.getBoundingClientRect()))
            .filter(([a, b]) => Math.abs(a.height - b.height) > 1 || Math.abs(a.top - b.top) > 1)
            .map(([a, b]) => `${a.height} in ${b.height}`)"""
    )
    assert not spilled


@pytest.mark.parametrize("page", WITH_PIECES)
def test_a_slider_changes_what_is_drawn(page, visit):
    view = visit(page)
    for i in range(view.locator(".b2l-frame").count()):
        piece = view.locator(".b2l-widget", has=view.locator(".b2l-frame")).nth(i)
        frame, slider = piece.locator(".b2l-frame"), piece.locator("input[type=range]").first
        seen = set()
        slider.focus()
        slider.press("Home")
        for _ in range(int(slider.get_attribute("max")) + 1):
            seen.add(frame.inner_html())
            slider.press("ArrowRight")
        assert len(seen) > 1
        assert piece.locator("[aria-live]").inner_text()


@pytest.mark.parametrize("page", [p for p in PAGES if re.match(r"chapters/\d\d_", p)])
def test_solutions_and_predictions_are_folded_and_unfold(page, visit):
    view = visit(page)
    folds = view.locator("details:has(summary:text-matches('Solution:|Show the'))")
    assert folds.count() >= 4
    for i in range(folds.count()):
        fold = folds.nth(i)
        body = fold.locator("pre, svg, img, table").first
        assert not body.is_visible()
        fold.locator("summary").first.click()
        assert body.is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_theme_follows_the_reader_and_so_do_the_figures(theme, visit):
    view = visit("chapters/00_warm_up.html", theme)
    ground, ink = view.evaluate(
        """() => [document.body, document.querySelector('.cell_output svg text')]
        .map((e, i) => getComputedStyle(e)[i ? 'fill' : 'backgroundColor'])"""
    )

    def bright(colour):
        return sum(map(int, re.findall(r"\d+", colour)[:3])) > 380

    assert bright(ground) == (theme == "light")
    assert bright(ink) != bright(ground)
