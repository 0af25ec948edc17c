"""The commands of the command line, by what they are about. `stepwise_tui.cli` puts them together."""
