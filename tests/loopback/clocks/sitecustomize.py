"""Imported by every Python that has this folder on its path: the wall clock is wrong by ``CLOCK_OFFSET_S``."""

from __future__ import annotations

import os
import time

_OFFSET_S = int(os.environ["CLOCK_OFFSET_S"])
_true_s, _true_ns = time.time, time.time_ns


def _wrong_s() -> float:
    return _true_s() + _OFFSET_S


def _wrong_ns() -> int:
    return _true_ns() + _OFFSET_S * 1_000_000_000


time.time, time.time_ns = _wrong_s, _wrong_ns
