"""What stationary representations claim, as arms and expectations."""

from __future__ import annotations

from didact.core.claim import Claim, at_least, at_most, better, no_worse

CLAIM = Claim(
    "models trained against one fixed simplex stay comparable over upgrades, also when the network is replaced, where "
    "learnt classifiers do not; and the contrast to old features makes new queries do better than old ones",
    on="upgraded-digits",
    seeds=5,
    arms={
        "hoc": "stationary-representations",
        "simplex": "stationary-representations:method=simplex",
        "replay": "upgrade-replay",
        "independent": "upgrade-independent",
        "backward-compatible": "backward-compatible",
        "procrustes": "procrustes-alignment",
        "zero-mask": "stationary-representations:mask=zero",
    },
    expects=[
        better("am", than="replay", by=0.10, arm="simplex"),
        better("am", than="replay", by=0.10, arm="hoc"),
        at_least("across", 0.4, arm="simplex"),
        at_least("across", 0.4, arm="hoc"),
        at_most("across", 0.3, arm="replay"),
        no_worse("ac", than="simplex", by=0.0, arm="hoc"),
    ],
    note="Only AC is undecided: with four models it moves in steps of a sixth; over five seeds it was 0.10 with the "
    "contrast and 0.07 without. The contrast leaves AM (0.63 against 0.65) and the accuracy across the replacement "
    "(0.50 against 0.52) a little lower. Of the rivals, the two that are tied to old features do better here than the "
    "simplex: aligning by a rotation reaches AM 0.70 and 0.63 across the replacement, backward-compatible training "
    "0.66 and 0.55.",
)
