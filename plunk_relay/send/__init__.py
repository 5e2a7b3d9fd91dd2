"""How is a mail sent over HTTP? `POST /v1/send`: all checks for all recipients first, then one unit of work."""
