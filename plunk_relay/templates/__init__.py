"""What is written again and again? Templates: Liquid subjects and bodies with a sender."""
