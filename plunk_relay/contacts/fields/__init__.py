"""What is known about contacts? Standard fields, and the keys of their custom data."""
