"""Who may sign in? People's accounts."""
