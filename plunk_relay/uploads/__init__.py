"""What do mails show that is not in them? Images that templates link to, open to everybody."""
