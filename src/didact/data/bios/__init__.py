"""Invented people: biographies, questions and answers, relations, and real capitals beside them."""

from didact.data.bios.people import Bios, bios
from didact.data.bios.qa import QA, from_jsonl, to_jsonl
from didact.data.bios.records import Biography, BiosSplit, Fact, Person
from didact.data.bios.templates import ATTRIBUTES, CAPITALS

__all__ = [
    "ATTRIBUTES",
    "CAPITALS",
    "QA",
    "Biography",
    "Bios",
    "BiosSplit",
    "Fact",
    "Person",
    "bios",
    "from_jsonl",
    "to_jsonl",
]
