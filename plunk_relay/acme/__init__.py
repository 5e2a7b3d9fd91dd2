"""Certificates by ACME (RFC 8555): asked for over HTTP-01, kept in the data directory, renewed in time."""
