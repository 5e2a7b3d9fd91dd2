"""What does an opt-out count for? The campaign whose mail led to it."""

import sqlalchemy as sa

from plunk_relay.db.tables import campaigns, emails


def count_unsubscribed(tx: sa.Connection, project_id: str, email_id: str) -> None:
    """Count an opt-out for the campaign of a mail, unless that mail bounced or was complained about: these count alone."""
    unharmed = emails.c.bounced_at.is_(None) & emails.c.complained_at.is_(None)
    mail = (emails.c.project_id == project_id) & (emails.c.id == email_id)
    campaign = sa.select(emails.c.campaign_id).where(mail, unharmed).scalar_subquery()
    one_more = {"unsubscribed_count": campaigns.c.unsubscribed_count + 1}
    mine = (campaigns.c.project_id == project_id) & (campaigns.c.id == campaign)
    tx.execute(sa.update(campaigns).where(mine).values(one_more))
