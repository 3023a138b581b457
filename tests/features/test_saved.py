"""A saved Fungi is whole at each instant, and what was edited by hand is refused by name."""

import os
import random
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from small import noise_pictures
from small_edits import random_edit
from sporeprint import KL, Combination, Fungi, Recipe, SimCLR
from sporeprint.errors import DamagedStore, RecipeError, SporeprintError, StoreError
from sporeprint.features import saved
from sporeprint.features.dense.dense_settings import Dense
from sporeprint.objectives.views.image import Patches
from sporeprint.store import atomic

BEFORE = Path(__file__).parents[1] / "data" / "before_rooms"


def fitted(seed):
    recipe = Recipe(
        backbone="tiny",
        objectives=[KL(latent=4), SimCLR(latent=4, augmentation=Patches(2), negatives=2)],
        combination=Combination(whiten="auto"),
        dim=8,
        layers=1,
        size=4,
        seed=seed,
        dense=Dense(support=8, fit_images=2),
    )
    fungi = Fungi(recipe, device="cpu").fit(noise_pictures(6))
    return fungi.fit_dense(noise_pictures(3))


@pytest.fixture(scope="module")
def fits():
    return [fitted(seed).pack() for seed in (0, 1)]


def files_of(folder):
    return sorted(path.name for path in folder.iterdir())


def is_whole(folder, fits):
    """Which of the fits the folder holds."""
    body, tensors = saved.unpack_parts(saved.read_folder(folder), "folder")
    packed = [saved.unpack_parts(fit.__getitem__, "fit") for fit in fits]
    (which,) = (
        number
        for number, (theirs, values) in enumerate(packed)
        if theirs == body and all(torch.equal(tensors[name], value) for name, value in values.items())
    )
    return which


def test_saving_over_a_good_one_loses_neither_wherever_it_ends(tmp_path, fits, monkeypatch):
    for earlier in ("saved", "by an earlier version"):
        seen = []
        for step in range(100):
            folder = tmp_path / f"{earlier} {step}"
            if earlier == "saved":
                saved.write_folder(folder, fits[0])
            else:
                folder.mkdir()
                for name, data in fits[0].items():
                    (folder / name).write_bytes(data)
            calls = 0

            def ended(name, real, step=step):
                def call(*args, **kwargs):
                    nonlocal calls
                    calls += 1
                    if calls > step:
                        raise KeyboardInterrupt(name)
                    return real(*args, **kwargs)

                return call

            with monkeypatch.context() as patch:
                for name in ("replace", "fsync", "open"):
                    patch.setattr(atomic.os, name, ended(name, getattr(os, name)))
                patch.setattr(Path, "unlink", ended("unlink", Path.unlink))
                patch.setattr(Path, "mkdir", ended("mkdir", Path.mkdir))
                try:
                    saved.write_folder(folder, fits[1])
                    done = True
                except KeyboardInterrupt:
                    done = False
            seen.append(is_whole(folder, fits))
            if done:
                break
            saved.write_folder(folder, fits[1])
            assert is_whole(folder, fits) == 1
        assert done
        assert seen == sorted(seen)
        assert set(seen) == {0, 1}
        assert len(seen) > 8
        assert len(files_of(folder)) == 2


@contextmanager
def saving_again_and_again(folder, fits):
    """A process that does this until it is killed; its number."""
    child = os.fork()
    if not child:
        try:
            while True:
                for fit in fits:
                    saved.write_folder(folder, fit)
        finally:
            os._exit(1)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.* is multi-threaded")
def test_a_killed_save_leaves_one_fit_whole(tmp_path, fits):
    saved.write_folder(tmp_path / "saved", fits[0])
    draw, seen = random.Random(0), set()
    for _ in range(4):
        with saving_again_and_again(tmp_path / "saved", fits) as child:
            for _ in range(6):
                time.sleep(draw.uniform(0.01, 0.1))
                os.kill(child, signal.SIGSTOP)
                seen.add(is_whole(tmp_path / "saved", fits))
                os.kill(child, signal.SIGCONT)
        seen.add(is_whole(tmp_path / "saved", fits))
    assert seen == {0, 1}
    saved.write_folder(tmp_path / "saved", fits[1])
    assert is_whole(tmp_path / "saved", fits) == 1
    assert len([name for name in files_of(tmp_path / "saved") if not name.endswith(".tmp")]) == 2


def test_a_folder_of_an_earlier_version_opens_and_is_saved_over(tmp_path, fits):
    shutil.copytree(BEFORE / "fungi", tmp_path / "fungi")
    Fungi.load(tmp_path / "fungi")
    (tmp_path / "fungi/notes.safetensors").write_text("mine")
    saved.write_folder(tmp_path / "fungi", fits[0])
    assert is_whole(tmp_path / "fungi", fits) == 0
    assert "notes.safetensors" in files_of(tmp_path / "fungi")
    assert "fungi.safetensors" not in files_of(tmp_path / "fungi")


def test_a_path_that_can_be_no_folder_is_named(tmp_path, fits):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(StoreError, match="cannot be a folder"):
            saved.write_folder(path, fits[0])


def edited(fit, change=None, tensors=None):
    """The files of a fit whose JSON or tensors were changed, with right checksums."""
    body, values = saved.unpack_parts(fit.__getitem__, "fit")
    description = {key: value for key, value in body.items() if key not in ("format", "tensors_sha256")}
    if tensors is not None:
        tensors(values)
    if change is not None:
        change(description)
    return saved.pack_parts(description, values)


def replaced(name, value):
    return lambda tensors: tensors.update({name: value})


HEAD, BANK = "heads/kl/weight", "negatives/simclr"
EDITS = {
    "a missing head": (None, lambda tensors: tensors.pop(HEAD)),
    "no head at all": (None, lambda tensors: [tensors.pop(f"heads/kl/{part}") for part in ("weight", "bias")]),
    "a head of another width": (None, replaced(HEAD, torch.zeros(4, 7))),
    "a flat head": (None, replaced(HEAD, torch.zeros(4))),
    "a head with NaN": (None, replaced(HEAD, torch.full((4, 128), torch.nan))),
    "a head of integers": (None, replaced(HEAD, torch.zeros(4, 128, dtype=torch.int64))),
    "a bias of another length": (None, replaced("heads/kl/bias", torch.zeros(5))),
    "a head with a third part": (None, replaced("heads/kl/x", torch.zeros(5))),
    "negatives of another width": (None, replaced(BANK, torch.zeros(2, 7))),
    "negatives with infinity": (None, replaced(BANK, torch.full((2, 4), torch.inf))),
    "a tensor that nothing reads": (None, replaced("x", torch.zeros(1))),
    "a projection of another target": (None, replaced("projections/x", torch.zeros(2, 2))),
    "axes without a variance": (None, lambda tensors: tensors.pop("combiner/pca/variance")),
    "axes of another width": (None, replaced("combiner/whiten.kl/components", torch.zeros(8, 9))),
    "axes of integers": (None, replaced("combiner/pca/components", torch.zeros(4, 10, dtype=torch.int32))),
    "dense heads missing": (None, lambda tensors: tensors.pop("dense/heads/simclr/weight")),
    "a support of another width": (None, replaced("dense/support/tokens", torch.zeros(8, 3))),
    "owners that are floats": (None, replaced("dense/support/owners", torch.zeros(8))),
    "a latent of 10^9": (lambda body: body["recipe"]["objectives"][0].update(latent=10**9), None),
    "a dim of 10^9": (lambda body: body["recipe"].update(dim=10**9), None),
    "a view of 10^9 patches": (
        lambda body: body["recipe"]["objectives"][1]["augmentation"].update(grid=10**5),
        None,
    ),
    "a dense latent of 10^9": (lambda body: body["recipe"]["dense"]["objectives"][0].update(latent=10**9), None),
    "a recipe that is a list": (lambda body: body.update(recipe=[]), None),
    "no recipe": (lambda body: body.pop("recipe"), None),
    "a combination that is an objective": (
        lambda body: body.update(combination=body["recipe"]["objectives"][0]),
        None,
    ),
    "widths of another block": (lambda body: body["combiner"]["widths"].update(kl=9), None),
    "widths of texts": (lambda body: body["combiner"].update(widths={"kl": "8"}), None),
    "another width": (lambda body: body["combiner"].update(width=5), None),
    "resolved of nothing": (lambda body: body.update(resolved={}), None),
    "a backbone that is a text": (lambda body: body["resolved"].update(backbone="tiny"), None),
    "dense that is a list": (lambda body: body.update(dense=["combination"]), None),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_fit_edited_by_hand_with_right_checksums_is_refused(tmp_path, fits, name):
    saved.write_folder(tmp_path, edited(fits[0], *EDITS[name]))
    with pytest.raises((DamagedStore, RecipeError)):
        Fungi.load(tmp_path, device="cpu").patches  # noqa: B018


def test_tensors_of_another_format_are_named(fits):
    values = load(fits[0][saved.TENSORS_NAME])
    for odd in (torch.zeros(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bfloat16), torch.zeros(0)):
        files = edited(fits[0], None, lambda tensors, odd=odd: tensors.update({name: odd.clone() for name in values}))
        with pytest.raises(SporeprintError):
            Fungi.unpack(files.__getitem__, "here")
    assert len(save(values)) == len(fits[0][saved.TENSORS_NAME])


def test_random_hand_edits_of_the_description_end_in_the_same_features_or_a_named_error(fits):
    draw, outcomes = random.Random(1), {"same": 0, "refused": 0}
    for _ in range(40):
        told = []
        try:
            files = edited(fits[0], lambda body, told=told: told.append(random_edit(body, draw)))
        except SporeprintError:
            continue
        try:
            fungi = Fungi.unpack(files.__getitem__, "here", device="cpu")
            assert fungi.patches is not None
        except (SporeprintError, ImportError):
            outcomes["refused"] += 1
            continue
        outcomes["same"] += 1
        assert np.isfinite(fungi.transform(noise_pictures(1))).all() if hasattr(fungi, "combiner") else True, told
    assert min(outcomes.values()) > 5, outcomes


def test_a_name_that_no_folder_can_have_is_named(tmp_path, fits):
    with pytest.raises(StoreError, match="cannot be a folder: embedded null"):
        saved.write_folder(tmp_path / "a\0b", fits[0])


def test_a_folder_that_is_not_there_is_said_to_be_missing_and_not_damaged(tmp_path):
    (tmp_path / "table.parquet").write_bytes(b"")
    for path in (tmp_path / "nowhere", tmp_path / "table.parquet"):
        with pytest.raises(DamagedStore, match=f"^there is no folder '{path}'; give what Fungi.save wrote, or a store"):
            Fungi.load(path)
