"""A browser for tests of pages: Chromium, with its network cut off.

It needs Chromium and its driver (Debian: ``apt-get install chromium chromium-driver``); without them tests are skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest

Driver: TypeAlias = Any
"""Selenium's, which is imported only where there is a browser."""

PATIENCE_S = 60.0
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))


@contextmanager
def chromium() -> Iterator[Driver]:
    """Give selenium's driver of a new browser, or skip the test."""
    if not CHROMIUM or not DRIVER:
        pytest.skip("NOT TESTED IN A BROWSER: apt-get install chromium chromium-driver, and run again")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_script_timeout(PATIENCE_S)
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield driver
    finally:
        driver.quit()
