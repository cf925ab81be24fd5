"""The report's page in a browser: what it shows, and what clicks do."""

import shutil

import pytest

from benchmarks.speed.sweeps import write_history, write_options, write_run
from mtl.report.sweep.command import main

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="needs a browser: apt-get install chromium chromium-driver",
)
GAINS = {"stl": 0.0, "ew": -0.03, "pcgrad": 0.04, "mgda": -0.06}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for number, (name, seed) in enumerate((name, seed) for name in GAINS for seed in (0, 1, 2)):
        run = write_run(folder / f"{number}_{name}", name, seed, gain=GAINS[name])
        write_history(run, seed, gain=GAINS[name], epochs=10)
    failed = folder / "99_uw"
    write_options(failed, ["balancer=uw", "seed=0", "dataset=rooms"])
    (failed / "error.txt").write_text("NonFiniteError: <script>document.title='bad'</script>")
    assert main([str(folder), "--no-pictures"]) == 0
    return folder / "report" / "report.html"


@pytest.fixture(scope="module")
def browser(sweep, tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
        "--window-size=1200,1400",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, sweep):
    browser.get(sweep.as_uri())
    WebDriverWait(browser, 120).until(
        lambda b: b.find_element(By.TAG_NAME, "body").get_attribute("data-ready")
    )
    assert browser.find_element(By.TAG_NAME, "body").get_attribute("data-ready") == "true"
    return browser


def methods(page):
    cells = page.find_elements(By.CSS_SELECTOR, "#table tbody td:first-child")
    return [cell.text.strip() for cell in cells]


def shown(page, chart):
    """Names of the lines and points of a chart, as the reader sees them."""
    return page.execute_script(f"return document.getElementById('{chart}').data.map(t => t.name)")


def axis(page, chart, letter):
    return page.execute_script(
        f"return document.getElementById('{chart}').layout.{letter}axis.title.text"
    )


def title(page, name):
    buttons = page.find_elements(By.CSS_SELECTOR, "#table th button")
    return next(button for button in buttons if button.text.startswith(name))


def test_it_opens_without_errors_or_network(page):
    severe = [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []
    loaded = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith(("blob:", "data:"))] == []
    assert page.title == "Sweep report"  # an error text is text
    assert "Too few to tell" in page.find_element(By.ID, "conclusion").text
    assert "NonFiniteError" in page.find_element(By.ID, "notes").text
    for chart in page.find_elements(By.CSS_SELECTOR, ".chart:not(#layer-chart)"):
        assert chart.find_elements(By.CSS_SELECTOR, ".main-svg"), chart.get_attribute("id")


def test_nothing_is_wider_than_the_window(page):
    width, window = page.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert width <= window


def test_sorting_a_column(page):
    ascending = ["mgda", "ew", "single task", "pcgrad", "uw"]  # what has no value stays last
    title(page, "delta_p").click()
    assert methods(page) == ["pcgrad", "single task", "ew", "mgda", "uw"]
    title(page, "delta_p").click()
    assert methods(page) == ascending
    header = page.find_element(By.CSS_SELECTOR, "#table th[aria-sort]")
    assert header.get_attribute("aria-sort") == "ascending"
    title(page, "method").click()
    assert methods(page) == sorted(methods(page))


def test_hiding_a_method(page):
    charts = ("curve-chart", "profile-chart", "speed-chart")
    assert all("pcgrad" in shown(page, chart) for chart in charts)
    box = page.find_element(By.CSS_SELECTOR, "input[aria-label='show pcgrad']")
    box.click()
    assert not any("pcgrad" in shown(page, chart) for chart in charts)
    assert "pcgrad" not in page.find_element(By.ID, "delta-chart").text
    assert "ew" in shown(page, "curve-chart")
    page.find_element(By.CSS_SELECTOR, "input[aria-label='show pcgrad']").click()
    assert all("pcgrad" in shown(page, chart) for chart in charts)
    page.find_element(By.ID, "none").click()
    assert "No history.csv" in page.find_element(By.ID, "curve-chart").text


def test_two_tasks_for_the_pareto_scatter(page):
    assert axis(page, "pareto-chart", "x") == "segmentation: miou ↑"
    before = shown(page, "pareto-chart")
    Select(page.find_element(By.ID, "first")).select_by_visible_text("normal: mean_angle ↓")
    Select(page.find_element(By.ID, "second")).select_by_visible_text("depth: relative_error ↓")
    assert axis(page, "pareto-chart", "x") == "normal: mean_angle ↓"
    assert axis(page, "pareto-chart", "y") == "depth: relative_error ↓"
    volumes = [name for name in shown(page, "pareto-chart") if name and name.startswith("pcgrad (")]
    assert len(volumes) == 1
    assert volumes[0] not in before
    assert "normal: mean_angle" in page.find_element(By.ID, "pareto-chart").text


def test_another_curve_and_another_method(page):
    Select(page.find_element(By.ID, "curve")).select_by_visible_text("val/mean_angle/normal")
    assert axis(page, "curve-chart", "y") == "val/mean_angle/normal"
    Select(page.find_element(By.ID, "method")).select_by_visible_text("mgda")
    assert set(shown(page, "weight-chart")) >= {"segmentation", "depth", "normal"}
    assert "conflict in" in page.find_element(By.ID, "diagnosis").text
