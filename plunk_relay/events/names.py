"""Which event names belong to the relay? Those that segments and workflows must be able to trust (contract 18.1)."""


def is_reserved(name: str) -> bool:
    """Tell whether only the relay itself records events of this name; case counts."""
    if name.startswith("email.") or name in ("contact.subscribed", "contact.unsubscribed"):
        return True
    return name.startswith("segment.") and name.endswith((".entry", ".exit"))
