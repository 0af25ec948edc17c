"""`python -m stepwise_tui`: the command `stepwise`, where it is not on the PATH."""

from stepwise_tui.cli import main

main()
