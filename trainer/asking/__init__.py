"""A person asks a model: in a run that trains, without one, or behind an endpoint."""
