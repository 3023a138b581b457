"""Commands that read stores which were edited by hand, with right checksums: an answer or a named error."""

import random
import shutil
from pathlib import Path

import pytest

from small_edits import edit, random_edit
from sporeprint.errors import DamagedStore, SporeprintError
from sporeprint.run.recipe_options import fitted_columns
from sporeprint.run.store_info import cost_lines, family_rows, store_lines, store_summary
from sporeprint.run.store_pair import open_pair
from sporeprint.run.store_source import Rows, labels_of, reopen, store_modality
from sporeprint.store.atomic import digest_of_json, unseal
from sporeprint.store.reader import Store

BEFORE = Path(__file__).parents[1] / "data" / "before_rooms"


def edit_plan(folder, change):
    """Change the plan; the manifest names it again."""
    edit(folder / "plan.json", "plan", change)
    digest = digest_of_json(unseal("plan", folder / "plan.json"))
    edit(folder / "manifest.json", "manifest", lambda manifest: manifest.update(plan=digest))


def read_all(folder):
    """What the commands read of a store's plan, manifest and source."""
    store = Store.open(folder)
    for verified in (False, True):
        [*store_lines(store, verified), *cost_lines(store), *family_rows(store)]
    store_summary(store)
    for attempt in (
        lambda: open_pair(folder, BEFORE / "test.store"),
        lambda: open_pair(BEFORE / "train.store", folder),
        lambda: reopen(store, Rows(folder, BEFORE / "pictures/train")),
        lambda: labels_of(store, Rows(folder, BEFORE / "pictures/train"), "label"),
        lambda: fitted_columns(folder),
        lambda: store_modality(store),
        store.blocks,
        lambda: store.labels,
    ):
        try:
            attempt()
        except SporeprintError:
            continue


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(BEFORE / "train.store", tmp_path / "s")
    return tmp_path / "s"


@pytest.mark.parametrize("key", ["recipe", "resolved", "source", "fit"])
def test_a_plan_without_a_part_is_refused(folder, key):
    edit_plan(folder, lambda header: header["plan"].pop(key))
    with pytest.raises(DamagedStore, match=rf"plan\.json' cannot be understood \(it has no '{key}'\)"):
        Store.open(folder)


@pytest.mark.parametrize(
    "cost", [{"seconds": {"whole": "1"}}, {"seconds": []}, {"seconds": {}}, {"seconds": {}, "rows": -1, "threads": 1}]
)
def test_a_cost_that_is_none_is_refused(folder, cost):
    edit(folder / "manifest.json", "manifest", lambda manifest: manifest.update(cost=cost))
    with pytest.raises(DamagedStore, match=r"manifest\.json' cannot be understood \(cost"):
        Store.open(folder)


def test_random_edits_of_plan_and_manifest_end_in_an_answer_or_a_named_error(folder, tmp_path):
    draw, refused = random.Random(3), 0
    for number in range(80):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        try:
            if number % 2:
                edit_plan(copy, lambda header: random_edit(header["plan"], draw))
            else:
                edit(copy / "manifest.json", "manifest", lambda manifest: random_edit(manifest, draw))
            read_all(copy)
        except SporeprintError:
            refused += 1
    assert 15 < refused < 80
