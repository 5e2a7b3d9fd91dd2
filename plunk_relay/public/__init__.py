"""What may anybody open? The pages that a contact's links lead to; the unguessable contact id is the credential."""
