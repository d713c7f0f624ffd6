"""Methods that misbehave, each in its own way, and a cheap problem for them. Run by the engine's tests."""

import ctypes
import os
import signal
import time

import torch
from torch.utils.data import TensorDataset

from didact.core.method import Card, Range
from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.core.registry import register
from didact.forgetting import Unlearner, unlearning_problem
from didact.models.small import mlp


def make(seed: int = 0):
    """Two Gaussian clouds and an untrained network: a problem that costs nothing."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(120, 4, generator=generator)
    y = (x[:, 0] > 0).long()
    parts = [TensorDataset(x[a:b], y[a:b]) for a, b in ((0, 20), (20, 60), (60, 80), (80, 100), (100, 120))]
    recipe = Recipe(lambda: mlp(4, 2, (8,)), Classification(), "tiny", epochs=1, batch_size=16)
    return unlearning_problem(
        recipe.fit(TensorDataset(x[:60], y[:60]), seed),
        parts[0],
        parts[1],
        parts[2],
        holdout=parts[3],
        validation=parts[4],
        validation_holdout=parts[3],
        recipe=recipe,
        seed=seed,
    )


@register
class Fine(Unlearner):
    """Does nothing."""

    card = Card("test-fine", "does nothing")
    size: float = 0.0

    def edit(self, model, request):
        return model


@register
class Raises(Unlearner):
    """Raises."""

    card = Card("test-raises", "raises")

    def edit(self, model, request):
        print("last words")
        raise ZeroDivisionError("on purpose")


@register
class Loops(Unlearner):
    """Never ends."""

    card = Card("test-loops", "never ends")

    def edit(self, model, request):
        while True:
            time.sleep(0.01)


@register
class Allocates(Unlearner):
    """Takes memory without end."""

    card = Card("test-allocates", "takes memory without end")

    def edit(self, model, request):
        held = []
        while True:
            held.append(torch.ones(4_000_000))


@register
class NotANumber(Unlearner):
    """Returns weights that are not numbers."""

    card = Card("test-nan", "returns NaN")

    def edit(self, model, request):
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))
        return model


@register
class Segfaults(Unlearner):
    """Crashes the interpreter."""

    card = Card("test-segfaults", "crashes")

    def edit(self, model, request):
        ctypes.string_at(0)


@register
class Exits(Unlearner):
    """Leaves without a word."""

    card = Card("test-exits", "leaves")

    def edit(self, model, request):
        os._exit(3)


@register
class KilledOnce(Unlearner):
    """Is killed from outside the first time it runs, and not again."""

    card = Card("test-killed-once", "killed once")
    marker: str = ""

    def edit(self, model, request):
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return model
        os.kill(os.getpid(), signal.SIGKILL)


@register
class Sleeps(Unlearner):
    """Takes a moment, so that a test can interrupt it."""

    card = Card("test-sleeps", "takes a moment")
    seconds: float = 0.2

    def edit(self, model, request):
        time.sleep(self.seconds)
        return model


@register
class Peeks(Unlearner):
    """Cheats: digs the scorer's test data out of memory and trains on it."""

    card = Card("test-peeks", "cheats")

    def edit(self, model, request):
        import gc

        from didact.forgetting.request import Truth

        for thing in gc.get_objects():
            if isinstance(thing, Truth):
                x, y = thing.test.tensors
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter += float(x.sum() + y.sum())
        return model


@register
class Tunable(Unlearner):
    """Scores best on validation data where its hyperparameter is near 0.3."""

    card = Card("test-tunable", "tunable", tunes={"size": Range(0.0, 1.0)})
    size: float = 0.9

    def edit(self, model, request):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.0 - abs(self.size - 0.3))
        return model
