"""Does it add up? Every accepted mail is in exactly one state, and mail and delivery tell the same story."""
