"""How does queued mail leave?

`worker` claims due deliveries and hands them to `lanes`, one per destination; a lane's connection takes one transaction
after the other; `attempt` reads as its steps; `outcomes` writes what came of it; `retry` says when to try again.
"""
