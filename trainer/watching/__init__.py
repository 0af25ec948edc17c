"""What endangers a run, and what is done about it. Pure folds over events; nobody here acts by himself."""
