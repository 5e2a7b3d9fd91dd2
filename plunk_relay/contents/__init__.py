"""The bytes of mails, stored once for all who get them."""
