"""To whom is no mail sent? Addresses that bounced, complained or were entered, and rules that catch mail as a test sink."""
