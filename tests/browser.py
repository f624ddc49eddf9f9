"""A browser for the tests: an installed Chrome or Chromium, else Playwright's own."""

import contextlib
import shutil
import subprocess
import sys

from playwright.sync_api import Error, sync_playwright

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
