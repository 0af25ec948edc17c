"""Journals and checkpoints → rows of figures and tables. Pure, and without screens; one file per figure."""
