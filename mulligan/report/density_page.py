"""Samplers side by side as one HTML page that needs nothing else: verdicts, draws in the plane, traces, ranks.

Data come as plain dictionaries (``rows`` of the samplers, ``pictures`` of their draws); every text is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mulligan.report.figures import Figure
from mulligan.report.formatting import NOTHING, decimals, fixed, interval, one_line, seconds, share
from mulligan.report.html import _minus
from mulligan.report.svg import DATA, INK, MARK, MODEL, QUIET, RULE, Axis, Drawing, axis, short

SIDE = 210.0
MOST_POINTS = 1500
USABLE = ("ok", "too few draws")
MOST_PLAIN = 1e6  # beyond it moments are written as powers of ten
MOST_TRACES = 4
TRACE_POINTS = 400
RANK_BINS = 20
MOST_RANKED = 12  # chains whose ranks are drawn
COLORS = (MODEL, MARK, "#009e73", "#cc79a7")  # Okabe and Ito: chains apart, dark enough for lines on white
HEADS = ("sampler", "acceptance", "R-hat", "ESS", "ESS/1,000 strokes", "modes", "log Z", "time", "verdict")


def density_cells(row: Mapping[str, Any]) -> list[str]:
    """One sampler's row of the table, in the order of ``HEADS``."""
    if row["status"] == "failed":
        return [row["sampler"], *[NOTHING] * 7, "failed"]
    n = row["diagnosis"]["numbers"]
    swap = row["remarks"].get("swap_acceptance")
    accepted = n["acceptance"] if n["acceptance"] is not None else row["remarks"].get("acceptance")
    acceptance = (
        "unadjusted" if accepted is None else share(accepted) + ("" if swap is None else f" (swap {share(swap)})")
    )
    weighted = n["weights_ess"] is not None
    ess = n["weights_ess"] if weighted else n["ess_bulk"]
    rate = ess * 1000 / (row["strokes_per_draw"] * n["chains"] * n["draws"])
    return [
        row["sampler"],
        acceptance,
        NOTHING
        if weighted
        else "infinite"
        if n["rhat"] is None or not np.isfinite(n["rhat"])
        else fixed(n["rhat"], 3 if n["rhat"] < 1.1 else 2),
        f"{ess:,.0f}",
        fixed(rate, 0 if rate >= 10 else 1 if rate >= 0.1 else 3),
        _modes(n),
        log_z_text(row["log_z"]),
        seconds(row["seconds"] + row["warm_up_seconds"]),
        row["verdict"],
    ]


def log_z_text(quantity: Mapping[str, Any]) -> str:
    """log Z as ``5.13 [5.11, 5.15]``, the ends being those of its 95 % interval."""
    if quantity["kind"] == "none" or quantity["value"] is None:
        return NOTHING
    low, high = quantity.get("low"), quantity.get("high")
    if low is None or high is None:
        return fixed(quantity["value"], 3)
    digits = max(2, decimals((high - low) / 4))
    return f"{fixed(quantity['value'], digits)} [{fixed(low, digits)}, {fixed(high, digits)}]"


def _modes(numbers: Mapping[str, Any]) -> str:
    """Holes found of a known law, or modes found, and how many of them a chain visits."""
    if numbers["holes"]:
        said = f"{numbers['holes']['found']} of {numbers['holes']['of']}"
    elif numbers["modes"] is None:
        return NOTHING
    else:
        said = str(numbers["modes"])
    several = (numbers["modes"] or 0) > 1 and numbers["weights_ess"] is None
    return said + (f", {numbers['modes_by_chain']:.1f} a chain" if several else "")


def density_html(report: Mapping[str, Any], pictures: Mapping[str, Any]) -> str:
    """The page as text.

    ``report`` holds ``name``, ``dim``, ``names``, ``command``, ``seed``, ``versions``, ``known`` (a sentence on the law,
    or empty) and ``samplers`` (rows); ``pictures`` maps samplers to ``draws`` (chains, draws, d) and ``chained`` (whether
    the rows are chains), and holds under ``""`` the true ``draws`` (n, d) where the law is known.
    """
    page = _environment().get_template("density.html.jinja")
    rows = report["samplers"]
    shown = [row["sampler"] for row in rows if row["sampler"] in pictures]
    chained = [name for name in shown if pictures[name].get("chained", True) and pictures[name]["draws"].shape[1] > 1]
    truth = pictures.get("", {}).get("draws")
    return page.render(
        report=report,
        heads=HEADS,
        rows=[(density_cells(row), "" if row["verdict"] in USABLE else "failed") for row in rows],
        verdicts=[(row["sampler"], _said(row)) for row in rows],
        log_z=[(row["sampler"], _log_z_said(row["log_z"])) for row in rows if row["status"] == "ok" and _has(row)],
        planes=planes(pictures, shown, truth, report["names"]),
        traces=[traces(pictures[name]["draws"], report["names"], name) for name in chained],
        ranks=[ranks(pictures[name]["draws"], report["names"], name) for name in chained],
        summaries=[(row["sampler"], _summary(row)) for row in rows if row["status"] == "ok"],
    )


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("mulligan.report")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters.update(drawing=Markup, minus=_minus, line=_line)
    return made


def _line(text: object) -> str:
    """One line, with names that must not be broken at their hyphen."""
    return one_line(text).replace("R-hat", "R\u2011hat")


def _has(row: Mapping[str, Any]) -> bool:
    return row["log_z"]["kind"] != "none"


def _said(row: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict, and the sentences behind it with what to do."""
    if row["status"] == "failed":
        return "failed", row["reason"]
    said = row["diagnosis"]
    advice = f" Try: {said['advice']}." if said["advice"] else ""
    return said["verdict"], " ".join(said["sentences"]) + advice


def _log_z_said(quantity: Mapping[str, Any]) -> str:
    note = f" ({quantity['note']})" if quantity["note"] else ""
    return f"{log_z_text(quantity)} nats, {quantity['kind']}, 95 % interval {interval(quantity)}{note}"


def _summary(row: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for name, s in list(row["summary"].items())[:40]:
        digits = decimals(s["mcse"])
        plain = max(abs(s["mean"]), s["sd"]) < MOST_PLAIN
        rhat = fixed(s["rhat"], 3) if s["rhat"] is not None and np.isfinite(s["rhat"]) else "infinite"
        moments = [fixed(v, digits) if plain else f"{v:.3g}" for v in (s["mean"], s["mcse"], s["sd"])]
        numbers = [text if text != "inf" else "not finite" for text in moments] + [rhat]
        lines.append([one_line(name), *numbers, f"{s['ess_bulk']:,.0f}", f"{s['ess_tail']:,.0f}"])
    return lines


def planes(
    pictures: Mapping[str, Any], shown: Sequence[str], truth: np.ndarray | None, names: Sequence[str]
) -> list[Figure]:
    """Draws in the plane of the first two coordinates (of one coordinate: along the run), all on the same axes."""
    clouds = {name: pictures[name]["draws"] for name in shown}
    if not clouds:
        return []
    every = np.concatenate([cloud.reshape(-1, cloud.shape[2]) for cloud in clouds.values()])
    judged = (
        every if truth is None else truth
    )  # of a known law its own range: a sampler that ran away leaves the picture
    ends = np.percentile(judged, [0.5, 99.5], axis=0)
    figures = []
    if truth is not None:
        figures.append(_plane(truth[None], ends, names, "the law itself", True))
    return figures + [
        _plane(cloud, ends, names, name, False, pictures[name].get("chained", True)) for name, cloud in clouds.items()
    ]


def _plane(
    cloud: np.ndarray, ends: np.ndarray, names: Sequence[str], title: str, true: bool, chained: bool = True
) -> Figure:
    flat = cloud.shape[2] == 1
    left, top, below = 44.0, 14.0, 40.0
    draws = np.arange(cloud.shape[1], dtype=float)
    if flat:
        across = Axis(0.0, max(1.0, float(len(draws) - 1)), left, left + SIDE)
        points = np.stack([np.broadcast_to(draws, cloud.shape[:2]), cloud[..., 0]], axis=-1)
    else:
        across = axis(float(ends[0, 0]), float(ends[1, 0]), left, left + SIDE, margin=0.12)
        points = cloud[..., :2]
    up = axis(float(ends[0, -1 if flat else 1]), float(ends[1, -1 if flat else 1]), top + SIDE, top, margin=0.12)
    x_name, y_name = ("draw", names[0]) if flat else names[:2]
    said = f"{y_name} against {x_name}: {cloud.shape[0] * cloud.shape[1]} draws of {title}."
    drawing = Drawing(left + SIDE + 14, top + SIDE + below, said)
    drawing.vertical(up, left, 5, size=10, grid_to=left + SIDE)
    drawing.horizontal(across, top + SIDE, 5, title=short(x_name, 30), size=10, grid_to=top)
    drawing.text(2, 10, short(y_name, 30), size=10, color=INK)
    rest = points.reshape(-1, 2)
    rest = rest[np.linspace(0, len(rest) - 1, min(len(rest), MOST_POINTS)).round().astype(int)]
    outside = _cloud(drawing, across, up, rest, DATA if true else "#8fb8d6", 2.2)
    if not true and chained and cloud.shape[0] > 1:
        first = points[0][np.linspace(0, points.shape[1] - 1, min(points.shape[1], 400)).round().astype(int)]
        _cloud(drawing, across, up, first, MARK, 2.4)
    if outside >= 0.005:
        drawing.text(left + SIDE, 10, f"{outside:.0%} outside", anchor="end", size=10, color=INK)
    return Figure(title, "", drawing.markup())


def _cloud(drawing: Drawing, across: Axis, up: Axis, points: np.ndarray, color: str, size: float) -> float:
    """Points inside the axes; returns the share that is outside."""
    inside = (points[:, 0] >= across.low) & (points[:, 0] <= across.high)
    inside &= (points[:, 1] >= up.low) & (points[:, 1] <= up.high)
    drawing.cloud(across.many(points[inside, 0]), up.many(points[inside, 1]), color, size)
    return float(1 - inside.mean()) if inside.size else 0.0


def traces(draws: np.ndarray, names: Sequence[str], sampler: str) -> Figure:
    """The first coordinate of some chains along the run."""
    width, height, left = 350.0, 130.0, 44.0
    chosen = draws[np.unique(np.linspace(0, len(draws) - 1, MOST_TRACES).round().astype(int)), :, 0]
    pick = np.unique(np.linspace(0, draws.shape[1] - 1, TRACE_POINTS).round().astype(int))
    drawing = Drawing(
        width, height + 34, f"{names[0]} of {len(chosen)} chains of {sampler} along {draws.shape[1]} draws."
    )
    low, high = (float(v) for v in np.percentile(chosen, [0.1, 99.9]))
    up = axis(low, high, height, 18, margin=0.08)
    across = axis(0.0, float(max(1, draws.shape[1] - 1)), left, width - 8)
    drawing.vertical(up, left, 4, size=10, grid_to=across.end)
    drawing.horizontal(across, height, 5, title="draw", size=10)
    drawing.text(2, 10, short(names[0], 40), size=10, color=INK)
    for chain, color in zip(chosen, COLORS):
        values = np.clip(chain[pick], up.low, up.high)
        drawing.path(zip(across.many(pick), up.many(values)), color, 1.0)
    return Figure(sampler, "", drawing.markup())


def ranks(draws: np.ndarray, names: Sequence[str], sampler: str) -> Figure:
    """For some chains, how their draws of the first coordinate rank among all: flat where the chains agree."""
    width, height, left = 350.0, 130.0, 44.0
    values = draws[..., 0]
    order = np.argsort(np.argsort(values, axis=None, kind="stable"), kind="stable").reshape(values.shape)
    bins = min(RANK_BINS, max(2, values.shape[1] // 5))
    chosen = order[np.unique(np.linspace(0, len(order) - 1, MOST_RANKED).round().astype(int))]
    counts = np.stack([np.histogram(row, bins, (0, values.size))[0] for row in chosen]) * bins / values.shape[1]
    alt = f"Ranks of {names[0]} by chain, {sampler}: the fullest bin has {counts.max():.1f} times its due."
    drawing = Drawing(width, height + 34, alt)
    up = axis(0.0, max(2.0, 1.08 * float(counts.max())), height, 18)
    across = axis(0.0, 1.0, left, width - 8)
    drawing.vertical(up, left, 4, size=10, grid_to=across.end)
    drawing.horizontal(across, height, 5, title=f"rank of {short(names[0], 24)} among all draws", size=10)
    drawing.text(2, 10, "times what is due", size=10, color=INK)
    edges = across.many(np.linspace(0, 1, bins + 1))
    for number, row in enumerate(counts):
        corners = [(x, up.at(h)) for l, r, h in zip(edges[:-1], edges[1:], row) for x in (l, r)]
        drawing.path(corners, COLORS[number % len(COLORS)], 1.0)
    drawing.line(across.start, up.at(1.0), across.end, up.at(1.0), QUIET, 1.4, "4 3")
    drawing.line(left, 18, left, height, RULE)
    return Figure(sampler, "", drawing.markup())
