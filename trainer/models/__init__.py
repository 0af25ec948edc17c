"""The model and its parts: built, opened, trimmed, given adapters; other people's models read."""
