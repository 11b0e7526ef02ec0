"""Progress on long work: one line at a time on standard error, so that output can be piped."""

from __future__ import annotations

import sys
import time


def say(stage: str, text: str, elapsed: float) -> None:
    """``12:04:31  clean            3.2 s  wrote silver.events: 9,871 rows``"""
    print(f"{time.strftime('%H:%M:%S')}  {stage:<16} {elapsed:7.1f} s  {text}", file=sys.stderr, flush=True)
