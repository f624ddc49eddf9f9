"""The warm-up in JupyterLab, as a reader meets it: own copy, live widgets, verdicts, directives."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.browser import open_browser
from tools import notebooks

ROOT = Path(__file__).resolve().parent.parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab over a folder with a fresh copy of the chapters in work/."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "chapters", root / "chapters")
    patch = pytest.MonkeyPatch()
    patch.setattr(notebooks, "CHAPTERS", root / "chapters")
    patch.setattr(notebooks, "WORK", root / "work")
    notebooks.copies()
    patch.undo()
    port = free_port()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JUPYTER_CONFIG_DIR": str(root / "config"),
        "JUPYTERLAB_WORKSPACES_DIR": str(root / "spaces"),
        "BYTES_TO_LATENTS_PROGRESS": str(root / "progress.json"),
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
         "--IdentityProvider.token=", f"--ServerApp.root_dir={root}", "--ip=127.0.0.1"],
        env=environment, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=2).close()
            break
        except OSError:
            time.sleep(0.5)
    yield address, root
    server.terminate()
    server.wait(20)


def test_a_readers_copy_runs_shows_directives_live_pieces_and_names_the_mistake(lab):
    address, root = lab
    path = root / "work" / "00_warm_up.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(c["outputs"] for c in code), "a reader's copy starts without outputs"
    stub = next(c for c in code if "def center_rows" in "".join(c["source"]))
    stub["source"] = "".join(stub["source"]).replace("...", "return x - x.mean(axis=0)")
    path.write_text(json.dumps(notebook), encoding="utf-8")

    with open_browser() as browser:
        view = browser.new_page(viewport={"width": 1400, "height": 1000})
        view.set_default_timeout(60_000)
        view.goto(f"{address}/lab/tree/work/00_warm_up.ipynb", timeout=60_000)
        view.wait_for_selector(".jp-Notebook", timeout=60_000)
        view.wait_for_function(  # the card is a box, not its raw directive
            """() => { const card = document.querySelector('.jp-MarkdownCell')?.innerText ?? '';
            return card.includes('This chapter in a minute') && !card.includes(':::'); }"""
        )
        view.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
        view.get_by_role("menuitem", name="Run", exact=True).click()
        view.get_by_text("Run All Cells", exact=True).click()
        view.get_by_text("of 4 exercises passed").wait_for(timeout=60_000)  # the end is reached

        def look_for(selector):
            """Scroll until it is there: JupyterLab draws only what is near the window."""
            scroll = view.locator(".jp-WindowedPanel-outer")
            scroll.evaluate("e => e.scrollTo(0, 0)")
            for _ in range(80):
                if view.locator(selector).count():
                    found = view.locator(selector).first
                    found.scroll_into_view_if_needed()
                    return found
                scroll.evaluate("e => e.scrollBy(0, 500)")
                view.wait_for_timeout(250)
            raise AssertionError(f"JupyterLab does not show {selector}")

        verdict = look_for(".b2l-failed")
        assert "Each column was centred" in verdict.inner_text()
        button = look_for("button:has-text('A hint, please')")
        button.click()
        look_for("text=Hint 1 of 3")

        slider = look_for(".b2l-piece input[type=range]")
        frame = view.locator(".b2l-frame").first
        before = frame.inner_html()
        slider.focus()
        slider.press("ArrowRight")
        view.wait_for_timeout(500)
        assert frame.inner_html() != before
        live = look_for(".widget-slider, .jupyter-widget-slider")
        assert live.is_visible()
    kept = json.loads((root / "progress.json").read_text(encoding="utf-8"))
    assert kept["warm_up.center_rows"]["status"] == "failed"
