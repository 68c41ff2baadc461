"""A headless Chromium, controlled by Debian's driver of the same version."""

from __future__ import annotations

import base64
import json
import pathlib
import tempfile
from types import TracebackType
from typing import Any, Self

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # Chromium requires it for root, as in CI
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """A browser with one page; closed at the end of the ``with`` block."""

    def __init__(self, chromium: str, driver: str) -> None:
        """Starts the browser; `chromium` and `driver` are the paths of the programs."""
        self._folder = tempfile.TemporaryDirectory(prefix="grpcpool-chromium-", ignore_cleanup_errors=True)
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*_FLAGS, f"--user-data-dir={self._folder.name}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self._driver = webdriver.Chrome(options, webdriver.ChromeService(driver))
        self._driver.set_page_load_timeout(30)
        self._driver.set_script_timeout(30)

    # --- the page -----------------------------------------------------------------------------------------------

    def open(self, url: str, *, width: int = 1280, height: int = 900, scale: float = 1) -> None:
        """Opens the page at `url` on a screen of that size; clears the logs first."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.tell("Emulation.setDeviceMetricsOverride", **metrics)
        self.tell("Emulation.setScrollbarsHidden", hidden=True)
        self.problems()
        self.requested()
        self._driver.get(url)

    def leave(self) -> None:
        """Opens an empty page."""
        self._driver.get("about:blank")

    def prefer(self, **preferences: str) -> None:
        """Sets the reader's preferences: ``color_scheme="dark"``, ``reduced_motion="reduce"``."""
        features = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in preferences.items()
        ]
        self.tell("Emulation.setEmulatedMedia", features=features)

    def tell(self, command: str, **parameters: Any) -> Any:
        """Sends a command of the DevTools protocol."""
        return self._driver.execute_cdp_cmd(command, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs the body of a function in the page; returns its result."""
        return self._driver.execute_script(script, *arguments)

    def run_later(self, script: str, *arguments: Any) -> Any:
        """Same as `run`, for a script that passes its result to its last argument."""
        return self._driver.execute_async_script(script, *arguments)

    # --- content ------------------------------------------------------------------------------------------------

    def all(self, selector: str) -> list[WebElement]:
        """Returns the matching elements."""
        return self._driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Returns the texts of the matching elements, hidden or not, all read at once."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent.trim())", selector
        )
        return found

    def style(self, selector: str, name: str) -> str:
        """Returns a computed style of the first matching element."""
        script = "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
        return str(self.run(script, selector, name))

    def press(self, *keys: str) -> None:
        """Presses keys on the keyboard."""
        webdriver.ActionChains(self._driver).send_keys(*keys).perform()

    def tab(self) -> str:
        """Presses Tab; returns the focused element's tag, and its id or text."""
        self.press(Keys.TAB)
        script = "const it = document.activeElement; return `${it.tagName} ${it.id || it.textContent.trim()}`"
        return str(self.run(script))

    def problems(self) -> list[str]:
        """Returns the messages that the browser logged since the last call."""
        return [entry["message"] for entry in self._driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def requested(self) -> list[str]:
        """Returns the addresses requested since the last call."""
        entries = self._driver.get_log("performance")  # type: ignore[no-untyped-call]
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]

    def violations(self, axe: str) -> list[tuple[str, list[str]]]:
        """The problems that the accessibility checker finds on the page, with the HTML; `axe` is its script's path."""
        self.run(pathlib.Path(axe).read_text(encoding="utf-8"))
        found = self.run_later("axe.run().then(arguments[0])")
        return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]

    def screenshot(self, path: pathlib.Path) -> None:
        """Writes the whole page to a PNG file."""
        shot = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    # --- closing ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Returns itself: the browser is already running."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Closes the browser and its driver."""
        self._driver.quit()
        self._folder.cleanup()
