"""The pictures of `docs/viewer.md`: real runs of the embedded SmolLM2-135M, looked at in a real browser.

    python docs/viewer_pictures.py

Needs the extras `local` and `sidecar`, Playwright for Python, and Chromium. Asks the sidecar that it starts, waits, and
writes `docs/images/viewer-*.png`. The model is tiny: what it says is mostly wrong, which is what a viewer is for.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright
from reason.core.settings import Settings, load_settings
from reason.sidecar.app import create_app

IMAGES = Path(__file__).parent / "images"
PATIENCE_S = 600.0
WIDTH, HEIGHT, MARGIN = 1280, 860, 16
FERRY = (
    "A ferry carries 18 cars on each trip. It makes 7 trips before noon and 5 after noon. "
    "How many cars does it carry that day?"
)
RIVERS = (
    "The Loire is the longest river in France. It is 1,006 kilometres long and flows into the Atlantic Ocean at "
    "Saint-Nazaire. The Seine flows through Paris and is 777 kilometres long. Paris is the capital of France."
)
RUNS: dict[str, dict[str, Any]] = {
    "claims": {
        "question": "What is the longest river in France, and how long is it?",
        "strategy": "cot",
        "verify": ["davinci"],
        "repairs": 0,
        "documents": [{"name": "rivers.txt", "text": RIVERS}],
        "seed": 3,
    },
    "routing": {
        "question": "Why is the sky blue? Explain it in ten short numbered points.",
        "strategy": "glimprouter",
        "parameters": {"steps": "lines"},
        "small_model": "local/smollm2-135m",
        "budget": {"tokens": 500},
        "seed": 1,
    },
    "workers": {
        "question": FERRY,
        "strategy": "hogwild",
        "parameters": {"any_model": True},
        "budget": {"tokens": 320},
        "seed": 3,
    },
    "jury": {
        "question": "Which river flows through Paris?",
        "choices": ["Loire", "Seine", "Rhone"],
        "strategy": "edgejury",
        "parameters": {"max_tokens": 160},
        "budget": {"tokens": 1500},
        "seed": 3,
    },
    "search": {
        "question": FERRY,
        "strategy": "coat",
        "parameters": {"max_step_tokens": 60, "expansions": 9, "max_depth": 5},
        "budget": {"tokens": 3000},
        "seed": 3,
    },
}


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The sidecar on a free port; gives its address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.1)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def ask(url: str, body: dict[str, Any]) -> str:
    """Start a run; gives its name."""
    reply = httpx.post(f"{url}/v1/runs", json=body)
    reply.raise_for_status()
    name: str = reply.json()["id"]
    return name


def wait_for(url: str, run: str) -> None:
    """Wait until a run has ended."""
    end = time.monotonic() + PATIENCE_S
    while httpx.get(f"{url}/v1/runs/{run}").json()["status"] in ("queued", "running"):
        if time.monotonic() > end:
            raise TimeoutError(run)
        time.sleep(0.5)


def tab(browser: Browser, place: str, *, dark: bool = False) -> Page:
    """A new tab."""
    scheme = "dark" if dark else "light"
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme, reduced_motion="reduce"  # type: ignore[arg-type]
    )  # fmt: skip
    page.goto(place)
    page.wait_for_selector("h1")
    return page


def picture(page: Page, name: str, part: str = "") -> None:
    """Write what is seen, or a part of the page."""
    path = IMAGES / f"viewer-{name}.png"
    box = page.locator(part).first.bounding_box() if part else None
    if box is None:
        page.screenshot(path=path)
    else:
        clip = {"x": 0, "y": box["y"] - MARGIN, "width": WIDTH, "height": box["height"] + 2 * MARGIN}
        page.screenshot(path=path, full_page=True, clip=clip)  # type: ignore[arg-type]
    print(f"{path.name}: {path.stat().st_size // 1024} KiB")  # noqa: T201


def main() -> None:
    """Ask everything, and look at it."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        settings = load_settings(store=Path(folder) / "runs.sqlite3", model="local/smollm2-135m")
        serve = settings.serve.model_copy(update={"auth": False})
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with serving(settings.model_copy(update={"serve": serve})) as url:
            runs: dict[str, str] = {}
            for name, body in RUNS.items():
                runs[name] = ask(url, body)
                if name != "search":
                    wait_for(url, runs[name])
            page = tab(browser, f"{url}/ui/runs/{runs['search']}", dark=True)
            page.locator(".node").nth(11).wait_for(timeout=PATIENCE_S * 1000)
            picture(page, "live-dark")
            wait_for(url, runs["search"])
            page = tab(browser, f"{url}/ui")
            page.click("#charts summary")
            page.wait_for_selector(".charts")
            picture(page, "runs")
            page = tab(browser, f"{url}/ui/compare?a={runs['claims']}&b={runs['routing']}")
            page.locator(".sides .answer").nth(1).wait_for()
            page.wait_for_timeout(1000)
            picture(page, "compare")
            for name, part in (
                ("search", "#search"),
                ("claims", ""),
                ("routing", "#routing"),
                ("workers", "#workers"),
                ("jury", "#jury"),
            ):
                page = tab(browser, f"{url}/ui/runs/{runs[name]}", dark=name in ("workers", "jury"))
                page.wait_for_selector("text=run ended")
                picture(page, name, part)
            page = tab(browser, f"{url}/ui/ask")
            page.wait_for_selector("[name=strategy]")
            page.fill("[name=question]", FERRY)
            page.select_option("[name=strategy]", "coat")
            page.click("summary:has-text('Parameters of coat')")
            picture(page, "ask")
        browser.close()


if __name__ == "__main__":
    main()
