"""What do the mail standards say? Addresses, messages, signatures, DNS, SMTP and templates.

Values in, values out: nothing here knows a database, a setting or a clock.
"""
