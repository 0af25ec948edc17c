"""Rows of `trainer.analysis` → terminal, PNG, SVG."""
