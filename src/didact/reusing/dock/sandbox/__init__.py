"""The sandbox: where models that others made are run.

A worker process of its own with an empty environment, limits on processor time, memory, files and processes, no
network, and (where the kernel has namespaces) nothing of the machine's files but Python and its libraries, read-only.
Its answers are arrays of numbers, never pickles.
"""

from didact.reusing.dock.sandbox.failures import REASONS, NoSandbox, SandboxFailure
from didact.reusing.dock.sandbox.sandbox import Limits, Sandbox
from didact.reusing.dock.sandbox.session import Session

__all__ = ["Limits", "NoSandbox", "REASONS", "Sandbox", "SandboxFailure", "Session"]
