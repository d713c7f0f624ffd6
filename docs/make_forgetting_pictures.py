"""Run the benches behind the guide "Which way to forget?" and draw its pictures.

    python docs/make_forgetting_pictures.py --jobs 2          # runs what the ledger lacks, then draws
    python docs/make_forgetting_pictures.py --draw-only       # draws from the last runs

The runs go to runs/forgetting/; the pictures and the tables of the guide to docs/img/ and docs/measured/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from didact.core import registry

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "runs" / "forgetting"
#: on bios-5: every method made for language models, and those of the others that are quick on them
LANGUAGE = (
    "original,retrain,fine-tune,gradient-ascent,gradient-difference,random-labels,bad-teacher,idk,dpo-idk,kto-idk,"
    "npo,npo:beta=1,loku,uld,harry-potter,eco,guard,alu,prompt-filter,single-agent,in-context-unlearning,"
    "concept-masking,neuron-adjust,skill-unlearning,ssd:alpha=auto,sparse-unlearning"
)
SEQUENTIAL = "fine-tune,gradient-ascent,gradient-difference,npo:beta=1,idk,random-labels,ssd:alpha=auto"
LEADER = {"arrowstyle": "-", "color": "#aaa", "linewidth": 0.5}
COLOURS = {
    "removed": "#1a56c4",
    "forgotten": "#1a56c4",
    "suppressed": "#b7791f",
    "not forgotten": "#6b7280",
    "collapsed": "#a3420c",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--draw-only", action="store_true")
    parser.add_argument("--seeds", default="3")
    asked = parser.parse_args()
    if not asked.draw_only:
        for problem, methods in (("bios-5", LANGUAGE), ("digits-class", None), ("bios-sequential", SEQUENTIAL)):
            run(problem, methods, asked.jobs, asked.seeds)
    for problem in ("bios-5", "digits-class"):
        trade_off(problem)
        table(problem)
    sequence("bios-sequential")


def run(problem: str, methods: str | None, jobs: str, seeds: str) -> None:
    command = [sys.executable, "-m", "didact.cli", "bench", "forgetting", "--problem", problem, "--seeds", seeds,
               "--jobs", jobs, "--ledger", str(RUNS / "ledger.sqlite"), "--out", str(RUNS / problem)]  # fmt: skip
    # Exit code 1 says that some cell failed: the report shows it, and the rest can be drawn.
    done = subprocess.run([*command, *(["--methods", methods] if methods else [])], check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)


def trade_off(problem: str) -> None:
    """Utility against what is left to forget, a mark a method, its colour what it came to."""
    board = json.loads((RUNS / problem / "leaderboard.json").read_text(encoding="utf-8"))
    entries = [e for e in board["entries"] if e["done"]]
    figure, axes = plt.subplots(figsize=(8.4, 5.2), dpi=130)
    shown: set[str] = set()
    marks: list[tuple[float, float, str]] = []
    for entry in entries:
        x, y = (entry["metrics"][name]["mean"] for name in ("test_score", "forget_gap"))
        if x is None or y is None:
            continue
        word = entry["outcome"] or "forgotten"
        axes.scatter(x, y, s=46, color=COLOURS[word], marker="s" if entry["baseline"] else "o",
                     edgecolor="white", linewidth=0.7, label=None if word in shown else word, zorder=3)  # fmt: skip
        shown.add(word)
        marks.append((x, y, entry["method"]))
    axes.axhline(0.1, color="#999", linewidth=0.8, linestyle="--")
    axes.set(xlabel="test score (utility)", ylabel="forget gap (0: like a retrained model)")
    axes.set_title(
        f"{problem}: {len(entries)} methods, mean of 3 seeds; squares are baselines", fontsize=10, loc="left"
    )
    axes.grid(color="#eee")
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    name_marks(figure, axes, marks)
    figure.savefig(ROOT / "docs" / "img" / f"forgetting-{problem}.png")


def name_marks(figure: Figure, axes: Axes, marks: list[tuple[float, float, str]]) -> None:
    """Write each method's name beside its mark, in the first place where it covers neither a mark nor a name."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
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


def sequence(problem: str) -> None:
    """Utility and forgetting after each of ten requests."""
    rows = pd.read_csv(RUNS / problem / "rows.csv")
    rows = rows[rows.status == "done"]
    steps = sorted(int(c.rsplit("_", 1)[1]) for c in rows if c.startswith("metric.test_after_"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), dpi=130, sharex=True)
    colours = plt.get_cmap("tab20").colors
    for i, (label, own) in enumerate(rows.groupby("label")):
        for axes, name in ((left, "test"), (right, "forget")):
            values = [own[f"metric.{name}_after_{step:02}"].mean() for step in steps]
            axes.plot(steps, values, marker="o", markersize=3, color=colours[i % 20], label=label)
    left.set(title="utility: accuracy on kept people no method saw", xlabel="requests answered", ylim=(-0.03, 1.05))
    right.set(title="accuracy on all people forgotten so far", xlabel="requests answered", ylim=(-0.03, 1.05))
    for axes in (left, right):
        axes.grid(color="#eee")
    right.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "img" / "forgetting-sequential.png")


def table(problem: str) -> None:
    """The leaderboard as Markdown, for the guide."""
    folder = ROOT / "docs" / "measured"
    folder.mkdir(exist_ok=True)
    source = (RUNS / problem / "leaderboard.md").read_text(encoding="utf-8")
    (folder / f"{problem}.md").write_text(source, encoding="utf-8")
    known = {m.card.slug for m in registry.methods("forgetting")}
    print(f"{problem}: {len(known)} methods registered, table written")


if __name__ == "__main__":
    main()
