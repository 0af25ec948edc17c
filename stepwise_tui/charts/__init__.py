"""Charts in characters: numbers in, text out, nothing kept."""
