"""One file a version, in order. A version that was released is never changed; the next one is added."""
