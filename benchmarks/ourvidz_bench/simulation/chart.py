"""A chart of lines as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 380, 70, 190, 40, 50
_COLOURS = ("#1f6feb", "#d1242f", "#8250df", "#1a7f37")
_LOWEST_S, _HIGHEST_S = 0.1, 10_000.0


def draw(title: str, loads: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """Return an SVG of seconds, on a logarithmic scale, over loads; each line has its label at its end."""

    def x(load: float) -> float:
        return _LEFT + (load - loads[0]) / (loads[-1] - loads[0]) * (_WIDTH - _LEFT - _RIGHT)

    def y(seconds: float) -> float:
        share = log10(max(seconds, _LOWEST_S) / _LOWEST_S) / log10(_HIGHEST_S / _LOWEST_S)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/><text x="{_LEFT}" y="22" font-size="15">{title}</text>',
    ]
    for exponent in range(-1, 5):
        level = y(10.0**exponent)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{level:.1f}" y2="{level:.1f}" stroke="#ddd"/>')
        label = f"≤ {10.0**exponent:g} s" if exponent == -1 else f"{10.0**exponent:,.0f} s"
        parts.append(f'<text x="{_LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{label}</text>')
    parts += [f'<text x="{x(load):.1f}" y="{_HEIGHT - 28}" text-anchor="middle">{load:.0%}</text>' for load in loads]
    for colour, (label, values) in zip(_COLOURS, lines.items(), strict=False):
        points = " ".join(f"{x(load):.1f},{y(value):.1f}" for load, value in zip(loads, values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x(loads[-1]) + 8:.1f}" y="{y(values[-1]) + 4:.1f}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>\n"])
