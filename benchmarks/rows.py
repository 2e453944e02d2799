"""What a benchmark found: lines of a table, and what was aimed at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    rate: float
    unit: str = "mails"
    #: rate of what it is compared with
    against: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What was aimed at, and what came of it in this run."""

    what: str
    aim: str
    figure: str
    is_reached: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Of one benchmark."""

    rows: list[Row]
    targets: list[Target] = field(default_factory=list)


def at_most(what: str, figure: float, most: float, unit: str) -> Target:
    """A target that a smaller figure is better for."""
    return Target(what=what, aim=f"at most {most:g} {unit}", figure=f"{figure:.2f}", is_reached=figure <= most)


def at_least(what: str, figure: float, least: float, unit: str) -> Target:
    """A target that a larger figure is better for."""
    shown = f"{figure:,.0f}" if least >= 1000 else f"{figure:.2f}"
    return Target(what=what, aim=f"at least {least:,g} {unit}", figure=shown, is_reached=figure >= least)


def show(found: Iterable[Found]) -> None:
    """Print both tables."""
    found = list(found)
    print(f"\n{'what':<58} {'per second':>11} {'ratio':>7}  note")
    for row in (row for each in found for row in each.rows):
        ratio = f"{row.rate / row.against:.2f}" if row.against else ""
        print(f"{row.what:<58} {row.rate:>7.0f} {row.unit:<5} {ratio:>5}  {row.note}")
    targets = [target for each in found for target in each.targets]
    if targets:
        print(f"\n{'target':<58} {'aim':<34} {'found':>8}")
    for target in targets:
        print(f"{target.what:<58} {target.aim:<34} {target.figure:>8}  {'yes' if target.is_reached else 'NOT REACHED'}")
    if not all(target.is_reached for target in targets):
        print("benchmarks/README.md says what stands in the way.")
