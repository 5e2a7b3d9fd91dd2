"""How does an application tell what a contact did? `POST /v1/track`: contact and event are stored in one unit."""
