"""A number depends on the recipe and the row alone: not on what the caller's process has switched on."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import sklearn
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from small import noise_pictures, small_backbone
from small_audio import FAMILIES as AUDIO
from small_audio import tones
from small_text import BERT, TEXTS, tf, wordpiece
from sporeprint import KL, Fungi, Recipe, SimCLR
from sporeprint.backbones.backbone import Backbone
from sporeprint.evaluate.knn_accuracy import knn
from sporeprint.objectives.views.clip import NoiseAndRoll
from sporeprint.objectives.views.image import Patches
from sporeprint.objectives.views.text import Deletions

MANY = ("image", "image in bfloat16", "text", "text in bfloat16", "sound")


def make(kind: str) -> tuple[Fungi, list[Any]]:
    """A Fungi that is not fitted, with a small network, and samples for it."""
    dtype = "bfloat16" if "bfloat16" in kind else "float32"
    options: dict[str, Any] = {"dim": 8, "layers": 1, "dtype": dtype, "seed": 3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind.startswith("image"):
            views, backbone, samples = Patches(2), small_backbone(), list(noise_pictures(4))
        elif kind.startswith("text"):
            views = Deletions(2)
            backbone, samples = Backbone(tf.BertModel(tf.BertConfig(**BERT)).eval(), preprocess=wordpiece()), TEXTS[:4]
        else:
            views, sound = NoiseAndRoll(2), AUDIO["whisper"]
            backbone, samples = sound.backbone(), tones()
    objectives = [KL(latent=8), SimCLR(latent=8, negatives=3, augmentation=views)]
    return Fungi(Recipe(objectives=objectives, combination="decorrelated", **options), backbone=backbone), samples


def numbers(fungi: Fungi, samples: list[Any]) -> dict[str, np.ndarray]:
    features = np.asarray(fungi.transform(samples))
    answer = knn(features, ["a", "b", "a", "b"], features[::-1].copy(), ["a", "b", "a", "b"], k=2)
    return fungi.blocks(samples) | {"features": features, "knn": np.array([answer.value])}


def tables() -> Any:
    pytest.importorskip("pandas")
    return sklearn.config_context(transform_output="pandas", assume_finite=True)


@cache
def fitted(kind: str) -> tuple[Fungi, list[Any], dict[str, np.ndarray]]:
    fungi, samples = make(kind)
    fungi.fit(samples)
    return fungi, samples, numbers(fungi, samples)


def assert_equal(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(actual[name], values, err_msg=name)


@contextmanager
def changed(get: Callable[[], Any], put: Callable[[Any], Any], value: Any) -> Iterator[None]:
    before = get()
    put(value)
    try:
        yield
        assert get() == value
    finally:
        put(before)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
        assert torch.get_default_device().type == name
    finally:
        torch.set_default_device(None)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    torch.set_flush_denormal(True)
    smallest = 5e-324
    try:
        yield
        assert smallest * 1.0 == 0
    finally:
        torch.set_flush_denormal(False)


class Doubles(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        return result * 2 if func is torch.nn.functional.linear else result


class Counts(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def function_mode() -> Iterator[None]:
    with Doubles():
        yield
        assert torch.nn.functional.linear(torch.ones(1, 1), torch.ones(1, 1)).item() == 2


@contextmanager
def dispatch_mode() -> Iterator[None]:
    with Counts() as mode:
        yield
        assert mode.calls == 0
        torch.ones(1).add(1)
        assert mode.calls > 0


@contextmanager
def rounded_while_saved() -> Iterator[None]:
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.detach().round(), lambda tensor: tensor):
        yield
        leaf = torch.tensor(2.4, requires_grad=True)
        assert torch.autograd.grad(leaf * leaf, leaf)[0] == 4


@contextmanager
def anomaly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stack = torch.autograd.detect_anomaly()
    with stack:
        yield
        assert torch.is_anomaly_enabled()


@contextmanager
def vectorised() -> Iterator[None]:
    """Inside torch.vmap, as a function of it would be."""
    from torch._C._functorch import _vmap_decrement_nesting, _vmap_increment_nesting

    level = _vmap_increment_nesting(2, "error")
    try:
        yield
        assert torch._C._functorch.maybe_current_level() == level
    finally:
        _vmap_decrement_nesting()


@contextmanager
def warnings_as_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        yield
        assert warnings.filters == before
        with pytest.raises(UserWarning):
            warnings.warn("another library's", stacklevel=1)


@contextmanager
def global_hook() -> Iterator[None]:
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, args, output: None)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def deterministic() -> Iterator[None]:
    with changed(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True):
        yield


@contextmanager
def only_math() -> Iterator[None]:
    with sdpa_kernel(SDPBackend.MATH):
        yield
        assert not torch.backends.cuda.flash_sdp_enabled()


@contextmanager
def without_onednn() -> Iterator[None]:
    with torch.backends.mkldnn.flags(enabled=False):
        yield
        assert not torch._C._get_mkldnn_enabled()


def precision(value: str) -> Any:
    return changed(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, value)


SETTINGS: dict[str, Callable[[], Any]] = {
    "inference mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "float64 by default": partial(changed, torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "bfloat16 by default": partial(changed, torch.get_default_dtype, torch.set_default_dtype, torch.bfloat16),
    "meta by default": partial(default_device, "meta"),
    "a device context": partial(torch.device, "meta"),
    "deterministic": deterministic,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "autocast of cuda": partial(torch.autocast, "cuda", torch.float16, enabled=torch.cuda.is_available()),
    "medium products": partial(precision, "medium"),
    "no oneDNN": without_onednn,
    "math attention": only_math,
    "flushed denormals": flushed_denormals,
    "anomaly detection": anomaly,
    "vmap": vectorised,
    "a function mode": function_mode,
    "a dispatch mode": dispatch_mode,
    "fake tensors": FakeTensorMode,
    "saved tensors rounded": rounded_while_saved,
    "a hook on every module": global_hook,
    "no fused attention": partial(
        changed, torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, False
    ),
    "NumPy raises": partial(np.errstate, all="raise"),
    "NumPy prints little": partial(np.printoptions, precision=1, threshold=2, legacy="1.13"),
    "warnings as errors": warnings_as_errors,
    "scikit-learn gives tables": tables,
}


@pytest.mark.parametrize("kind", MANY)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_callers_setting_changes_no_number_and_stays(setting, kind):
    fungi, samples, expected = fitted(kind)
    with SETTINGS[setting]():
        actual = numbers(fungi, samples)
    assert_equal(actual, expected)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_fungi_fitted_under_a_callers_setting_is_the_same(setting):
    expected = fitted("text")[2]
    fungi, samples = make("text")
    with SETTINGS[setting]():
        fungi.fit(samples)
    assert_equal(numbers(fungi, samples), expected)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_fungi_loaded_under_a_callers_setting_is_the_same(setting, tmp_path):
    fungi, samples, expected = fitted("image")
    fungi.save(tmp_path)
    with SETTINGS[setting]():
        again = Fungi.load(tmp_path, backbone=fungi.backbone)
        actual = numbers(again, samples)
    assert_equal(actual, expected)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_settings_and_network_are_as_they_were_after_a_pass_that_failed(error):
    fungi, samples = make("image")
    fungi.fit(samples)
    expected = numbers(fungi, samples)
    module, raising = fungi.network.module, [False]

    def fail(*_: Any) -> None:
        if raising[0]:
            raise error("in the middle")

    handle = module.blocks[1].attn.proj.register_forward_hook(fail)
    before = [sorted(vars(part)) for part in module.modules()]
    raising[0] = True
    with ExitStack() as stack:
        for name in ("float64 by default", "no oneDNN", "math attention", "warnings as errors", "NumPy raises"):
            stack.enter_context(SETTINGS[name]())
        with pytest.raises(error, match="in the middle"):
            fungi.blocks(samples)
        assert torch.is_grad_enabled()
    handle.remove()
    assert [sorted(vars(part)) for part in module.modules()] == before
    assert_equal(numbers(fungi, samples), expected)


@pytest.mark.parametrize("kind", MANY)
def test_global_random_numbers_neither_decide_nor_are_drawn(kind):
    fungi, samples, expected = fitted(kind)
    for seed in (0, 7):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
        actual = numbers(fungi, samples)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (str(np.random.get_state()), random.getstate()) == before[1:]  # noqa: NPY002
        assert_equal(actual, expected)


def test_no_global_random_state_moves_while_a_fungi_is_made_fitted_and_saved(tmp_path):
    def states() -> list[str]:
        return [str(torch.get_rng_state().tolist()), str(np.random.get_state()), str(random.getstate())]  # noqa: NPY002

    pictures, before = list(noise_pictures(4)), states()
    fungi = Fungi(Recipe(backbone="tiny", objectives=[KL(latent=8), SimCLR(latent=8, negatives=3)], dim=8))
    assert states() == before
    fungi.fit(pictures)
    assert states() == before
    fungi.blocks(pictures)
    assert states() == before
    fungi.save(tmp_path)
    Fungi.load(tmp_path).transform(pictures)
    assert states() == before


def test_our_own_warnings_are_raised_where_the_caller_wishes():
    fungi, samples, _ = fitted("text")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="1 of 5 rows are NaN"):
            fungi.blocks([*samples, ""])


def test_a_warning_of_another_library_costs_no_row():
    fungi, samples = make("image")
    fungi.fit(samples)
    warning = [False]
    handle = fungi.network.module.register_forward_hook(
        lambda *_: warnings.warn("deprecated", DeprecationWarning, stacklevel=1) if warning[0] else None
    )
    try:
        expected = numbers(fungi, samples)
        warning[0] = True
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_equal(numbers(fungi, samples), expected)
    finally:
        handle.remove()
