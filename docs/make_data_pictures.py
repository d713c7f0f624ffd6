"""Draw the pictures of docs/data.md: `python docs/make_data_pictures.py` (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

from didact.data import diabetes, digits, shapes
from didact.data.shapes import VALUES

FOLDER = Path(__file__).parent / "img"
INK = "#222222"
plt.rcParams.update({"font.size": 9, "axes.titlesize": 9, "text.color": INK, "figure.dpi": 130})


def picture(axes: Any, image: Any, title: str = "") -> None:
    grey = image.shape[0] == 1
    axes.imshow(image[0] if grey else image.permute(1, 2, 0), cmap="gray_r", interpolation="nearest")
    axes.set_title(title, pad=3)
    axes.axis("off")


def save(figure: Any, name: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    figure.savefig(FOLDER / f"data-{name}.png", bbox_inches="tight", pad_inches=0.08, facecolor="white")
    plt.close(figure)


def draw_digits() -> None:
    train = digits(0).train
    figure, rows = plt.subplots(2, 10, figsize=(9, 2.2))
    for digit in range(10):
        x = train.tensors[0][train.tensors[1] == digit]
        for axes, image, title in zip(rows[:, digit], x[:2], (str(digit), ""), strict=True):
            picture(axes, image, title)
    save(figure, "digits")


def draw_diabetes() -> None:
    data = diabetes(0)
    x, y = data.train.tensors
    figure, row = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True)
    for axes, name in zip(row, ("bmi", "bp", "s5"), strict=True):
        axes.scatter(x[:, data.feature_names.index(name)], y, s=7, alpha=0.6, color="#2a6fbb", linewidths=0)
        axes.set_xlabel(f"{name} (standardised)")
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_ylabel("progression\n(standardised)")
    save(figure, "diabetes")


def draw_factors() -> None:
    """One row a factor, everything else held still."""
    names = ("shape", "colour", "texture", "background", "style")
    still = {
        "shape": "star",
        "colour": "orange",
        "texture": "solid",
        "size": "large",
        "rotation": ("0 degrees",),
    }
    still |= {"position": "middle", "background": "grey", "style": "plain"}
    figure, rows = plt.subplots(len(names), 10, figsize=(10, 5.9))
    for row, name in zip(rows, names, strict=True):
        row[0].text(-0.15, 0.5, name, transform=row[0].transAxes, ha="right", va="center", weight="bold")
        for axes in row:
            axes.axis("off")
        for axes, value in zip(row, VALUES[name], strict=False):
            picture(axes, shapes(3, 1, size=48, factors={**still, name: value}).images[0], value)
    figure.subplots_adjust(wspace=0.08, hspace=0.28)
    save(figure, "shapes-factors")


def draw_scenes() -> None:
    scenes = shapes(4, 5, size=64, objects=(1, 4), factors={"style": ("plain", "noisy", "foggy")})
    told = scenes.captions(mention=("size", "texture", "colour", "shape"))
    asked = {question.image: question for question in scenes.questions(seed=1)}
    classes = scenes.segmentation().tensors[1]
    figure, rows = plt.subplots(3, 5, figsize=(11, 6.2), height_ratios=(3, 3, 1.9))
    for i, (top, middle, bottom) in enumerate(rows.T):
        picture(top, scenes.images[i])
        for box in scenes.boxes[i, : scenes.table.count[i]].tolist():
            corner, width, height = (box[0] - 0.5, box[1] - 0.5), box[2] - box[0], box[3] - box[1]
            top.add_patch(Rectangle(corner, width, height, fill=False, color="white", linewidth=2.2))
            top.add_patch(Rectangle(corner, width, height, fill=False, color="black", linewidth=0.9))
        middle.imshow(classes[i], cmap="tab20", vmin=0, vmax=20, interpolation="nearest")
        bottom.text(0.5, 1.0, wrapped(told[i]), ha="center", va="top", transform=bottom.transAxes, fontsize=8)
        question = f"{asked[i].question} {asked[i].answer}".replace(" ?", "?")
        bottom.text(
            0.5,
            0.0,
            wrapped(question),
            ha="center",
            va="bottom",
            transform=bottom.transAxes,
            fontsize=8,
            style="italic",
        )
        middle.axis("off")
        bottom.axis("off")
    for axes, label in zip(rows[:, 0], ("image, boxes", "class mask", "caption,\nquestion"), strict=True):
        axes.text(-0.08, 0.5, label, transform=axes.transAxes, ha="right", va="center", weight="bold")
    figure.subplots_adjust(wspace=0.06, hspace=0.05)
    save(figure, "shapes-scenes")


def draw_defects() -> None:
    """What curation and defence need: a spurious correlation, a long tail, near-copies."""
    figure, rows = plt.subplots(3, 10, figsize=(10, 3.6))
    tied = shapes(5, 10, factors={"shape": 3, "colour": 3, "texture": 1}, correlate=("shape", "colour", 0.9))
    tail = shapes(6, 10, factors={"shape": 4, "texture": 1}, imbalance={"shape": 8})
    copies = shapes(7, 10, redundancy=0.5, factors={"texture": 1})
    copies = copies.select(sorted(range(10), key=lambda i: (copies.origin[i], i)))
    names = ("correlate", "imbalance", "redundancy")
    for row, name, scenes in zip(rows, names, (tied, tail, copies), strict=True):
        row[0].text(-0.15, 0.5, name, transform=row[0].transAxes, ha="right", va="center", weight="bold")
        for axes, image in zip(row, scenes.images, strict=True):
            picture(axes, image)
    figure.subplots_adjust(wspace=0.08, hspace=0.08)
    save(figure, "shapes-defects")


def wrapped(text: str, width: int = 30) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


if __name__ == "__main__":
    for draw in (draw_digits, draw_diabetes, draw_factors, draw_scenes, draw_defects):
        draw()
