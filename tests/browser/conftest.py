"""A real browser for the pages, or a printed reason why there is none."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robustlab import reporting
from tests.reporting import fixture

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)

Open = Callable[..., Any]


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with its pages, at a path that needs quoting in a URL."""
    path = tmp_path_factory.mktemp("a run")
    fixture.build(path, fixture.cells(images=2))
    reporting.write_report(path)
    reporting.write_gallery(path)
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=FLAGS.split())
        yield running
        running.close()


@pytest.fixture
def visit(browser: Any, pages: Path) -> Iterator[Open]:
    """Opens a page; afterwards, any console error or request that left the disk is a failure."""
    complaints: list[str] = []
    contexts = []

    def complain_about(request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            complaints.append(f"asked for {request.url}")

    def opened(name: str, *, width: int = 1280, scheme: str = "light", state: str = "") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", complain_about)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
        page.goto((pages / name).as_uri() + state)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
