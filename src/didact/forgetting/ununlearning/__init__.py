"""What exact unlearning does not prevent: knowledge brought back in the prompt."""

from didact.forgetting.ununlearning.profiles import Fact, Profile, ReadingSubject
from didact.forgetting.ununlearning.reading import bios_reading
from didact.forgetting.ununlearning.study import InContextReintroduction

__all__ = ["Fact", "InContextReintroduction", "Profile", "ReadingSubject", "bios_reading"]
