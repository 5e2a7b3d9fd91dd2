"""How is a sender told by mail what became of a message? By a delivery status notification that we write and queue."""
