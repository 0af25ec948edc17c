"""When the next token goes. Pure folds and functions of counters and probes."""
