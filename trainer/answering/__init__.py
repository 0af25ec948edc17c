"""What the model answers, and how good that is."""
