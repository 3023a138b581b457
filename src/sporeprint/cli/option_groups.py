"""Options that go together, as one value: a frozen dataclass, an option a field."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from sporeprint.cli import options

if TYPE_CHECKING:
    from sporeprint.data.limits import Limits
    from sporeprint.run.combination_flags import Wanted
    from sporeprint.run.store_source import Rows


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer takes it: a parameter that is a dataclass becomes an option for each of its fields."""
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[Any, list[str]]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        spelled = {name: (parameter, hints[name])}
        if is_dataclass(hints[name]):
            types = get_type_hints(hints[name], include_extras=True)
            fields = inspect.signature(hints[name]).parameters
            groups[name] = hints[name], list(fields)
            spelled = {field: (fields[field], types[field]) for field in fields}
        for option, type_ in spelled.values():
            parameters.append(option.replace(annotation=type_, kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**words: Any) -> None:
        from sporeprint.run.early_checks import check_words

        check_words(command.__name__, words)
        for name, (group, fields) in groups.items():
            words[name] = group(**{field: words.pop(field) for field in fields})
        command(**words)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """How large an image or a mask may be."""

    max_pixels: options.MaxPixels = 2**26

    def limits(self) -> Limits:
        from sporeprint.data.limits import Limits

        return Limits(**asdict(self))


@dataclass(frozen=True, kw_only=True)
class SampleLimits(ImageLimits):
    """How large a sample may be."""

    max_seconds: options.MaxSeconds = 1800.0


@dataclass(frozen=True, kw_only=True)
class JoinedFeatures:
    """Which blocks are joined, and how; without any of it a table of several ways."""

    features: options.Features = None
    whiten: options.Whiten = None
    exponent: options.Exponent = None
    pca: options.Pca = None
    combination: options.CombinationName = None
    blocks: options.OldBlocks = None
    size: options.OldSize = None

    def wanted(self) -> Wanted:
        """Raises RecipeError for what does not go together."""
        from sporeprint.run.combination_flags import wanted

        features = options.renamed("features", self.features, "blocks", self.blocks)
        pca = options.renamed("pca", self.pca, "size", self.size)
        return wanted(features, self.whiten, self.exponent, pca, self.combination)


@dataclass(frozen=True, kw_only=True)
class UnlabelledFeatures(JoinedFeatures):
    """The same where no labels of classes may choose."""

    combination: options.UnlabelledCombination = None


@dataclass(frozen=True, kw_only=True)
class AnalysedFeatures(JoinedFeatures):
    """The same where all blocks are taken by default."""

    features: options.AllFeatures = None


@dataclass(frozen=True, kw_only=True)
class PromptFeatures(JoinedFeatures):
    """The same where the paper's assembly is the default."""

    features: options.PaperFeatures = None


@dataclass(frozen=True, kw_only=True)
class PairSources:
    """The sources of two stores, and a column of them that holds other labels."""

    label_column: options.OtherLabels = None
    train: options.OptionalTrain = None
    test: options.OptionalTest = None
    train_split: options.TrainSplit = None
    test_split: options.TestSplit = None

    def train_rows(self, store: Path) -> Rows:
        from sporeprint.run.store_source import Rows

        return Rows(store, self.train, self.train_split)

    def test_rows(self, store: Path) -> Rows:
        from sporeprint.run.store_source import Rows

        return Rows(store, self.test, self.test_split)


@dataclass(frozen=True, kw_only=True)
class GroupedPairSources(PairSources):
    """The same with a column that says which rows belong together."""

    group_column: options.GroupColumn = None
