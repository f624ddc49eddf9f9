"""A browser for the tests of one file, and a way to draw pieces in it."""

import pytest

from tests.browser import open_browser, open_pages


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def draw(browser):
    """draw(piece, theme, width) -> a page like the book's, drawn by the host script."""
    with open_pages(browser) as draw:
        yield draw
