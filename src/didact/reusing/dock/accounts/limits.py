"""Rate limits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from didact.reusing.dock.errors import TooMany


class RateLimit:
    """So many requests a minute for each key (a token, an address), with room for a burst: a token bucket each."""

    def __init__(
        self,
        per_minute: float,
        burst: float | None = None,
        *,
        keys: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`burst` defaults to a minute's requests. At most about `keys` buckets are remembered."""
        self.rate = per_minute / 60
        self.burst = per_minute if burst is None else burst
        self._keys = keys
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # key -> (tokens left, when that was)
        self._lock = threading.Lock()

    def check(self, key: str, cost: float = 1.0) -> None:
        """Let a request through, or raise `RateLimited` (a `TooMany`) with the seconds to wait."""
        with self._lock:
            moment = self._clock()
            left, then = self._buckets.get(key, (self.burst, moment))
            left = min(self.burst, left + (moment - then) * self.rate)
            if left < cost:
                raise RateLimited((cost - left) / self.rate)
            self._buckets[key] = left - cost, moment
            if len(self._buckets) > self._keys:
                self._forget(moment)

    def _forget(self, moment: float) -> None:
        # A bucket that has filled up again is as good as none.
        full = [k for k, (left, then) in self._buckets.items() if left + (moment - then) * self.rate >= self.burst]
        for key in full or list(self._buckets)[: self._keys // 2]:
            del self._buckets[key]


class RateLimited(TooMany):
    """Too many requests; `retry_after` is the number of seconds to wait."""

    def __init__(self, wait: float) -> None:
        self.retry_after = max(1, math.ceil(wait))
        super().__init__("rate-limit", f"Too many requests. Try again in {self.retry_after} s.")
