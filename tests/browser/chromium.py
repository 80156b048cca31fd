"""Chromium without a window, and the page as someone at it has it."""

import base64
import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

selenium: Any = pytest.importorskip(
    "selenium.webdriver", reason="needs Selenium: pip install 'dmfer-jax[browser]'"
)
CHROMIUM = os.environ.get("DMFER_CHROMIUM") or shutil.which("chromium")
DRIVER = os.environ.get("DMFER_CHROMEDRIVER") or shutil.which("chromedriver")

ENTER, TAB, SPACE = "\ue007", "\ue004", " "


class Page:
    """The page as someone at a browser has it."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(self.address)
        self.wait(lambda: "3 labels" in self.text("#model"))

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            said = f"{self.text('#status')} {self.text('#error')}"
            assert time.monotonic() < end, f"waited in vain; the page says: {said}"
            time.sleep(0.05)

    def give(self, photo: Path, answer: str = "face") -> None:
        """Chooses a file, and waits until the page says something of it."""
        self.find("#file").send_keys(str(photo))
        self.wait(lambda: answer in self.text("#status") and "Looking" not in self.text("#status"))

    def explain(self, face: int) -> None:
        self.find_all(".why")[face - 1].click()
        self.wait(lambda: self.find_all(".map")[face - 1].is_displayed())

    def focused(self) -> str:
        return self.driver.execute_script(
            "const e = document.activeElement; return e.id || e.className || e.getAttribute('href')"
        )

    def press(self, key: str) -> None:
        selenium.ActionChains(self.driver).send_keys(key).perform()

    def painted(self, selector: str) -> np.ndarray:
        """The pixels of a canvas."""
        script = "return document.querySelector(arguments[0]).toDataURL().split(',')[1]"
        png = base64.b64decode(self.driver.execute_script(script, selector))
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.int16)


def start(*options: str) -> Any:
    """Starts Chromium with a new profile."""
    arguments = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update"
    )
    chosen = selenium.ChromeOptions()
    chosen.binary_location = CHROMIUM
    for argument in (*arguments.split(), *options):
        chosen.add_argument(argument)
    chosen.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return selenium.Chrome(options=chosen, service=selenium.ChromeService(DRIVER))
