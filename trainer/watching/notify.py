"""Telling someone who is not looking: the command of the operator's own that an alarm runs."""

from __future__ import annotations

import os
import subprocess


def notify(command: str, message: str) -> None:
    """Run a shell command, without waiting for it or hearing from it; `message` is in $STEPWISE_ALARM."""
    subprocess.Popen(
        command,
        shell=True,
        env={**os.environ, "STEPWISE_ALARM": message},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
