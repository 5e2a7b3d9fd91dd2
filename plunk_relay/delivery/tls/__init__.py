"""TLS to other servers: which policies apply (DANE, MTA-STS, the settings, the message), and the reports about it."""
