"""The cockpit and the command line: what a person sees of a run."""
