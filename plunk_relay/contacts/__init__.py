"""To whom does a project write? Contacts: an address, a subscription and custom fields."""
