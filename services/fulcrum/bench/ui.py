"""What a person waits for: the first paint of each page, and the answer to a click, in a real browser.

Wall time in headless Chromium against a running platform, on one machine with all services: nothing here is a ratio,
so compare runs on the same machine only. The model is whatever the platform has; the goal is for the demo model.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from fulcrum.domain.errors import ComputationFailed, MissingDependency

PAGES = ("", "debug", "concepts", "experts", "corrections", "validation", "datasets", "models", "jobs")
_PATIENCE_MS = 60_000
_SETTLED = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  return app && app.getAttribute('data-test-script-state') !== 'running'
    && document.querySelector('[data-testid="stMain"]')
    && !document.querySelector('[data-testid="stSkeleton"], [data-testid="stAppSkeleton"]');
}"""
_OTHER_BARS = """was => {
  const bars = document.querySelector('[data-testid=prediction-bars]');
  return bars && bars.innerText !== was;
}"""


def bench_ui(
    frontend_url: str,
    login_link: str,
    image_id: str,
    classes: tuple[str, ...],
    chromium: str,
    *,
    rounds: int = 3,
    moves: int = 15,
    on_event: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """One JSON object.

    * `first_paint_ms`: for each page, from the request until its script has run, median of `rounds`, in a new context.
    * `suppress_ms_p50`: from the click on "Suppress" until before and after stand side by side.
    * `slider_ms_p50`, `_p90`: from a key on a gain's slider until the bars show the new answer.

    Raises MissingDependency without playwright, ComputationFailed where an answer never comes.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError as error:
        raise MissingDependency("the browser is driven by playwright: install it") from error
    report = on_event or (lambda _: None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        try:
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            context.set_default_timeout(_PATIENCE_MS)
            page = context.new_page()
            page.goto(login_link)
            page.get_by_role("button", name="Continue to Fulcrum").click()
            page.wait_for_url(f"{frontend_url}/**")
            page.wait_for_function(_SETTLED)
            state = context.storage_state()
            paints: dict[str, list[float]] = {name: [] for name in PAGES}
            for round_ in range(rounds + 1):  # the first one warms the services up
                for name in PAGES:
                    fresh = browser.new_context(storage_state=state, viewport={"width": 1280, "height": 900})
                    fresh.set_default_timeout(_PATIENCE_MS)
                    one = fresh.new_page()
                    started = time.perf_counter()
                    one.goto(f"{frontend_url}/{name}")
                    one.wait_for_function(_SETTLED)
                    if round_:
                        paints[name].append(time.perf_counter() - started)
                    fresh.close()
                report(f"round {round_}/{rounds}")
            suppress, slides = [], []
            for _ in range(rounds):
                page.goto(f"{frontend_url}/debug?image={image_id}&classes={','.join(classes)}")
                page.get_by_role("button", name="Suppress").first.wait_for()
                page.wait_for_function(_SETTLED)
                was = page.get_by_test_id("prediction-bars").inner_text()
                started = time.perf_counter()
                page.get_by_role("button", name="Suppress").first.click()
                page.wait_for_function(_OTHER_BARS, arg=was)
                suppress.append(time.perf_counter() - started)
                slider = page.get_by_test_id("stSlider").locator("input").first
                slider.wait_for(state="attached")
                for _ in range(moves):
                    page.wait_for_function(_SETTLED)
                    was = page.get_by_test_id("prediction-bars").inner_text()
                    slider.focus()
                    started = time.perf_counter()
                    page.keyboard.press("ArrowRight")
                    page.wait_for_function(_OTHER_BARS, arg=was)
                    slides.append(time.perf_counter() - started)
                report(f"slider {1e3 * statistics.median(slides):.0f} ms")
        except Error as error:
            raise ComputationFailed(f"the browser waited in vain: {error}") from error
        finally:
            browser.close()
    return {
        "benchmark": "ui",
        "first_paint_ms": {name or "home": _ms(statistics.median(values)) for name, values in paints.items()},
        "first_paint_ms_worst": _ms(max(statistics.median(v) for v in paints.values())),
        "suppress_ms_p50": _ms(statistics.median(suppress)),
        "slider_ms_p50": _ms(statistics.median(slides)),
        "slider_ms_p90": _ms(sorted(slides)[int(0.9 * (len(slides) - 1))]),
        "n_slides": len(slides),
    }


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 1)
