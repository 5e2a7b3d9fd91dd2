"""From where may a project write? Domains: DKIM keys, the records to publish, and their verification."""
