"""What happens to mail that others send to our users' domains? It becomes a mail of the project and an event."""
