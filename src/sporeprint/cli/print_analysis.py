"""What `analyse` prints: the blocks, what they share, and the classes that gain and lose most."""

from __future__ import annotations

from collections.abc import Sequence

from sporeprint.cli.figures import number, percent, points
from sporeprint.cli.plain_text import say
from sporeprint.cli.print_tables import Column, print_table, say_folded
from sporeprint.evaluate.analyse import Analysis, ClassChange
from sporeprint.features.blocks import FAMILIES, family

_MOST = 5  # classes that gain most, and as many that lose most
_FEW = 8  # blocks that are all shown
_SHARED = "CKA: 0 where nothing is shared, 100 where blocks differ by a rotation and a scale at most"


def print_analysis(title: str, analysis: Analysis, everything: bool = False) -> None:
    """The answer in a sentence, then the blocks with what they share, and the classes that changed most, on stdout."""
    say_folded(_of_classes(analysis.classes) if analysis.classes else _of_blocks(analysis))
    say("")
    names = list(analysis.blocks)
    with_first = analysis.cka[0]
    columns = [
        Column("block"),
        Column("width"),
        Column("effective rank", "effective rank: how many of the dimensions are in use"),
        Column("anisotropy", "anisotropy: mean cosine of two rows"),
        Column(f"CKA with {names[0]} %", _SHARED),
    ]
    rows = [
        [name, f"{of.width:,}", number(of.effective_rank, 1), number(of.anisotropy), percent(with_first[at])]
        for at, (name, of) in enumerate(analysis.blocks.items())
    ]
    drawn = [f"of {analysis.used:,} rows, drawn from {analysis.rows:,}"] if analysis.used < analysis.rows else []
    print_table(columns, rows, title, _main_blocks(analysis), everything, drawn)
    if everything:
        say("")
        numbered = [f"{at} {name}" for at, name in enumerate(names, 1)]
        shared = [[name, *map(percent, row)] for name, row in zip(numbered, analysis.cka, strict=True)]
        heads = [Column("block"), *(Column(str(at)) for at in range(1, len(names) + 1))]
        print_table(heads, shared, "CKA of every two blocks, %, by their numbers")
    if not analysis.classes:
        return
    say("")
    changes = [
        [str(of.label), f"{of.count:,}", percent(of.before), percent(of.after), points(of.change)]
        for of in analysis.classes
    ]
    columns = [Column("class"), Column("test rows"), Column("embedding %"), Column("joined %"), Column("gain")]
    shown = ends(len(changes))
    few = not everything and len(shown) < len(changes)
    title = f"Classes that gain and lose most, {len(shown)} of {len(changes):,}" if few else "Classes by their gain"
    print_table(columns, changes, title, shown, everything)


def ends(count: int) -> list[int]:
    """The first and the last rows of a list that is ordered by its gains."""
    return [at for at in range(count) if at < _MOST or at >= count - _MOST]


def _of_blocks(analysis: Analysis) -> str:
    """Which block shares least with the first, and which most, in at most 25 words."""
    first, *others = analysis.blocks
    shared = {name: cka for name, cka in zip(others, analysis.cka[0][1:], strict=True) if cka == cka}
    if not shared:
        ranks = analysis.blocks[first]
        return f"{first} uses {number(ranks.effective_rank, 1)} of its {ranks.width:,} dimensions (effective rank)."
    least, most = min(shared, key=shared.__getitem__), max(shared, key=shared.__getitem__)
    return (
        f"Of {len(others)} other blocks, {least} shares least with {first} (CKA {percent(shared[least])}%), "
        f"{most} most ({percent(shared[most])}%)."
    )


def _of_classes(classes: Sequence[ClassChange]) -> str:
    """How many classes gain and lose, in at most 25 words, and over all rows."""
    gain, lose = (sum(sign * of.change > 0 for of in classes) for sign in (1, -1))
    rows = sum(of.count for of in classes)
    before, after = (sum(getattr(of, when) * of.count for of in classes) / rows for when in ("before", "after"))
    return (
        f"{gain:,} of {len(classes):,} classes gain by joining, {lose:,} lose: top-1 {percent(before)}% becomes "
        f"{percent(after)}%, {points(after - before)} points."
    )


def _main_blocks(analysis: Analysis) -> list[int]:
    """The numbers of the blocks that matter: the first, and of each family those that share least and most with it."""
    names = list(analysis.blocks)
    if len(names) <= _FEW:
        return list(range(len(names)))
    kept = {0}
    for kind in FAMILIES:
        members = [at for at, name in enumerate(names) if at and family(name) == kind]
        members.sort(key=lambda at: (analysis.cka[0][at] == analysis.cka[0][at], analysis.cka[0][at]))
        kept |= {*members[:1], *members[-1:]}
    return sorted(kept)
