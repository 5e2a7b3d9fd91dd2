"""How does mail come in by SMTP? `listener` listens, `connection` and `protocol` speak, `submission` decides and queues."""
