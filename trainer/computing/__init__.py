"""How a step is computed on a machine, on one rank or several. May know models and methods, no run."""
