"""What lies over the cockpit: help, dialogs, lists."""
