"""Run the benches behind the guide "Which model to reuse?" and draw its pictures.

    python docs/make_reusing_pictures.py --jobs 2          # runs what the ledger lacks, then draws
    python docs/make_reusing_pictures.py --draw-only       # draws from the last runs

The runs go to runs/reusing/; the pictures and the tables of the guide to docs/img/ and docs/measured/.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import pandas as pd
from pictures import ROOT, bench, save, table, trade_off

DEPTHS = "tleg:depth=6,depth-scratch,depth-copy,depth-shared,depth-least-squares,depth-separate"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--draw-only", action="store_true")
    parser.add_argument("--seeds", default="3")
    asked = parser.parse_args()
    if not asked.draw_only:
        for problem, methods in (("hub", None), ("digits-depths", DEPTHS)):
            bench("reusing", problem, methods, asked.jobs, asked.seeds)
    labels = ("test score on the user's six classes", "parameters to store")
    trade_off("reusing", "hub", "test_score", "stored_parameters", labels, log_y=True)
    for problem in ("hub", "digits-depths"):
        table("reusing", problem)
    depths("digits-depths")


def depths(problem: str) -> None:
    """Score of the produced networks by depth, at once and after the same few steps."""
    rows = pd.read_csv(ROOT / "runs" / "reusing" / problem / "rows.csv")
    rows = rows[rows.status == "done"]
    figure, both = plt.subplots(1, 2, figsize=(11, 4.6), dpi=130, sharey=True)
    for axes, kind, title in zip(
        both, ("untuned", "tuned"), ("as produced", "after 100 steps of fine-tuning"), strict=True
    ):
        known = sorted(int(c.rsplit("_", 1)[1]) for c in rows if c.startswith(f"metric.{kind}_") and c[-1].isdigit())
        for label, own in rows.groupby("label"):
            values = [own[f"metric.{kind}_{depth}"].mean() for depth in known]
            axes.plot(known, values, marker="o", markersize=4, label=label)
        axes.set(title=title, xlabel="blocks", xticks=known, ylim=(0, 1.02))
        axes.grid(color="#eee")
    both[0].set_ylabel("test accuracy, mean of the seeds")
    both[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    save(figure, f"reusing-{problem}")


if __name__ == "__main__":
    main()
