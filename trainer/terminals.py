"""What the cockpit needs of a terminal; `doctor` looks for it, too."""

from __future__ import annotations

SMALLEST = (60, 16)
"""Columns and rows."""
DUMB = ("dumb", "unknown")
"""What TERM says of terminals that can place no text: Emacs' shell, for one."""
