"""Is an address worth writing to? `POST /v1/verify`: lists and spelling first, then the DNS; no mail is sent."""
