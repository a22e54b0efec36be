"""The report in a real browser: no error, controls that work, values that are the products'."""

import json
import shutil
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from stdatamodels.jwst import datamodels

webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
from axe_core_python.selenium import Axe  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

from lyot.algorithms.geometry import polar  # noqa: E402
from lyot.analysis.detection import detect  # noqa: E402
from lyot.analysis.observation import open_run  # noqa: E402
from lyot.files.astrometry import plane_of  # noqa: E402
from lyot.files.provenance import star_of  # noqa: E402
from lyot.files.results import write_maps, write_table  # noqa: E402
from lyot.viz.report import write_report  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip(
        "Chromium and its driver are not installed (Debian: chromium, chromium-driver)",
        allow_module_level=True,
    )


@pytest.fixture(scope="module")
def report(demo, tmp_path_factory):
    """The report of the demo, with candidates."""
    folder = tmp_path_factory.mktemp("report")
    for path in demo.folder.iterdir():
        (folder / path.name).symlink_to(path)
    with open_run(folder, star_magnitude=5.0) as observation:
        found = detect(observation)
        name = observation.product
        write_table(found.to_table(), folder / f"{name}_candidates.ecsv")
        write_maps(
            {"SNR": found.snr, "FLUX": found.flux, "STIM": found.stim},
            folder / f"{name}_detection.fits",
            pixel_scale_arcsec=found.pixel_scale_arcsec,
            keywords={"FPF": found.statistic.fpf, "NMODES": found.n_modes},
        )
    return Path(write_report(folder))


def open_browser(folder, *, width=1280, dark=False):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--window-size={width},1000",
        f"--user-data-dir={folder}",
    ):
        options.add_argument(flag)
    if dark:
        options.add_argument("--force-dark-mode")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    prefs = {"download.default_directory": str(folder), "download.prompt_for_download": False}
    options.add_experimental_option("prefs", prefs)
    return webdriver.Chrome(options=options, service=Service(DRIVER))


@pytest.fixture(scope="module")
def browser(report, tmp_path_factory):
    """Chromium with the report open."""
    made = open_browser(tmp_path_factory.mktemp("browser"))
    made.get(report.as_uri())
    yield made
    made.quit()


@pytest.fixture(autouse=True)
def _fresh(browser, report):
    browser.get(report.as_uri())


def viewer(browser, number):
    return browser.find_elements(By.CSS_SELECTOR, ".viewer")[number]


def choose(root, axis, text):
    select = root.find_element(By.CSS_SELECTOR, f"select[data-axis='{axis}']")
    for option in select.find_elements(By.TAG_NAME, "option"):
        if option.text == text:
            option.click()
            return
    raise AssertionError(f"{text} is no choice of {axis}")


def test_it_is_small_and_refers_to_nothing_outside(report):
    text = report.read_text()
    assert len(text) < 5_000_000
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def test_it_opens_without_an_error(browser):
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    headings = [h.text for h in browser.find_elements(By.TAG_NAME, "h2")]
    wanted = [
        "Combined image",
        "Candidates",
        "Before and after",
        "Contrast",
        "Provenance",
        "Position of the star",
        "Alignment",
        "Modes and references",
        "Data quality",
        "Reproduce",
    ]
    assert [h for h in headings if h in wanted] == wanted


def read_at(browser, root, x, y):
    """Move the cursor to a pixel by the keyboard, and return the value that is shown."""
    canvas = root.find_element(By.CSS_SELECTOR, "canvas.image")
    browser.execute_script("arguments[0].viewer.cursor = [arguments[1], arguments[2]]", root, x, y)
    canvas.send_keys(Keys.ARROW_RIGHT)
    return float(root.get_attribute("data-value")), root.find_element(
        By.CSS_SELECTOR, ".readout"
    ).text


def test_shown_values_are_those_of_the_products(browser, demo):
    data = fits.getdata(demo.product("_i2d.fits"), "SCI")
    err = fits.getdata(demo.product("_i2d.fits"), "ERR")
    root = viewer(browser, 0)
    y, x = np.argwhere(np.isfinite(data) & (data > 3))[10]
    value, text = read_at(browser, root, int(x) - 1, int(y))
    assert value == pytest.approx(data[y, x], rel=1e-3)  # stored to three digits
    assert "MJy/sr" in text
    choose(root, "image", "SCI / ERR")
    value, _ = read_at(browser, root, int(x) - 1, int(y))
    assert value == pytest.approx(data[y, x] / err[y, x], rel=1e-3)


def test_integrations_can_be_stepped_through(browser, demo):
    path = demo.product("1001_03102_00001_nrcalong_a3001_psfsub.fits")
    data = fits.getdata(path, "SCI")
    root = viewer(browser, 2)
    assert path.name.removesuffix("_psfsub.fits") in root.text
    assert root.get_attribute("data-frame") == "after, 36 modes (50 requested), mean"
    choose(root, "image", "before")
    assert root.get_attribute("data-frame") == "before, mean"
    choose(root, "image", "after, 36 modes (50 requested)")
    step = root.find_element(By.CSS_SELECTOR, "button[aria-label='next integration']")
    for i in range(len(data)):
        step.click()
        assert root.get_attribute("data-frame").endswith(f"integration {i + 1}")
        frame = browser.execute_script("return arguments[0].viewer.frame()", root)
        x, y = 60, 70
        value, text = read_at(browser, root, x - frame["x0"] - 1, y - frame["y0"])
        assert value == pytest.approx(data[i, y, x], rel=2e-3, abs=2e-3)
        assert f"pixel x {x}, y {y}" in text
    # Where that pixel looks, by the gWCS of the exposure.
    with datamodels.open(path) as model:
        r, pa = polar(*plane_of(model, star_of(model)).offset(y, x))
    assert f"separation {r:.3f} arcsec, position angle {pa:.1f} degrees" in text
    step.click()
    assert root.get_attribute("data-frame").endswith("mean")


def test_separation_and_position_angle_are_those_of_the_truth(browser, demo):
    truth = demo.truth["scene"]["companions"][0]
    table = browser.find_element(By.XPATH, "//table[caption='Candidates']")
    rows = [
        [c.text for c in row.find_elements(By.TAG_NAME, "td")]
        for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
    ]
    near = [r for r in rows if abs(float(r[1]) - truth["separation_arcsec"]) < 0.05]
    assert near
    # The circle of the candidate, read out where it is drawn.
    root = viewer(browser, 1)
    frame = browser.execute_script("return arguments[0].viewer.frame()", root)
    mark = frame["marks"][rows.index(near[0])]
    _, text = read_at(browser, root, round(mark["x"]) - 1, round(mark["y"]))
    separation = float(text.split("separation ")[1].split(" ")[0])
    pa = float(text.split("position angle ")[1].split(" ")[0])
    assert separation == pytest.approx(truth["separation_arcsec"], abs=0.06)
    assert pa == pytest.approx(truth["pa_deg"], abs=4.0)


def picture(browser, root):
    return browser.execute_script(
        "const c = arguments[0].querySelector('canvas.image');"
        "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.join(',')",
        root,
    )


def test_every_control_changes_the_picture(browser):
    root = viewer(browser, 0)
    before = picture(browser, root)
    for label, k in (("stretch", 1), ("colors", 2)):
        select = root.find_element(By.XPATH, f".//label[starts-with(., '{label}')]/select")
        select.find_elements(By.TAG_NAME, "option")[k].click()
        after = picture(browser, root)
        assert after != before
        before = after
    for number in (0, 1):
        slider = root.find_elements(By.CSS_SELECTOR, "input[type=range]")[number]
        slider.send_keys(*[Keys.ARROW_RIGHT if number == 0 else Keys.ARROW_LEFT] * 20)
        after = picture(browser, root)
        assert after != before
        before = after
    root.find_element(By.CSS_SELECTOR, "button[aria-label='zoom in']").click()
    assert picture(browser, root) != before
    canvas = root.find_element(By.CSS_SELECTOR, "canvas.image")
    canvas.send_keys("0")
    assert browser.execute_script("return arguments[0].viewer.zoom", root) == 1


def sky_at(text):
    ra, dec = text.split("RA ")[1].split(", Dec ")
    return SkyCoord(ra, dec.replace("\u2212", "-"), unit=("hourangle", "deg"))


def test_right_ascension_and_declination_are_those_of_the_target_and_offset(browser, demo):
    header = fits.getheader(demo.product("_i2d.fits"))
    star = SkyCoord(header["TARG_RA"], header["TARG_DEC"], unit="deg")
    for number in range(3):  # combined, the map north up, an exposure by its gWCS
        root = viewer(browser, number)
        at = browser.execute_script("return arguments[0].viewer.frame().star", root)
        _, text = read_at(browser, root, round(at[0]) + 20, round(at[1]) - 13)
        words = text.replace(";", "").replace(",", "").split()
        separation = float(words[words.index("separation") + 1])
        pa = float(words[words.index("angle") + 1])
        wanted = star.directional_offset_by(pa * u.deg, separation * u.arcsec)
        # The angle is shown to 0.1 degree.
        assert sky_at(text).separation(wanted).arcsec < 1e-3 + np.radians(0.05) * separation


def test_north_can_be_turned_up(browser, demo):
    root = viewer(browser, 2)
    canvas = root.find_element(By.CSS_SELECTOR, "canvas.image")
    canvas.send_keys("n")
    button = root.find_element(By.CSS_SELECTOR, "button.north")
    assert button.get_attribute("aria-pressed") == "true"
    # The pixel far above the star on the screen is north of it, that to the left east.
    for across, down, pa in ((0.0, -0.3, 0.0), (-0.3, 0.0, 90.0)):
        place = browser.execute_script(
            "const v = arguments[0].viewer, b = v.canvas.getBoundingClientRect();"
            "return v.at({clientX: b.left + (0.5 + arguments[1]) * b.width,"
            "             clientY: b.top + (0.5 + arguments[2]) * b.height})",
            root,
            across,
            down,
        )
        back = browser.execute_script(
            "return arguments[0].viewer.place(arguments[1], arguments[2], 1 / "
            "arguments[0].viewer.span(), 1)",
            root,
            *place,
        )
        assert back == pytest.approx([0.5 + across, 0.5 + down])
        _, text = read_at(browser, root, round(place[0]) - 1, round(place[1]))
        shown = float(text.split("position angle ")[1].split(" ")[0])
        assert (shown - pa + 180) % 360 - 180 == pytest.approx(0, abs=2)
    canvas.send_keys("n")
    assert button.get_attribute("aria-pressed") == "false"


def test_before_and_after_blink(browser):
    root = viewer(browser, 2)
    after = root.get_attribute("data-frame")
    root.find_element(By.CSS_SELECTOR, "button.blink").click()
    wait = WebDriverWait(browser, 20)
    wait.until(lambda _: root.get_attribute("data-frame") == "before, mean")
    wait.until(lambda _: root.get_attribute("data-frame") == after)
    wait.until(lambda _: root.get_attribute("data-frame") == "before, mean")
    root.find_element(By.CSS_SELECTOR, "canvas.image").send_keys("b")
    assert root.get_attribute("data-frame") == after


def test_candidates_are_marked_in_every_image_and_linked_to_their_rows(browser):
    rows = browser.find_elements(By.CSS_SELECTOR, "button.source")
    names = [row.text for row in rows]
    for root in browser.find_elements(By.CSS_SELECTOR, ".viewer"):
        frame = browser.execute_script("return arguments[0].viewer.frame()", root)
        assert [mark["text"] for mark in frame["marks"]] == names
    rows[0].click()
    separations = []
    for number in range(3):
        text = viewer(browser, number).find_element(By.CSS_SELECTOR, ".readout").text
        separations.append(float(text.split("separation ")[1].split(" ")[0]))
    assert np.ptp(separations) < 0.07  # the same place, to a pixel
    root = viewer(browser, 0)
    browser.execute_script(
        "const v = arguments[0].viewer, b = v.canvas.getBoundingClientRect();"
        "v.toRow({clientX: b.left + b.width / 2, clientY: b.top + b.height / 2})",
        root,
    )
    assert browser.switch_to.active_element == rows[0]


def test_it_can_be_used_by_the_keyboard_alone(browser):
    canvas = viewer(browser, 0).find_element(By.CSS_SELECTOR, "canvas.image")
    body = browser.find_element(By.TAG_NAME, "body")
    for _ in range(40):
        body.send_keys(Keys.TAB)
        if browser.switch_to.active_element == canvas:
            break
    assert browser.switch_to.active_element == canvas
    canvas.send_keys(Keys.ARROW_UP)
    assert "separation" in viewer(browser, 0).find_element(By.CSS_SELECTOR, ".readout").text


def test_tables_can_be_downloaded(browser, report):
    text = browser.execute_script(
        """
        let made;
        const real = URL.createObjectURL;
        URL.createObjectURL = (blob) => { made = blob; return real.call(URL, blob); };
        const button = [...document.querySelectorAll('button.download')]
            .find((b) => b.dataset.name === 'members');
        button.click();
        URL.createObjectURL = real;
        return made.text();
        """
    )
    lines = text.strip().splitlines()
    assert lines[0] == "member,type,SHA-256"
    files = sorted(p.name for p in report.parent.glob("*_crfints.fits"))
    assert len(lines) > len(files)
    assert all(len(line.split(",")[2]) == 64 for line in lines[1:])


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (1280, True)])
def test_it_is_accessible_and_fits_the_screen(report, tmp_path, width, dark):
    browser = open_browser(tmp_path, width=width)
    try:
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
        )
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.get(report.as_uri())
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        found = Axe().run(browser)["violations"]
        serious = [f"{v['id']}: {n['html'][:200]}" for v in found for n in v["nodes"]]
        assert serious == [], json.dumps(serious, indent=1)
    finally:
        browser.quit()
