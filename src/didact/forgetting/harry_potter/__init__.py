"""Unlearning by generic labels: what a model ignorant of a text would predict at each of its tokens."""

from didact.forgetting.harry_potter.labels import combined, generic_labels, labels_from, position_map
from didact.forgetting.harry_potter.method import GenericRelabeling

__all__ = ["GenericRelabeling", "combined", "generic_labels", "labels_from", "position_map"]
