"""What happened? Tracked and system events, one row each, written in the unit of work that caused them."""
