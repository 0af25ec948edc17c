"""The parts of the cockpit's screen."""
