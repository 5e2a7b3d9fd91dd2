"""How does a mail get into the queue, and what does the queue hold?

`actions.queue_mails` is the one way in: row, content and due delivery in one unit of work. `queue` is the queue itself.
"""
