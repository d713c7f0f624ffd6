"""What the guides' pictures and tables share: running a bench, a scatter plot with named marks, a table as Markdown."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

ROOT = Path(__file__).resolve().parents[1]
LEADER = {"arrowstyle": "-", "color": "#aaa", "linewidth": 0.5}
BASELINE, METHOD = "#6b7280", "#1a56c4"


def bench(family: str, problem: str, methods: str | None, jobs: str, seeds: str) -> None:
    """Run what the ledger lacks; the results go to runs/<family>/<problem>/."""
    runs = ROOT / "runs" / family
    command = [sys.executable, "-m", "didact.cli", "bench", family, "--problem", problem, "--seeds", seeds,
               "--jobs", jobs, "--ledger", str(runs / "ledger.sqlite"), "--out", str(runs / problem)]  # fmt: skip
    # Exit code 1 says that some cell failed: the report shows it, and the rest can be drawn.
    done = subprocess.run([*command, *(["--methods", methods] if methods else [])], check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)


def trade_off(
    family: str,
    problem: str,
    x: str,
    y: str,
    labels: tuple[str, str],
    *,
    colours: Mapping[str, str] | None = None,
    log_y: bool = False,
    line: float | None = None,
) -> None:
    """One mark a method at two of its mean metrics; squares are baselines, colours the outcome where there is one."""
    board = json.loads((ROOT / "runs" / family / problem / "leaderboard.json").read_text(encoding="utf-8"))
    entries = [e for e in board["entries"] if e["done"]]
    figure, axes = plt.subplots(figsize=(8.4, 5.2), dpi=130)
    shown: set[str] = set()
    marks: list[tuple[float, float, str]] = []
    for entry in entries:
        at = [(entry["metrics"].get(name) or entry.get("costs", {}).get(name) or {}).get("mean") for name in (x, y)]
        if at[0] is None or at[1] is None or (log_y and at[1] <= 0):
            continue
        word = entry["outcome"] or ("baseline" if entry["baseline"] else "method")
        colour = (colours or {}).get(word, BASELINE if entry["baseline"] else METHOD)
        axes.scatter(*at, s=46, color=colour, marker="s" if entry["baseline"] else "o", edgecolor="white",
                     linewidth=0.7, label=None if word in shown else word, zorder=3)  # fmt: skip
        shown.add(word)
        marks.append((at[0], at[1], entry["method"]))
    if line is not None:
        axes.axhline(line, color="#999", linewidth=0.8, linestyle="--")
    if log_y:
        axes.set_yscale("log")
    axes.set(xlabel=labels[0], ylabel=labels[1])
    seeds = max(e["done"] for e in entries)
    axes.set_title(
        f"{problem}: {len(marks)} methods, mean of {seeds} seeds; squares are baselines", fontsize=10, loc="left"
    )
    axes.grid(color="#eee")
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    name_marks(figure, axes, marks)
    save(figure, f"{family}-{problem}")


def name_marks(figure: Figure, axes: Axes, marks: list[tuple[float, float, str]]) -> None:
    """Write each method's name beside its mark, in the first place where it covers neither a mark nor a name."""
    figure.canvas.draw()
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken = [Bbox.from_bounds(*(axes.transData.transform((x, y)) - 5), 10, 10) for x, y, _ in marks]
    inside = axes.get_window_extent()
    for x, y, name in sorted(marks, key=lambda mark: (-mark[0], mark[1])):
        for away in range(8, 120, 6):
            places = [
                (-away, 0, "right"), (away, 0, "left"), (0, away, "center"), (0, -away, "center"),
                (-away, away, "right"), (-away, -away, "right"), (away, away, "left"), (away, -away, "left"),
            ]  # fmt: skip
            for dx, dy, side in places:
                text = axes.annotate(name, (x, y), textcoords="offset points", xytext=(dx, dy), ha=side, va="center",
                                     fontsize=7, arrowprops=LEADER if away > 14 else None)  # fmt: skip
                text.update_positions(renderer)
                box = Text.get_window_extent(text, renderer)  # without the leader
                within = inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)
                if within and not any(box.overlaps(other) for other in taken):
                    break
                text.remove()
            else:
                continue
            taken.append(box)
            break


def table(family: str, problem: str) -> None:
    """The leaderboard as Markdown, for a guide."""
    folder = ROOT / "docs" / "measured"
    folder.mkdir(exist_ok=True)
    source = (ROOT / "runs" / family / problem / "leaderboard.md").read_text(encoding="utf-8")
    (folder / f"{problem}.md").write_text(source, encoding="utf-8")


def save(figure: Figure, name: str) -> None:
    figure.savefig(ROOT / "docs" / "img" / f"{name}.png")
    plt.close(figure)
