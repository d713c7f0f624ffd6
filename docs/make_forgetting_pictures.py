"""Run the benches behind the guide "Which way to forget?" and draw its pictures.

    python docs/make_forgetting_pictures.py --jobs 2          # runs what the ledger lacks, then draws
    python docs/make_forgetting_pictures.py --draw-only       # draws from the last runs

The runs go to runs/forgetting/; the pictures and the tables of the guide to docs/img/ and docs/measured/.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import pandas as pd
from pictures import ROOT, bench, save, table, trade_off

#: on bios-5: every method made for language models, and those of the others that are quick on them
LANGUAGE = (
    "original,retrain,fine-tune,gradient-ascent,gradient-difference,random-labels,bad-teacher,idk,dpo-idk,kto-idk,"
    "npo,npo:beta=1,loku,uld,harry-potter,eco,guard,alu,prompt-filter,single-agent,in-context-unlearning,"
    "concept-masking,neuron-adjust,skill-unlearning,ssd:alpha=auto,sparse-unlearning"
)
SEQUENTIAL = "fine-tune,gradient-ascent,gradient-difference,npo:beta=1,idk,random-labels,ssd:alpha=auto"
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
            bench("forgetting", problem, methods, asked.jobs, asked.seeds)
    for problem in ("bios-5", "digits-class"):
        labels = ("test score (utility)", "forget gap (0: like a retrained model)")
        trade_off("forgetting", problem, "test_score", "forget_gap", labels, colours=COLOURS, line=0.1)
        table("forgetting", problem)
    sequence("bios-sequential")


def sequence(problem: str) -> None:
    """Utility and forgetting after each of ten requests."""
    rows = pd.read_csv(ROOT / "runs" / "forgetting" / problem / "rows.csv")
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
    save(figure, "forgetting-sequential")


if __name__ == "__main__":
    main()
