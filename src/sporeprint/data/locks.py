"""Locks of the whole process, which a forked process finds open: the thread that held one is not in it."""

from __future__ import annotations

import os
import threading


def process_lock() -> threading.Lock:
    """Return a lock for what every thread of a process shares."""
    lock = threading.Lock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lock._at_fork_reinit)  # type: ignore[attr-defined]  # as `logging` does
    return lock
