"""Draw a report as people see it: on a phone, a screen and paper. Needs Chromium (Debian: chromium, poppler-utils).

python benchmarks/screenshot.py FOLDER/report.html OUT writes phone-light.png, phone-dark.png (375 pixels wide),
screen-light.png, screen-dark.png (1200) and print.pdf into OUT, and with pdftoppm its pages as PNG.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from itertools import product
from pathlib import Path

WIDTHS = {"phone": 375, "screen": 1200}  # pixels
SCHEMES = {"dark": 0, "light": 1}  # Chromium's numbers
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
    with tempfile.TemporaryDirectory() as folder:
        for (name, width), (scheme, number) in product(WIDTHS.items(), SCHEMES.items()):
            frame = Path(folder) / f"{name}.html"  # a window cannot be as narrow as a phone, a frame can
            style = f"width:{width}px;height:{given.height}px;border:0;display:block"
            frame.write_text(f'<body style="margin:0"><iframe src="{page}" style="{style}"></iframe>')
            size = f"--window-size={max(width, 500)},{given.height}"
            colours = f"--blink-settings=preferredColorScheme={number}"
            picture = f"--screenshot={given.out / name}-{scheme}.png"
            _run([*plain, size, colours, picture, frame.as_uri()])
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
