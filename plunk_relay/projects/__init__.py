"""Whose mail is it? Projects: the tenants, each with one public and one secret key."""
