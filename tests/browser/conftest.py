"""A page of a server of random weights in a browser, and photos to show it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.serving.tiny_server import ASTRONAUT, GENEROUS, make_service, make_tiny_app, serving


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server of random weights."""
    with serving(make_tiny_app(make_service(GENEROUS))) as address:
        yield f"{address}/"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    """With a camera that shows a test picture and may be used."""
    from tests.browser.chromium import start  # skips where there is no Selenium

    profile = tmp_path_factory.mktemp("profile")
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    driver = start(f"--user-data-dir={profile}", *camera)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, address) -> Any:
    """The page, opened anew."""
    from tests.browser.chromium import Page

    page = Page(browser, address)
    page.open()
    browser.get_log("browser")  # what earlier tests left
    browser.get_log("performance")
    return page


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> dict[str, Path]:
    """One face, three faces, none, and what is no photo."""
    folder = tmp_path_factory.mktemp("photos")
    face = Image.open(ASTRONAUT).convert("RGB")
    Image.fromarray(np.hstack([np.asarray(face)] * 3)).save(folder / "three.png")
    Image.new("RGB", (300, 200), "teal").save(folder / "none.png")
    (folder / "broken.jpg").write_bytes(ASTRONAUT.read_bytes()[:2000])
    (folder / "text.jpg").write_text("I am no photo")
    turned = face.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees clockwise to have it upright
    turned.save(folder / "turned.jpg", exif=exif)
    names = {path.stem: path for path in folder.iterdir()}
    return {"one": ASTRONAUT, **names}
