"""Each page in a real browser, light and dark, wide and narrow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import Serve
from tests.service.test_web_pages import LISTS, PAGES
from tests.service.web_documents import HOSTILE, SESSION_ID, rollout_document
from tests.service.web_readings import EmptyReadings, FilledReadings

pytestmark = pytest.mark.browser
AXE = Path(__file__).parent / "vendor" / "axe-4.14.1.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDTHS = (1280, 390)
CANVAS_COLOURS = """() => [...document.querySelectorAll('canvas')].map((canvas) => {
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const seen = new Set();
    for (let i = 0; i < pixels.length; i += 4)
        if (pixels[i + 3] === 255) seen.add(pixels.slice(i, i + 3).join());
    return seen.size;
})"""


@pytest.fixture(scope="module")
def filled(serve: Serve) -> str:
    return serve(FilledReadings(), lambda *_: None)


@pytest.fixture(scope="module")
def empty(serve: Serve) -> str:
    return serve(EmptyReadings())


@contextmanager
def watched(browser: Browser, origin: str, **options: Any) -> Iterator[Page]:
    """A page in a context of its own; whatever goes wrong in it fails the test."""
    problems: list[str] = []
    context = browser.new_context(**options)
    context.add_init_script(
        "addEventListener('securitypolicyviolation',"
        " (event) => console.error('CSP', event.violatedDirective, event.blockedURI));"
    )
    page = context.new_page()

    def note(message: Any) -> None:
        if message.type in ("error", "warning"):
            problems.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((origin, "data:"))
            else problems.append(f"asked {request.url}")
        ),
    )
    yield page
    context.close()
    assert problems == []


def violations(page: Page) -> list[str]:
    """What axe finds, as ``rule: element``."""
    page.evaluate(AXE.read_text())
    found = page.evaluate(
        "(tags) => axe.run(document, {runOnly: {type: 'tag', values: tags}})", RULES
    )
    return [
        f"{item['id']}: {node['html'][:120]} {node.get('failureSummary', '')[:200]}"
        for item in found["violations"]
        for node in item["nodes"]
    ]


def is_page_too_wide(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", [*PAGES, f"/sessions/{SESSION_ID}?content=1"])
def test_a_page_opens_cleanly(browser: Browser, filled: str, path: str, scheme: str) -> None:
    with watched(browser, filled, color_scheme=scheme) as page:
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            response = page.goto(filled + path)
            assert response is not None
            assert response.status == 200
            assert not is_page_too_wide(page)
        for summary in page.locator("summary").all():
            summary.click()
        assert not is_page_too_wide(page)
        assert violations(page) == []


@pytest.mark.parametrize("path", LISTS)
def test_an_empty_page_opens_cleanly(browser: Browser, empty: str, path: str) -> None:
    with watched(browser, empty, viewport={"width": 390, "height": 800}) as page:
        page.goto(empty + path)
        assert not is_page_too_wide(page)
        assert violations(page) == []


def test_hostile_text_stays_text(browser: Browser, serve: Serve) -> None:
    texts = dict.fromkeys(("prompt", "answer", "output", "claim"), HOSTILE)
    long = {"developer": HOSTILE + "x" * 5_000, "repository": HOSTILE}
    origin = serve(FilledReadings(session=long, texts=texts, run={"outcome": HOSTILE}))
    with watched(browser, origin, viewport={"width": 390, "height": 800}) as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
        for path in ("/sessions", f"/sessions/{SESSION_ID}?content=1", "/runs/x"):
            page.goto(origin + path)
            assert not is_page_too_wide(page)
            assert page.locator("img").count() == 0


@pytest.mark.parametrize("path", ["/runs/run-2026-11-23-1", "/rollouts/r-1"])
def test_a_chart_is_drawn_in_the_colours_of_its_theme(
    browser: Browser, serve: Serve, path: str
) -> None:
    origin = serve(FilledReadings())
    with watched(browser, origin, color_scheme="light") as page:
        page.goto(origin + path)
        page.wait_for_selector("canvas")
        assert page.evaluate(CANVAS_COLOURS)[0] > 5
        light = page.locator("canvas").first.screenshot()
        page.get_by_role("button", name="Theme: auto").click()
        page.get_by_role("button", name="Theme: light").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.locator("canvas").first.screenshot() != light
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_tooltip_breaks_no_rule(browser: Browser, serve: Serve) -> None:
    origin = serve(FilledReadings())
    with watched(browser, origin) as page:
        for path in ("/runs/run-2026-11-23-1", "/rollouts/r-1"):
            page.goto(origin + path)
            box = page.locator("canvas").first.bounding_box()
            assert box is not None
            for step in range(20):
                page.mouse.move(box["x"] + box["width"] * step / 20, box["y"] + box["height"] / 2)


class CountedReadings(FilledReadings):
    """Counts how often the overview or the rollout was asked for, and shows the count."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def overview(self) -> dict[str, Any]:
        self.looks += 1
        waiting = [{"what": f"look {self.looks}", "url": "/policies/2"}]
        return super().overview() | {"waiting": waiting}

    def show_rollout(self, rollout_id: str) -> dict[str, Any]:
        self.looks += 1
        return rollout_document(sentence=f"look {self.looks}")


def test_live_pages_renew_themselves_and_rest_in_the_background(
    browser: Browser, serve: Serve
) -> None:
    shown, hidden, rollout = CountedReadings(), CountedReadings(), CountedReadings()
    shown_origin, hidden_origin, rollout_origin = serve(shown), serve(hidden), serve(rollout)
    with (
        watched(browser, shown_origin) as front,
        watched(browser, hidden_origin) as back,
        watched(browser, rollout_origin) as chart,
    ):
        back.add_init_script("Object.defineProperty(document, 'hidden', {get: () => true})")
        back.goto(hidden_origin)
        front.goto(shown_origin)
        chart.goto(f"{rollout_origin}/rollouts/r-1")
        chart.get_by_text("The same as a table").click()
        drawn = chart.evaluate("window.canvas = document.querySelector('canvas')") is not None
        front.get_by_role("link", name=re.compile(r"look ([3-9]|\d\d)$")).wait_for(timeout=40_000)
        assert front.locator("#live #live, html html, main main").count() == 0
        renewed = re.compile(r"look ([2-9]|\d\d)\b")
        chart.locator("figcaption", has_text=renewed).wait_for(timeout=20_000)
        assert drawn
        assert chart.evaluate("window.canvas === document.querySelector('canvas')")
        assert chart.get_by_role("region", name="Confidence sequence").is_visible()  # stays open
        assert "look 1" not in (chart.locator("[data-chart]").get_attribute("aria-label") or "")
        assert hidden.looks == 1


def test_an_approval_needs_a_reason_and_goes_through(browser: Browser, serve: Serve) -> None:
    moves: list[tuple[Any, ...]] = []
    origin = serve(FilledReadings(), lambda *move: moves.append(move))
    with watched(browser, origin) as page:
        page.goto(f"{origin}/policies/2")
        page.get_by_text("Approve version 2…").click()
        page.get_by_label("Your name").first.fill("grace")
        page.get_by_role("button", name="Approve version 2").click()
        assert moves == []  # the browser asks for the reason
        page.get_by_label("Reason").first.fill("numbers look right")
        page.get_by_role("button", name="Approve version 2").click()
        page.wait_for_url(f"{origin}/policies/2")
        assert moves == [("approve", 2, "grace", "numbers look right", 3)]


def test_pages_and_forms_work_without_scripts(browser: Browser, serve: Serve) -> None:
    moves: list[tuple[Any, ...]] = []
    origin = serve(FilledReadings(), lambda *move: moves.append(move))
    with watched(browser, origin, java_script_enabled=False) as page:
        page.goto(f"{origin}/sessions")
        page.get_by_label("Developer").fill("ada")
        page.get_by_role("button", name="Show").click()
        assert "developer=ada" in page.url
        page.goto(f"{origin}/rollouts/r-1")
        page.get_by_text("Roll back now…").click()
        form = page.locator("form[action$='/rollback']")
        form.get_by_label("Your name").fill("grace")
        form.get_by_label("Reason").fill("odd answers")
        form.get_by_role("button").click()
        assert moves == [("rollback", "r-1", "grace", "odd answers", None)]
        page.goto(f"{origin}/runs/run-2026-11-23-1")
        page.get_by_text("trials as a table").click()
        assert page.get_by_role("region", name="Trials").is_visible()
