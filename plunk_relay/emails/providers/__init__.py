"""Providers as the queue knows them; how mail is paced is in delivery/pacing.py."""
