"""A language problem that is trained in seconds: 40 people, half-learnt, four of them to be forgotten."""

from functools import cache

from didact.forgetting.language.bios import bios_people


@cache
def tiny_problem(seed: int = 0, **options):
    return bios_people(seed, **{"people": 40, "forget": 4, "epochs": 8, **options})
