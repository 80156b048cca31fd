"""The page in a real browser, Chromium without a window.

Needs the `browser` extra, and Chromium with its driver: Debian's packages `chromium` and
`chromium-driver`, or what DMFER_CHROMIUM and DMFER_CHROMEDRIVER name. The accessibility check needs
axe-core's axe.min.js, which DMFER_AXE names or `npm install axe-core` puts into node_modules.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser.chromium import CHROMIUM, DRIVER, ENTER, SPACE, TAB, Page, selenium, start
from tests.serving.tiny_server import (
    ASTRONAUT,
    GENEROUS,
    NAMES,
)

AXE = Path(
    os.environ.get("DMFER_AXE")
    or Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
)

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs Chromium and its driver (Debian: chromium, chromium-driver)",
)
needs_axe = pytest.mark.skipif(
    not AXE.is_file(), reason="needs axe-core: npm install axe-core, or DMFER_AXE=axe.min.js"
)


def test_photo_becomes_a_label_bars_and_a_box(page, photos):
    page.give(photos["one"])
    assert page.text("#status").startswith("One face: 1 ")
    (card,) = page.find_all(".face")
    bars = [bar.text.split("\n") for bar in page.find_all(".bars li")]
    assert sorted(name for name, _ in bars) == sorted(NAMES)
    assert card.find_element("css selector", "h3").text.startswith("Face 1")
    assert bars[0][0] in page.text(".face h3")
    values = [float(value.strip("<>% \xa0")) for _, value in bars]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(100, abs=2)
    mark = np.abs(page.painted("#photo") - (255, 182, 39)).max(-1) < 12
    rows, columns = np.nonzero(mark)
    height, width = mark.shape
    # The box in tests/test_expression_model.py: 61, 58 to 150, 178 of 200 x 220; its label above.
    assert columns.min() / width == pytest.approx(61 / 200, abs=0.02)
    assert rows.max() / height == pytest.approx(178 / 220, abs=0.02)


def test_photo_that_lies_on_its_side_is_shown_upright(page, photos):
    page.give(photos["turned"])
    assert len(page.find_all(".face")) == 1
    height, width, _ = page.painted("#photo").shape
    assert height / width == pytest.approx(220 / 200, abs=0.01)


def test_each_of_several_faces_has_a_number_a_label_and_a_map(page, photos):
    page.give(photos["three"])
    assert page.text("#status").startswith("3 faces: 1 ")
    assert [card.text.split("\n")[0] for card in page.find_all(".face")] == [
        f"Face {number}" for number in (1, 2, 3)
    ]
    before = page.painted("#photo")
    page.explain(2)
    assert [button.get_attribute("aria-expanded") for button in page.find_all(".why")] == [
        "false",
        "true",
        "false",
    ]
    assert "Face 2: " in page.text("#status")
    assert (page.painted("#photo") != before).mean() > 0.01
    assert page.painted("#map-2 canvas").std() > 10
    page.find_all(".why")[1].click()
    assert not page.find("#map-2").is_displayed()
    np.testing.assert_array_equal(page.painted("#photo"), before)


SLOW_MAPS = """
const real = window.fetch;
window.asked = [];
window.fetch = async (...all) => {
  const face = /explain.face=(.*)/.exec(all[0]);
  if (!face) return real(...all);
  window.asked.push(face[1]);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  if (face[1] === arguments[0]) return new Response('{"error": "no map"}', { status: 500 });
  return real(...all);
};
"""


def test_map_that_is_opened_again_while_it_is_computed_is_asked_for_once(page, photos):
    page.driver.execute_script(SLOW_MAPS, "none")
    page.give(photos["one"])
    # Open, closed, open, quicker than any map is there.
    page.driver.execute_script(
        "const why = document.querySelector('.why'); for (let n = 0; n < 3; n++) why.click();"
    )
    page.wait(lambda: page.find(".map").is_displayed())
    time.sleep(1)  # the other answer's
    scales = [one.get_attribute("value") for one in page.find_all(".scales input")]
    assert sorted(scales) == ["compressed", "deep"]  # what the tiny network has
    assert page.driver.execute_script("return window.asked") == ["1"]


def test_map_that_fails_after_another_face_was_chosen_stays_closed(page, photos):
    page.driver.execute_script(SLOW_MAPS, "1")
    page.give(photos["three"])
    page.find_all(".why")[0].click()
    page.explain(2)
    time.sleep(2)  # for what a failed map would ask again
    assert page.driver.execute_script("return window.asked") == ["1", "2"]
    expanded = [one.get_attribute("aria-expanded") for one in page.find_all(".why")]
    assert expanded == ["false", "true", "false"]
    assert page.text("#error") == ""


def test_click_on_a_face_in_the_photo_explains_it(page, photos):
    page.give(photos["three"])
    canvas = page.find("#photo")
    boxes = page.driver.execute_script(
        "const c = document.getElementById('photo').getBoundingClientRect();"
        "return [c.width, c.height]"
    )
    actions = selenium.ActionChains(page.driver)
    # The middle one: offsets count from the middle of the canvas, its face is a little above.
    actions.move_to_element_with_offset(canvas, 0, int(boxes[1] * 0.03)).click().perform()
    page.wait(lambda: any(one.is_displayed() for one in page.find_all(".map")))


def test_photo_that_is_dropped_anywhere_is_looked_at(page):
    page.driver.execute_async_script(
        "const done = arguments[0], canvas = document.createElement('canvas');"
        "canvas.toBlob((blob) => {"
        "  const dataTransfer = new DataTransfer();"
        "  dataTransfer.items.add(new File([blob], '../x.png', { type: 'image/png' }));"
        "  const drop = new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true });"
        "  document.getElementById('meaning').dispatchEvent(drop);"
        "  done();"
        "});"
    )
    page.wait(lambda: "No face was found" in page.text("#status"))


def test_photo_without_a_face_says_so(page, photos):
    page.give(photos["none"], "No face was found")
    assert page.find_all(".face") == []
    assert page.find("#photo").is_displayed()


@pytest.mark.parametrize(
    ("name", "said"), [("broken", "cannot be decoded"), ("text", "This is no photo")]
)
def test_broken_file_is_told_of_and_the_next_one_works(page, photos, name, said):
    page.find("#file").send_keys(str(photos[name]))
    page.wait(lambda: said in page.text("#error"))
    assert not page.find("#result").is_displayed()
    assert page.text("#status") == ""
    page.give(photos["one"])
    assert page.text("#error") == ""


def test_too_large_a_photo_is_shrunk_before_it_is_sent(page, photos, tmp_path):
    face = Image.open(ASTRONAUT).convert("RGB").resize((5200, 5720))
    face.save(tmp_path / "large.jpg", quality=60)
    assert GENEROUS.pixels < 5200 * 5720
    page.give(tmp_path / "large.jpg")
    assert len(page.find_all(".face")) == 1


def test_full_server_is_asked_again(page, photos):
    page.driver.execute_script(
        "const real = window.fetch; let first = true;"
        "window.fetch = async (...all) => {"
        "  if (!first || all[1]?.method !== 'POST') return real(...all);"
        "  first = false;"
        "  return new Response('{}', { status: 503, headers: { 'Retry-After': '1' } });"
        "};"
    )
    page.find("#file").send_keys(str(photos["one"]))
    page.wait(lambda: "sent again" in page.text("#status"))
    page.wait(lambda: "One face" in page.text("#status"))


def test_picture_of_the_camera_is_looked_at(page):
    page.find("#open-camera").click()
    page.wait(lambda: page.focused() == "take")
    page.wait(
        lambda: page.driver.execute_script("return document.getElementById('video').videoWidth")
    )
    page.press(ENTER)
    page.wait(lambda: "face" in page.text("#status") and "Looking" not in page.text("#status"))
    assert not page.find("#camera").is_displayed()
    assert page.find("#photo").is_displayed()
    assert page.focused() == "open-camera"


def test_camera_that_is_denied_is_told_of(address, tmp_path):
    driver = start(f"--user-data-dir={tmp_path}", "--use-fake-device-for-media-stream")
    try:
        page = Page(driver, address)
        page.open()
        driver.execute_cdp_cmd(
            "Browser.setPermission", {"permission": {"name": "camera"}, "setting": "denied"}
        )
        page.find("#open-camera").click()
        page.wait(lambda: "was not allowed" in page.text("#error"))
        assert not page.find("#camera").is_displayed()
    finally:
        driver.quit()


@pytest.mark.parametrize("width", [320, 390])
def test_phone_needs_no_scrolling_to_the_side(page, photos, width):
    page.open(width, 800)
    page.give(photos["three"])
    page.explain(1)
    wide = page.driver.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    for target in (*page.find_all(".button:not([hidden])"), *page.find_all(".scales label")):
        if target.is_displayed():
            assert target.rect["height"] >= 24  # what WCAG 2.2 asks of a target


def test_keyboard_alone_reaches_everything_and_sees_where_it_is(page, photos):
    order = []
    for _ in range(5):
        page.press(TAB)
        order.append(page.focused())
    assert order == ["skip", "/model", "#meaning", "file", "open-camera"]
    page.give(photos["one"])
    page.driver.execute_script("document.getElementById('open-camera').focus()")
    page.press(TAB)
    assert "why" in page.focused()
    outline = "return getComputedStyle(document.activeElement).outlineWidth"
    assert page.driver.execute_script(outline) == "3px"
    page.press(SPACE)
    page.wait(lambda: page.find(".map").is_displayed())
    page.press(TAB)
    assert page.driver.execute_script("return document.activeElement.type") == "radio"


def test_model_card_is_one_click_away(page):
    page.find("a[href='/model']").click()
    assert page.text("h1") == "tiny"
    page.find("a[href='/']").click()
    page.wait(lambda: page.find("#file"))


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_complained_of(page, photos):
    page.open()
    page.give(photos["one"])
    page.explain(1)
    events = [json.loads(one["message"])["message"] for one in page.driver.get_log("performance")]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert {address.removeprefix(page.address).split("?")[0] for address in asked} == {
        "",
        "page.css",
        "page.js",
        "drawing.js",
        "icon.svg",
        "api/model",
        "api/faces",
        "api/explain",
    }
    assert page.driver.get_log("browser") == []


@needs_axe
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(page, photos, dark, width):
    def check() -> None:
        page.driver.execute_script(AXE.read_text())
        found = page.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then((r) => done(r.violations), done)"
        )
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []

    page.open(width, dark=dark)
    check()
    page.find("#open-camera").click()
    page.wait(lambda: page.focused() == "take")
    check()
    page.find("#close-camera").click()
    page.give(photos["three"])
    page.explain(3)
    check()
    page.find("#file").send_keys(str(photos["text"]))
    page.wait(lambda: page.text("#error"))
    check()
    page.driver.get(page.address + "model")
    check()
