"""Draw docs/img/forgetting-diffusion.png: `python docs/make_diffusion_picture.py` (needs matplotlib and diffusers)."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from didact.forgetting import ConceptAblation, ConceptDomainCorrection
from didact.forgetting.concept_domain_correction.problem import SHAPE, STYLES, digits_concept, prompt
from didact.models.diffusion import sample

FILE = Path(__file__).parent / "img" / "forgetting-diffusion.png"
EACH, STEPS = 6, 240
#: (caption, digit, synonym, style)
COLUMNS = (
    ("“three”, plain\n(the request)", 3, 0, 0),
    ("another word\nfor it", 3, 1, 0),
    (f"in another style:\n{list(STYLES)[1]}", 3, 0, 1),
    ("“five”", 5, 0, 0),
    ("“eight”\n(the anchor)", 8, 0, 0),
)


def main() -> None:
    torch.set_num_threads(1)  # the same cached model as the bench's
    problem = digits_concept(0)
    given = problem.given
    rows = {
        "original": given.model,
        f"DoCo,\n{STEPS} steps": ConceptDomainCorrection(steps=STEPS).solve(given),
        f"matching,\n{STEPS} steps": ConceptAblation(steps=STEPS).solve(given),
        "retrained": problem.reveal().reference,
    }
    figure, grid = plt.subplots(len(rows), len(COLUMNS), figsize=(11, 2.3))
    for line, (name, model) in zip(grid, rows.items(), strict=True):
        for axes, (caption, *asked) in zip(line, COLUMNS, strict=True):
            prompts = torch.tensor([prompt(*asked)] * EACH)
            images = sample(model, prompts, given.objective, SHAPE, seed=11)  # type: ignore[arg-type]
            strip = torch.nn.functional.pad(images[:, 0], (1, 0), value=-1.0)
            axes.imshow(torch.cat(list(strip), 1)[:, 1:], cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if model is given.model:
                axes.set_title(caption, fontsize=9)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.subplots_adjust(wspace=0.06, hspace=0.08)
    FILE.parent.mkdir(exist_ok=True)
    figure.savefig(FILE, dpi=130, bbox_inches="tight", pad_inches=0.08, facecolor="white")


if __name__ == "__main__":
    main()
