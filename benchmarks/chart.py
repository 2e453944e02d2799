"""
Draw what ``make bench`` found last: drains and storms, as an SVG file without any library.

    python -m benchmarks.chart [benchmarks/chart.svg]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.contenders import CONTENDERS
from benchmarks.run import RESULTS

#: pixels
WIDTH, LABELS, NUMBERS, BAR, GAP, HEAD = 760, 300, 130, 18, 8, 34
OURS, OTHERS, INK = "#2f81f7", "#9aa4ae", "#6e7781"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One contender."""

    name: str
    value: float
    words: str
    #: where a line across the bar stands
    mark: float | None = None


def main(path: str = "benchmarks/chart.svg") -> None:
    """Write the file."""
    found = json.loads(RESULTS.read_text())
    panels = [
        ("Drain: mails per second, longer is better", _drains(found["drain"])),
        ("Storm: seconds until all are delivered, shorter is better; the line is the ideal", _storms(found["storm"])),
    ]
    Path(path).write_text(draw(panels))


def draw(panels: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Give the SVG of some bar charts below one another."""
    parts, top = [], 0
    for title, bars in panels:
        parts.append(_text(0, top + HEAD - 14, title, weight="bold"))
        top += HEAD
        most = max(max(bar.value, bar.mark or 0.0) for bar in bars)
        for bar in bars:
            parts += _drawn(bar, top, (WIDTH - LABELS - NUMBERS) / most)
            top += BAR + GAP
        top += GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}">'
    return "\n".join([head, *parts, "</svg>", ""])


def _drawn(bar: Bar, top: int, scale: float) -> list[str]:
    words = next(each.words for each in CONTENDERS if each.name == bar.name)
    colour = OURS if bar.name == "ours" else OTHERS
    width, middle = bar.value * scale, top + BAR - 5
    parts = [
        _text(LABELS - 10, middle, words, anchor="end"),
        f'<rect x="{LABELS}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
        _text(LABELS + max(width, (bar.mark or 0.0) * scale) + 6, middle, bar.words),
    ]
    if bar.mark is not None:
        at = LABELS + bar.mark * scale
        parts.append(f'<path d="M{at:.1f} {top - 2}v{BAR + 4}" stroke="{INK}" stroke-width="2"/>')
    return parts


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    style = f'font-family="sans-serif" font-size="12" font-weight="{weight}" fill="{INK}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y}" {style}>{escape(words)}</text>'


def _drains(found: Sequence[dict[str, Any]]) -> list[Bar]:
    bars = [
        Bar(name=one["contender"], value=one["rate"], words=f"{one['rate']:,.0f} ({one['cpu']:.2f} CPU s)")
        for one in found
    ]
    return sorted(bars, key=lambda bar: -bar.value)


def _storms(found: Sequence[dict[str, Any]]) -> list[Bar]:
    bars = [
        Bar(name=one["contender"], value=one["seconds"], words=f"{one['seconds']:.1f} s", mark=one["ideal"])
        for one in found
    ]
    return sorted(bars, key=lambda bar: bar.value)


if __name__ == "__main__":
    main(*sys.argv[1:])
