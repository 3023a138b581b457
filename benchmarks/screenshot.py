"""Draw a report as people see it: on a phone, a screen and paper. Needs Chromium (Debian: chromium, poppler-utils).

python benchmarks/screenshot.py FOLDER/report.html OUT writes phone.png (375 pixels wide), screen.png (1200) and
print.pdf into OUT, and with pdftoppm its pages as PNG.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

WIDTHS = {"phone": 375, "screen": 1200}  # pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--height", type=int, default=9000, help="of the pictures, pixels; Chromium draws up to 16384")
    given = parser.parse_args()
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        parser.error(f"no browser found; install one of: {', '.join(BROWSERS)}")
    given.out.mkdir(parents=True, exist_ok=True)
    page = given.page.resolve().as_uri()
    plain = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    for name, width in WIDTHS.items():
        size = f"--window-size={width},{given.height}"
        _run([*plain, size, f"--screenshot={given.out / name}.png", page])
    paper = given.out / "print.pdf"
    _run([*plain, "--no-pdf-header-footer", f"--print-to-pdf={paper}", page])
    if shutil.which("pdftoppm"):
        _run(["pdftoppm", "-r", "60", "-png", str(paper), str(given.out / "page")])


def _run(command: list[str]) -> None:
    subprocess.run(
        command, check=True, timeout=120, stderr=subprocess.DEVNULL
    )  # Chromium warns a lot without a desktop


if __name__ == "__main__":
    main()
