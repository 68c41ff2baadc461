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
    "--no-sandbox",  # which root, as in CI, needs
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """A browser that shows one page at a time; it ends with the block."""

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
        """Shows the page at `url` on a screen of that size; earlier log entries are dropped."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.tell("Emulation.setDeviceMetricsOverride", **metrics)
        self.tell("Emulation.setScrollbarsHidden", hidden=True)
        self.problems()
        self.requested()
        self._driver.get(url)

    def leave(self) -> None:
        """Shows an empty page."""
        self._driver.get("about:blank")

    def prefer(self, **preferences: str) -> None:
        """Sets the reader's preferences: ``color_scheme="dark"``, ``reduced_motion="reduce"``."""
        features = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in preferences.items()
        ]
        self.tell("Emulation.setEmulatedMedia", features=features)

    def tell(self, command: str, **parameters: Any) -> Any:
        """Sends the browser a command of its own protocol."""
        return self._driver.execute_cdp_cmd(command, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs a function body in the page and returns its result."""
        return self._driver.execute_script(script, *arguments)

    def run_later(self, script: str, *arguments: Any) -> Any:
        """Same as `run`, for a body that passes its result to its last argument."""
        return self._driver.execute_async_script(script, *arguments)

    # --- observation --------------------------------------------------------------------------------------------

    def all(self, selector: str) -> list[WebElement]:
        """The elements that match."""
        return self._driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Their texts, hidden ones included, all read at one time."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent.trim())", selector
        )
        return found

    def style(self, selector: str, name: str) -> str:
        """The computed style of the first one."""
        script = "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
        return str(self.run(script, selector, name))

    def press(self, *keys: str) -> None:
        """Presses keys, as on the keyboard."""
        webdriver.ActionChains(self._driver).send_keys(*keys).perform()

    def tab(self) -> str:
        """Presses Tab; returns the tag of the focused element, then its id or its text."""
        self.press(Keys.TAB)
        script = "const it = document.activeElement; return `${it.tagName} ${it.id || it.textContent.trim()}`"
        return str(self.run(script))

    def problems(self) -> list[str]:
        """What the page has complained about since the last call."""
        return [entry["message"] for entry in self._driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def requested(self) -> list[str]:
        """The addresses requested since the last call."""
        entries = self._driver.get_log("performance")  # type: ignore[no-untyped-call]
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        return [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path: pathlib.Path) -> None:
        """Writes the whole page into a file, as PNG."""
        shot = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    # --- the end ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Does nothing: the browser is already running."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Ends the browser and its driver."""
        self._driver.quit()
        self._folder.cleanup()
