"""The README's and the docs' Python runs, and what they name exists."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python_blocks(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL))


CHEAPER = {  # the guide's words in the test's
    "digits = load_digits()\nimages": "digits = load_digits(n_class=2)\nimages",
    "SimCLR(negatives=4)], size=16)": "SimCLR(augmentation=Patches(2), negatives=4)], size=16, layers=1)",
    "permutation(len(digits.images))[:600]": "permutation(len(digits.images))[:60]",
}


def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "from sporeprint.objectives.views.image import Patches\n" + python_blocks("docs/guide.md")
    for text, cheaper in CHEAPER.items():
        assert text in code
        code = code.replace(text, cheaper)
    (tmp_path / "guide.py").write_text(code)
    assert runpy.run_path("guide.py", run_name="guide")["features"].shape == (24, 16)


def test_the_page_on_segmentation_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.py").write_text(python_blocks("docs/segmentation.md"))
    assert [one.shape for one in runpy.run_path("page.py", run_name="page")["predicted"]] == [(40, 50)] * 2


def test_the_page_on_predictions_runs_from_top_to_bottom(tmp_path):
    (tmp_path / "page.py").write_text(python_blocks("docs/predictions.md"))
    assert runpy.run_path(str(tmp_path / "page.py"), run_name="page")["predicted"].tolist() == ["day", "night"] * 4


def test_the_readme_opens_with_code_that_runs(pictures):
    code = python_blocks("README.md").replace("facebook/dinov2-small", "tiny").replace("size=384", "size=4")
    code = code.replace("SimCLR()", "SimCLR(negatives=2)")
    names: dict = {
        "train_images": pictures[:6],
        "labels": [0, 1] * 3,
        "test_images": pictures[6:],
        "test_labels": [0, 1] * 2,
    }
    exec(compile(code, "README.md", "exec"), names)
    assert names["features"].shape == (6, 4)


PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_to_a_file_of_ours_leads_somewhere(page):
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (ROOT / page).parent.joinpath(link).exists(), link


def test_the_documented_commands_exist():
    from sporeprint.cli.app import app

    named = {command.name or command.callback.__name__ for command in app.registered_commands}
    used = set(re.findall(r"^(?:\.venv/bin/)?sporeprint (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert used
    assert used <= named
