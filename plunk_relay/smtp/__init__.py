"""How does mail come in by SMTP? `protocol` speaks it, `listener` listens, `submission` decides and queues."""
