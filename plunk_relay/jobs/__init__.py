"""What a client asks for and does not wait for."""
