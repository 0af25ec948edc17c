"""Checkpoints: written, kept, let go, and how a run goes on from them after its process ended."""
