"""What makes vectors of images and texts before they are reduced. Every encoder has an id; only equal ids compare.

The two that come with didact are drawn from a seed and need no download, and give the same vectors on every machine:
their weights come from NumPy's `RandomState`, the one generator whose stream is promised never to change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from didact.core.errors import BadInput, MissingExtra
from didact.reusing.dock.errors import BadSpecification
from didact.reusing.dock.specification.statistical import LARGEST

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]


@runtime_checkable
class Encoder(Protocol):
    """Makes vectors (n, d) of data; equal ids mean equal vectors for equal data."""

    @property
    def id(self) -> str:
        """Names the encoder and everything its vectors depend on."""

    def encode(self, data: Any) -> Array:
        """Vectors, shape (n, d)."""


class HashedNgrams:
    """Texts as counts of letter n-grams (2 to 4, within words), hashed, projected at random and scaled to length 1.

    Texts in the same words and language come out near each other; meaning beyond wording it does not see. Use a
    sentence encoder where one is at hand.
    """

    dimension = 128
    id = "didact/hashed-ngrams-2-4-128"
    _buckets = 2**14

    def encode(self, data: Any) -> Array:
        """Vectors (n, 128) of n texts."""
        from sklearn.feature_extraction.text import HashingVectorizer

        hashing = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=self._buckets, norm="l2")
        vectors = np.asarray(hashing.transform(texts_of(data)) @ _projection(self._buckets, self.dimension))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0.0, lengths, 1.0)


class SentenceEncoder:
    """Texts by a sentence-transformers model, given by its name on the hub or by a folder.

    Errors: `BadInput` for a folder that is not there, or a model that cannot be loaded.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._folder = Path(model).expanduser()
        if not self._folder.is_dir() and (model.startswith(("/", ".", "~")) or model.count("/") > 1):
            raise BadInput(
                f"There is no folder {model!r} with a sentence-transformers model. Give a folder, or a name on the hub."
            )

    @cached_property
    def id(self) -> str:
        """The hub's name, or for a folder its name with a digest of its files: weights, words and settings."""
        if not self._folder.is_dir():
            return self.model if "/" in self.model else f"sentence-transformers/{self.model}"
        digest = hashlib.sha256()
        for file in _files(self._folder):
            digest.update(f"{file.relative_to(self._folder).as_posix()}\0".encode())
            with file.open("rb") as contents:
                digest.update(hashlib.file_digest(contents, "sha256").digest())
        return f"folder/{self._folder.resolve().name}-{digest.hexdigest()[:12]}"

    def encode(self, data: Any) -> Array:
        """Vectors (n, d) of n texts."""
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise MissingExtra("sentence-transformers", "dock") from None
        texts = texts_of(data)
        where = str(self._folder) if self._folder.is_dir() else self.model
        try:
            encoder = SentenceTransformer(where, device="cpu")
        except (OSError, ValueError) as error:
            raise BadInput(
                f"{self.model!r} cannot be loaded as a sentence-transformers model ({str(error)[:300]}). Give the name "
                "of one on the hub, or a folder that one was saved to."
            ) from None
        return np.asarray(encoder.encode(texts, show_progress_bar=False), dtype=np.float64)


class RandomConvnets:
    """Images as the outputs of 16 untrained convolutional networks with fixed random weights.

    Each network has three layers (3 x 3 convolution to 32 channels, ReLU, halving by averages), averages what is left
    over quarters of the picture, and projects it to 8 numbers; the vector is the 16 outputs in a row, 128 long.
    Images are (n, height, width), (n, channels, height, width) or (n, height, width, channels) with 1 or 3 channels;
    they are resized to 32 x 32 and standardised one by one, so brightness and contrast do not count.
    """

    networks = 16
    channels = 32
    size = 32
    id = "didact/random-convnets-16-32-128"

    def encode(self, data: Any) -> Array:
        """Vectors (n, 128) of n images."""
        import torch

        images = torch.from_numpy(images_of(data).astype(np.float32))
        weights = _convolutions(self.networks, self.channels)
        with torch.no_grad():
            pieces = [self._features(piece, weights) for piece in torch.split(images, 256)]
        return torch.cat(pieces).double().numpy()

    def _features(self, images: Tensor, weights: list[list[NDArray[np.float32]]]) -> Tensor:
        import torch
        from torch.nn import functional

        images = functional.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        images = images.expand(-1, 3, -1, -1)
        middle, spread = images.mean((1, 2, 3), keepdim=True), images.std((1, 2, 3), keepdim=True)
        images = (images - middle) / (spread + 1e-6)
        outputs = []
        for network in weights:
            hidden = images
            for kernel in network[:-1]:
                hidden = functional.relu(functional.conv2d(hidden, torch.from_numpy(kernel), padding=1))
                hidden = functional.avg_pool2d(hidden, 2)
            quarters = functional.adaptive_avg_pool2d(hidden, 2).flatten(1)
            outputs.append(quarters @ torch.from_numpy(network[-1]))
        return torch.cat(outputs, dim=1)


def encoder_for(kind: str, encoder: str | Encoder | None) -> Encoder | None:
    """The encoder meant: `None` is the default of the kind, "" the raw values, a string an id or a model's name."""
    if isinstance(encoder, Encoder):
        return encoder
    own: dict[str, Encoder] = {"Image": RandomConvnets(), "Text": HashedNgrams()}
    if encoder is None:
        return own.get(kind)
    if encoder == "":
        if kind == "Text":
            raise BadInput("Texts have no raw values to reduce. Leave `encoder` out, or name a sentence encoder.")
        return None
    for known in own.values():
        if encoder == known.id:
            return known
    if kind == "Text":
        return SentenceEncoder(encoder)
    raise BadInput(
        f'For {kind} data `encoder` is "" (raw values), {RandomConvnets.id!r} or an object with `id` and `encode`; '
        f"{encoder!r} was given."
    )


def _files(folder: Path) -> list[Path]:
    """What a model's vectors depend on: not its description for people, nor hidden files."""
    found = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".md"]
    return sorted(file for file in found if not any(part[0] == "." for part in file.relative_to(folder).parts))


def texts_of(data: Any) -> list[str]:
    """A list of texts, or an error that says what else came."""
    texts = [] if isinstance(data, str) else list(data)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise BadSpecification(
            "wrong-shape", "Texts are a list of strings with at least one; something else was given."
        )
    return texts


def images_of(data: Any) -> Array:
    """Images as (n, channels, height, width); values that are not finite become their image's mean."""
    images = np.asarray(data)
    if images.dtype.kind not in "iufb" or images.size == 0 or images.ndim not in (3, 4):
        raise _bad_images(images.shape)
    images = np.array(images, dtype=np.float64)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = np.moveaxis(images, 3, 1)
    if images.shape[1] not in (1, 3):
        raise _bad_images(images.shape)
    images[~np.isfinite(images) | (np.abs(images) > LARGEST)] = np.nan
    missing = np.isnan(images)
    if missing.all(axis=(1, 2, 3)).any():
        raise BadSpecification("non-finite", "An image has no finite value. Leave it out before specifying.")
    means = np.nanmean(images, axis=(1, 2, 3), keepdims=True)
    return np.asarray(np.where(missing, means, images))


def _bad_images(shape: tuple[int, ...]) -> BadSpecification:
    return BadSpecification(
        "wrong-shape",
        f"Images are (n, height, width) or have 1 or 3 channels as second or last axis; the shape is {shape}.",
    )


@cache
def _projection(buckets: int, dimension: int) -> Array:
    drawn = np.random.RandomState(20_240).standard_normal((buckets, dimension))
    return np.asarray(drawn / np.sqrt(dimension), np.float64)


@cache
def _convolutions(networks: int, channels: int) -> list[list[NDArray[np.float32]]]:
    """Per network three kernels (out, in, 3, 3) and a projection (4 * channels, 8), scaled to keep the variance."""
    draw = np.random.RandomState(20_241).standard_normal

    def network() -> list[NDArray[np.float32]]:
        widths = [3, channels, channels, channels]
        kernels = [draw((out, into, 3, 3)) * np.sqrt(2.0 / (9 * into)) for into, out in pairwise(widths)]
        last = draw((4 * channels, 8)) / np.sqrt(4 * channels)
        return [layer.astype(np.float32) for layer in (*kernels, last)]

    return [network() for _ in range(networks)]


def languages_of(texts: Sequence[str]) -> tuple[str, ...]:
    """The languages of texts; see `languages.recognised`."""
    from didact.reusing.dock.specification.languages import recognised

    return recognised(texts)
