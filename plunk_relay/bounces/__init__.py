"""What came back about mail that had been accepted? Bounces and complaints, found by the address they are sent to."""
