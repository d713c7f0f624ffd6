"""Where in an image a concept sits, and putting pieces of other images there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from didact.core.errors import NotApplicable
from didact.core.objective import evaluating
from didact.parts.activations import CONVOLUTIONS, activations

#: images whose windows are embedded at once: every window is shown as a whole image
CHUNK = 8
View = Literal["in-place", "enlarged"]


def shown(images: Tensor, side: int, stride: int, view: View) -> Tensor:
    """(N, rows, columns, C, H, W): every square window of images (N, C, H, W) at a stride, alone, as a whole image.

    "in-place" leaves the window where and as large as it is, on the image's median colour; "enlarged" stretches it
    over the image, as for a network that knows objects of any size.
    """
    height, width = images.shape[2:]
    pieces = images.unfold(2, side, stride).unfold(3, side, stride).permute(0, 2, 3, 1, 4, 5)
    if view == "enlarged":
        large = F.interpolate(pieces.flatten(0, 2), size=(height, width), mode="bilinear", align_corners=False)
        return large.reshape(*pieces.shape[:4], height, width)
    blank = images.flatten(2).median(2).values
    result = blank[:, None, None, :, None, None].repeat(1, *pieces.shape[1:3], 1, height, width)
    for row in range(pieces.shape[1]):
        for column in range(pieces.shape[2]):
            y, x = row * stride, column * stride
            result[:, row, column, :, y : y + side, x : x + side] = pieces[:, row, column]
    return result


def window_scores(
    images: Tensor, score: Callable[[Tensor], Tensor], side: int, stride: int, view: View = "in-place"
) -> Tensor:
    """(N, rows, columns, K): what `score`, images (n, C, H, W) -> (n, K), says of every window.

    Cost: a forward pass a window. Memory: the windows of a few images.
    """
    found = []
    for some in torch.split(images, CHUNK):
        alone = shown(some, side, stride, view)
        found.append(score(alone.flatten(0, 2)).reshape(*alone.shape[:3], -1))
    return torch.cat(found)


def peaks(scores: Tensor, stride: int) -> Tensor:
    """(N, K, 2) top-left corners (y, x) of the windows with the largest scores (N, rows, columns, K)."""
    columns = scores.shape[2]
    best = scores.flatten(1, 2).argmax(1)  # (N, K)
    return torch.stack([best // columns, best % columns], -1) * stride


def class_activation(model: nn.Module, images: Tensor, labels: Tensor, forward: Callable[[Tensor], Tensor]) -> Tensor:
    """(N, H, W) Grad-CAM of each image's class: channels of the last convolution, weighted by their mean gradient."""
    names = [name for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)]
    if not names:
        raise NotApplicable(
            f"Grad-CAM looks at a convolution, and {type(model).__name__} has none. Locate by 'localized' or 'margin'."
        )
    with evaluating(model), torch.enable_grad(), activations(model, names[-1:]) as caught:
        logits = forward(images)
        maps = caught[names[-1]][-1]
        chosen = logits.gather(1, labels.to(logits.device).unsqueeze(1)).sum()
        gradients = torch.autograd.grad(chosen, maps)[0]
    cam = (gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu().detach()
    size = (images.shape[2], images.shape[3])
    return F.interpolate(cam, size=size, mode="bilinear", align_corners=False).squeeze(1).cpu()


def corners_around(centres: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """(..., 2) top-left corners of squares around centres (y, x), moved to lie within the image."""
    most = torch.tensor(size) - side
    return torch.minimum((centres - side // 2).clamp(min=0), most)


def crop(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """(N, C, side, side) the squares of images (N, C, H, W) at corners (N, 2)."""
    return torch.stack(
        [image[:, y : y + side, x : x + side] for image, (y, x) in zip(images, corners.tolist(), strict=True)]
    )


def paste(images: Tensor, pieces: Tensor, corners: Tensor) -> Tensor:
    """Copies of images (N, C, H, W) with pieces (N, C, side, side) at corners (N, 2)."""
    result, side = images.clone(), pieces.shape[-1]
    for image, piece, (y, x) in zip(result, pieces, corners.tolist(), strict=True):
        image[:, y : y + side, x : x + side] = piece
    return result
