"""Write the README's table of families and verdict counts from results/ (run by `make claims`).

python docs/tables.py           # rewrite the part of README.md between the marks
python docs/tables.py --check   # exit 1 when it is out of date
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path

from didact.core import registry
from didact.engine.claims import judged_claims

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def table() -> str:
    """One line a family: entries of the catalogue, how many are built, and what became of their claims."""
    catalogue: dict[str, set[str]] = {}
    with (ROOT / "src/didact/catalogue.tsv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file, delimiter="\t"):
            catalogue.setdefault(line["family"], set()).add(line["slug"])
    lines = ["| family | catalogue | built | holds | fails | undecided |", "|---|---:|---:|---:|---:|---:|"]
    totals = Counter[str]()
    for family, slugs in catalogue.items():
        built = slugs & {cls.card.slug for cls in registry.methods() if cls.family == family}
        claimed = {cls.card.slug for cls in judged_claims() if cls.family == family}
        outcomes = Counter(
            json.loads(file.read_text(encoding="utf-8"))["outcome"]
            for file in sorted((ROOT / "results" / family).glob("*.json"))
            if file.stem in claimed
        )
        counts = {"catalogue": len(slugs), "built": len(built), **outcomes}
        totals.update(counts)
        if built:
            lines.append(_line(f"{family}", counts))
    lines.append(_line(f"**all {len(catalogue)} families**", totals))
    return "\n".join(lines)


def _line(name: str, counts: dict[str, int]) -> str:
    cells = [str(counts.get(key, 0)) for key in ("catalogue", "built", "holds", "fails", "undecided")]
    return f"| {name} | {' | '.join(cells)} |"


def updated(readme: str) -> str:
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    file = ROOT / "README.md"
    old = file.read_text(encoding="utf-8")
    new = updated(old)
    if "--check" in sys.argv and new != old:
        sys.exit("README.md is out of date with results/: run python docs/tables.py")
    file.write_text(new, encoding="utf-8")
