"""What is stored? The whole data model on one scroll: every table, every column with its meaning and when it is null.

Ids are UUIDv7 text (`ids.new_id`), times integer milliseconds UTC (`db/types.py`). Rows belong to a project and go with
it. Enumerations are upper-case text; their words are the contract's.
"""

import sqlalchemy as sa
from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text

from plunk_relay.db.types import JSON, Time

metadata = sa.MetaData()
Id = String(36)


def _table(name: str, *parts: sa.schema.SchemaItem) -> Table:
    """Make a table clustered on its primary key: one b-tree less to write for every row."""
    return Table(name, metadata, *parts, sqlite_with_rowid=False)


def _id() -> Column[str]:
    return Column("id", Id, primary_key=True)


def _project() -> Column[str]:
    return Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False)


def _created() -> Column[object]:
    return Column("created_at", Time, nullable=False)


def _updated() -> Column[object]:
    return Column("updated_at", Time, nullable=False)


# --- people and projects

users = _table(
    "users",
    _id(),
    Column("email", Text, nullable=False, unique=True),  # lower-cased address, the login name
    Column("password_hash", Text),  # argon2id; null for OAuth accounts
    Column("type", Text, nullable=False),  # PASSWORD, GOOGLE_OAUTH, GITHUB_OAUTH
    Column("email_verified", Boolean, nullable=False),  # address confirmed, or confirmation not asked for
    _created(),
    _updated(),
)

user_tokens = _table(
    "user_tokens",
    Column("token_hash", Text, primary_key=True),  # SHA-256 of the token in the mailed link
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),  # whose link it is
    Column("purpose", Text, nullable=False),  # VERIFY_EMAIL, RESET_PASSWORD
    Column("expires_at", Time, nullable=False),  # not valid from then on
    _created(),
)

projects = _table(
    "projects",
    _id(),
    Column("name", Text, nullable=False),  # shown, and the default From name
    Column("public_hash", Text, nullable=False, unique=True),  # SHA-256 of the pk_ key, for lookup
    Column("public_sealed", Text, nullable=False),  # the pk_ key, encrypted, for display
    Column("secret_hash", Text, nullable=False, unique=True),  # SHA-256 of the sk_ key, for lookup
    Column("secret_sealed", Text, nullable=False),  # the sk_ key, encrypted, for display
    Column("disabled", Boolean, nullable=False),  # writes refused, queued mail failed
    Column("disabled_reason", Text),  # PAYMENT_FAILED, EMAIL_REPUTATION, MANUAL, ...; null while enabled
    Column("customer", Text, unique=True),  # billing provider's customer id; null without billing
    Column("subscription", Text, unique=True),  # billing provider's subscription id; null without billing
    Column("card_verification", Text),  # PENDING, VERIFIED, REQUIRES_ACTION, FAILED; null: never asked
    Column("card_verification_intent", Text),  # provider's payment intent; null: none
    Column("card_verification_at", Time),  # when it was last asked; null: never
    Column("card_verification_session", Text),  # provider's checkout session; null: none
    Column("card_verification_attempts", Integer, nullable=False, default=0),  # tries so far
    Column("billing_limit_workflows", Integer),  # mails a month; null: unlimited
    Column("billing_limit_campaigns", Integer),  # as above
    Column("billing_limit_transactional", Integer),  # as above
    Column("billing_limit_inbound", Integer),  # as above
    Column("tracking", Text, nullable=False),  # ENABLED, DISABLED, MARKETING_ONLY: opens and clicks
    Column("language", Text, nullable=False),  # of footers and public pages: en, de-AT
    _created(),
    _updated(),
)

memberships = _table(
    "memberships",
    Column("user_id", Id, ForeignKey("users.id", ondelete="RESTRICT"), primary_key=True),  # who
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),  # where
    Column("role", Text, nullable=False),  # OWNER, ADMIN, MEMBER
    _created(),
    _updated(),
    Index("memberships_project", "project_id"),
)

counters = _table(
    "counters",
    Column("name", Text, primary_key=True),  # what is counted: login:<address>, smtp-auth:<ip>, mail-guard:<kind>:<id>
    Column("value", Integer, nullable=False),  # how often in the window
    Column("expires_at", Time, nullable=False),  # end of the window; the row counts as absent from then on
)

# --- sending identities

domains = _table(
    "domains",
    _id(),
    _project(),
    Column("domain", Text, nullable=False, unique=True),  # lower-cased A-label name, unique in the whole relay
    Column("verified", Boolean, nullable=False),  # DKIM record found, or trusted by the operator
    Column("trusted", Boolean, nullable=False, default=False),  # verified by the operator's word; DNS is not asked
    Column("status", Text, nullable=False),  # NotStarted, Pending, Success, Failed, TemporaryFailure
    Column("records", JSON),  # last verdict of each DNS record {purpose: {status, found}}; null: never looked up
    Column("checked_at", Time),  # last look-up; null: never
    _created(),
    _updated(),
    Column("receiving", Boolean, nullable=False, server_default=sa.false()),  # mail to it is accepted at the inbound door
    Index("domains_project", "project_id", "id"),
    Index("domains_checked", "checked_at", sqlite_where=sa.text("trusted = 0")),
)

dkim_keys = _table(
    "dkim_keys",
    _id(),
    Column("domain_id", Id, ForeignKey("domains.id", ondelete="CASCADE"), nullable=False),  # whose mail it signs
    Column("selector", Text, nullable=False),  # <selector>._domainkey.<domain>
    Column("algorithm", Text, nullable=False),  # rsa-sha256, ed25519-sha256
    Column("private_sealed", Text, nullable=False),  # PEM, encrypted
    Column("public_record", Text, nullable=False),  # the TXT value to publish
    Column("retired_at", Time),  # signs no more from then on, still published; null: in use
    _created(),
    Index("dkim_keys_domain", "domain_id"),
)

# --- audience

contacts = _table(
    "contacts",  # clustered by project: a segment is a walk over neighbours
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),  # whose audience
    Column("id", Id, primary_key=True, unique=True),  # unique in the whole relay: it is the key of the contact's own links
    Column("email", Text, nullable=False),  # trimmed and lower-cased
    Column("data", JSON),  # custom fields; null when there are none
    Column("subscribed", Boolean, nullable=False),  # wants marketing mail
    Column("snoozed_until", Time),  # unsubscribed until then; null: no snooze
    _created(),
    _updated(),
    Index("contacts_email", "project_id", "email", unique=True),
    Index("contacts_created", "project_id", "created_at", "id", "email", "subscribed"),  # covers lists, which are searched
)

contact_counts = _table(
    "contact_counts",  # kept with every change: counting a million rows takes longer than a page of them
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),  # whose audience
    Column("contacts", Integer, nullable=False),  # how many
    Column("subscribed", Integer, nullable=False),  # how many of them are subscribed
)

templates = _table(
    "templates",
    _id(),
    _project(),
    Column("name", Text, nullable=False),  # shown in lists
    Column("description", Text),  # note to self; null: none
    Column("subject", Text, nullable=False),  # Liquid
    Column("body", Text, nullable=False),  # Liquid in HTML
    Column("from_address", Text, nullable=False),  # sender, on a verified domain
    Column("from_name", Text),  # sender's display name; null: the project's name
    Column("reply_to", Text),  # Reply-To; null: none
    Column("type", Text, nullable=False),  # MARKETING, TRANSACTIONAL, HEADLESS
    _created(),
    _updated(),
    Index("templates_created", "project_id", "created_at", "id"),
)

segments = _table(
    "segments",
    _id(),
    _project(),
    Column("name", Text, nullable=False),  # shown, and the slug of its events
    Column("description", Text),  # note to self; null: none
    Column("type", Text, nullable=False),  # DYNAMIC, STATIC
    Column("condition", JSON),  # {logic, groups}; null for STATIC
    Column("track_membership", Boolean, nullable=False),  # record entries and exits as events
    Column("member_count", Integer, nullable=False),  # as last counted
    _created(),
    _updated(),
    Column("counted_at", Time),  # when that was; null: never in the background
    Index("segments_created", "project_id", "created_at", "id"),
    Index("segments_counted", "counted_at"),
)

segment_memberships = _table(
    "segment_memberships",
    Column("segment_id", Id, ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True),  # the group
    Column("contact_id", Id, ForeignKey("contacts.id", ondelete="CASCADE"), primary_key=True),  # the member
    Column("entered_at", Time, nullable=False),  # start of the present stay
    Column("exited_at", Time),  # end of it; null: inside now
    Index("segment_memberships_contact", "contact_id"),
    Index(
        "segment_memberships_present", "segment_id", "entered_at", "contact_id", sqlite_where=sa.text("exited_at IS NULL")
    ),
)

suppressions = _table(
    "suppressions",
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),  # whose list
    Column("address", Text, primary_key=True),  # trimmed and lower-cased, as in contacts
    Column("reason", Text, nullable=False),  # BOUNCE, COMPLAINT, MANUAL
    Column("detail", Text),  # the reply or report that caused it, or a note; null: none
    Column("email_id", Id),  # the mail that caused it, which may be gone; null: entered by hand
    _created(),
    Index("suppressions_created", "project_id", "created_at", "address"),
)

suppression_rules = _table(
    "suppression_rules",
    _id(),
    _project(),
    Column("name", Text, nullable=False),  # shown in lists
    Column("kind", Text, nullable=False),  # ADDRESS, DOMAIN, PREFIX, SUFFIX, WILDCARD
    Column("pattern", Text, nullable=False),  # what recipients are compared with
    Column("enabled", Boolean, nullable=False),  # off: kept, without effect
    _created(),
    _updated(),
    Index("suppression_rules_project", "project_id", "created_at"),
)

uploads = _table(
    "uploads",
    _id(),
    _project(),
    Column("key", Text, nullable=False, unique=True),  # path below the store: <project>/<ms>-<hex>.<ext>
    Column("filename", Text, nullable=False),  # as the client named it
    Column("content_type", Text, nullable=False),  # image/png, ...
    Column("size", Integer, nullable=False),  # bytes
    _created(),
    Index("uploads_project", "project_id", "created_at"),
)

jobs = _table(
    "jobs",
    Column("id", Text, primary_key=True),  # import-<project>-<ms>, bulk-<operation>-<project>-<ms>
    _project(),
    Column("kind", Text, nullable=False),  # IMPORT, BULK
    Column("state", Text, nullable=False),  # waiting, active, completed, failed, delayed
    Column("progress", Integer, nullable=False),  # whole percent
    Column("data", JSON, nullable=False),  # what was asked for, as shown to the client, without what is in the input
    Column("result", JSON),  # counts and errors; null until over
    Column("failed_reason", Text),  # why it failed; null otherwise
    Column("due_at", Time, nullable=False),  # when a worker may take it
    Column("lease_until", Time),  # a worker has it until then; null: free
    _created(),
    _updated(),
    Column("cursor", JSON),  # how far it is, and the counts so far, written with each batch; null: it is over
    Column("attempts", Integer, nullable=False, server_default=sa.text("0")),  # how often it broke off by an error
    Index("jobs_due", "due_at", sqlite_where=sa.text("state IN ('waiting', 'active', 'delayed')")),
    Index("jobs_project", "project_id", "created_at"),
    Index(
        "jobs_unfinished",
        *("project_id", "kind", "created_at", "id"),
        sqlite_where=sa.text("state IN ('waiting', 'active', 'delayed')"),
    ),
)

job_inputs = Table(
    "job_inputs",  # apart from the job, whose row is written with every batch; clustered on a rowid: its rows are large
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),  # whose it is
    Column("data", LargeBinary, nullable=False),  # zlib: the file of an import, kept until it is over; a bulk job's selector
)

# --- campaigns and workflows

campaigns = _table(
    "campaigns",
    _id(),
    _project(),
    Column("name", Text, nullable=False),  # shown in lists
    Column("description", Text),  # note to self; null: none
    Column("status", Text, nullable=False),  # DRAFT, SCHEDULED, SENDING, SENT, CANCELLED
    Column("subject", Text, nullable=False),  # Liquid
    Column("body", Text, nullable=False),  # Liquid in HTML
    Column("from_address", Text, nullable=False),  # sender, on a verified domain
    Column("from_name", Text),  # sender's display name; null: the project's name
    Column("reply_to", Text),  # Reply-To; null: none
    Column("type", Text, nullable=False),  # MARKETING, TRANSACTIONAL, HEADLESS
    Column("audience_type", Text, nullable=False),  # ALL, FILTERED, SEGMENT
    Column("audience_condition", JSON),  # for FILTERED, else null
    Column("segment_id", Id, ForeignKey("segments.id", ondelete="SET NULL")),  # for SEGMENT, else null
    Column("scheduled_for", Time),  # when it starts; null: not scheduled
    Column("fan_out_cursor", Text),  # last contact id written to the queue; null: not begun
    Column("total_recipients", Integer, nullable=False),  # size of the audience at start
    Column("sent_count", Integer, nullable=False),  # handed over
    Column("delivered_count", Integer, nullable=False),  # confirmed
    Column("opened_count", Integer, nullable=False),  # opened at least once
    Column("clicked_count", Integer, nullable=False),  # clicked at least once
    Column("bounced_count", Integer, nullable=False),  # bounced for good
    Column("complained_count", Integer, nullable=False),  # reported as spam
    Column("unsubscribed_count", Integer, nullable=False),  # opted out through it
    Column("archived", Boolean, nullable=False),  # hidden from lists
    Column("sent_at", Time),  # when the last mail left; null: not yet
    _created(),
    _updated(),
    Index("campaigns_created", "project_id", "created_at", "id"),
    Index("campaigns_due", "scheduled_for", sqlite_where=sa.text("status IN ('SCHEDULED', 'SENDING')")),
)

workflows = _table(
    "workflows",
    _id(),
    _project(),
    Column("name", Text, nullable=False),  # shown in lists
    Column("description", Text),  # note to self; null: none
    Column("enabled", Boolean, nullable=False),  # takes new contacts
    Column("trigger_type", Text, nullable=False),  # EVENT, MANUAL, SCHEDULE
    Column("trigger_event", Text),  # the event name of an EVENT trigger, for lookup; null otherwise
    Column("trigger_config", JSON),  # as given; null: none
    Column("allow_reentry", Boolean, nullable=False),  # a contact may run through it again
    _created(),
    _updated(),
    Index("workflows_created", "project_id", "created_at", "id"),
    Index("workflows_trigger", "project_id", "trigger_event", sqlite_where=sa.text("enabled")),
)

workflow_steps = _table(
    "workflow_steps",
    _id(),
    Column("workflow_id", Id, ForeignKey("workflows.id", ondelete="CASCADE"), nullable=False),  # the graph
    Column("type", Text, nullable=False),  # TRIGGER, SEND_EMAIL, DELAY, WAIT_FOR_EVENT, CONDITION, EXIT, WEBHOOK, ...
    Column("name", Text, nullable=False),  # shown in the graph
    Column("position", JSON, nullable=False),  # {x, y} in the editor
    Column("config", JSON, nullable=False),  # settings of the step's type
    Column("template_id", Id, ForeignKey("templates.id", ondelete="RESTRICT")),  # for SEND_EMAIL, else null
    _created(),
    _updated(),
    Index("workflow_steps_workflow", "workflow_id"),
    Index("workflow_steps_template", "template_id"),
)

workflow_transitions = _table(
    "workflow_transitions",
    _id(),
    Column("from_step_id", Id, ForeignKey("workflow_steps.id", ondelete="CASCADE"), nullable=False),  # tail
    Column("to_step_id", Id, ForeignKey("workflow_steps.id", ondelete="CASCADE"), nullable=False),  # head
    Column("condition", JSON),  # {branch}; null: always
    Column("wait_outcome", Text),  # EVENT, TIMEOUT after a WAIT_FOR_EVENT step; null otherwise
    Column("priority", Integer, nullable=False),  # lower is tried first
    _created(),
    _updated(),
    Index("workflow_transitions_outcome", "from_step_id", "wait_outcome", unique=True),
    Index("workflow_transitions_to", "to_step_id"),
)

workflow_executions = _table(
    "workflow_executions",
    _id(),
    Column("workflow_id", Id, ForeignKey("workflows.id", ondelete="CASCADE"), nullable=False),  # the graph
    Column("contact_id", Id, ForeignKey("contacts.id", ondelete="CASCADE"), nullable=False),  # who runs through it
    Column("status", Text, nullable=False),  # RUNNING, WAITING, COMPLETED, EXITED, FAILED, CANCELLED
    Column("current_step_id", Id, ForeignKey("workflow_steps.id", ondelete="SET NULL")),  # where; null when over
    Column("source_event_id", Id),  # the event that started it; null: started by hand
    Column("exit_reason", Text),  # why it ended early; null otherwise
    Column("context", JSON),  # variables of this run; null: none
    Column("started_at", Time, nullable=False),  # begin
    Column("completed_at", Time),  # end; null: running
    _created(),
    _updated(),
    Index("workflow_executions_event", "workflow_id", "source_event_id", unique=True),
    Index("workflow_executions_status", "workflow_id", "status", "id"),
    Index("workflow_executions_contact", "contact_id"),
)

workflow_step_executions = _table(
    "workflow_step_executions",
    _id(),
    Column("execution_id", Id, ForeignKey("workflow_executions.id", ondelete="CASCADE"), nullable=False),  # the run
    Column("step_id", Id, ForeignKey("workflow_steps.id", ondelete="CASCADE"), nullable=False),  # the step
    Column("status", Text, nullable=False),  # PENDING, SCHEDULED, WAITING, RUNNING, COMPLETED, SKIPPED, FAILED
    Column("scheduled_for", Time),  # when a delay ends; null: no delay
    Column("execute_after", Time),  # when a worker may take it; null: now or never
    Column("started_at", Time),  # begin; null: not yet
    Column("completed_at", Time),  # end; null: not yet
    Column("resume_event_id", Id),  # the event that ended a wait; null otherwise
    Column("output", JSON),  # what the step gave; null: nothing
    Column("error", Text),  # why it failed; null otherwise
    _created(),
    _updated(),
    Index("workflow_step_executions_once", "execution_id", "step_id", unique=True),
    Index("workflow_step_executions_step", "step_id"),
    Index(
        "workflow_step_executions_due",
        "execute_after",
        sqlite_where=sa.text("status IN ('PENDING', 'SCHEDULED', 'WAITING')"),
    ),
)

# --- mail

contents = Table(
    "contents",  # clustered on a rowid: its rows are large
    metadata,
    _id(),
    _project(),
    Column("kind", Text, nullable=False),  # MIME: a message as submitted; HTML: a rendered body; ATTACHMENTS: a JSON list
    Column("data", LargeBinary, nullable=False),  # the bytes, of a large one the first; empty when purged
    Column("size", Integer, nullable=False),  # how many bytes there are, or were before they were purged
    _created(),
)

content_parts = Table(
    "content_parts",  # what follows the first bytes of a large content: so it is never held whole while it is written
    metadata,
    Column("content_id", Id, ForeignKey("contents.id", ondelete="CASCADE"), primary_key=True),  # what it is a part of
    Column("number", Integer, primary_key=True),  # 1, 2, ...: their order
    Column("data", LargeBinary, nullable=False),  # its bytes
)

emails = _table(
    "emails",
    _id(),
    _project(),
    Column("contact_id", Id, ForeignKey("contacts.id", ondelete="CASCADE"), nullable=False),  # recipient, or inbound sender
    Column("recipient", Text, nullable=False),  # the address it goes to, as given
    Column("to_name", Text),  # recipient's display name; null: none
    Column("subject", Text, nullable=False),  # rendered
    Column("from_address", Text, nullable=False),  # header From
    Column("from_name", Text),  # its display name; null: the project's name for API mail, none for SMTP
    Column("reply_to", Text),  # Reply-To; null: none
    Column("headers", JSON),  # caller's own headers; null: none
    Column("content_id", Id, ForeignKey("contents.id")),  # the body or message; null: purged or none
    Column("attachments_id", Id, ForeignKey("contents.id")),  # attachments shared by one request; null: none
    Column("message_id", Text, nullable=False),  # Message-ID without brackets
    Column("mail_class", Text, nullable=False),  # marketing, transactional, headless: decides footer and list headers
    Column("tag", Text),  # the sender's own word for this kind of mail; null: none
    Column("tracked", Boolean),  # opens and clicks: the message's own choice; null: the project's setting
    Column("source_type", Text, nullable=False),  # TRANSACTIONAL, CAMPAIGN, WORKFLOW, INBOUND
    Column("template_id", Id, ForeignKey("templates.id", ondelete="SET NULL")),  # null: none
    Column("campaign_id", Id, ForeignKey("campaigns.id", ondelete="CASCADE")),  # null: none
    Column("workflow_execution_id", Id, ForeignKey("workflow_executions.id", ondelete="CASCADE")),  # null: none
    Column("workflow_step_execution_id", Id, ForeignKey("workflow_step_executions.id", ondelete="CASCADE")),  # null: none
    Column("status", Text, nullable=False),  # PENDING, SENDING, SENT, DELIVERED, OPENED, CLICKED, BOUNCED, ...
    Column("error", Text),  # why it failed; null otherwise
    Column("sent_at", Time),  # first accepted by the next relay; null: not yet
    Column("delivered_at", Time),  # delivery confirmed; null: not yet
    Column("opened_at", Time),  # first open; null: none
    Column("clicked_at", Time),  # first click; null: none
    Column("bounced_at", Time),  # permanent bounce; null: none
    Column("complained_at", Time),  # spam report; null: none
    Column("opens", Integer, nullable=False),  # how often opened
    Column("clicks", Integer, nullable=False),  # how often clicked
    _created(),
    _updated(),
    Column("suppression", JSON),  # for SUPPRESSED: the entry or rule that held it, as it was then; null otherwise
    Index("emails_contact", "contact_id", "id"),
    Index("emails_project", "project_id", "id"),
    Index("emails_message_id", "message_id"),
    Index("emails_content", "content_id"),
    Index("emails_attachments", "attachments_id", sqlite_where=sa.text("attachments_id IS NOT NULL")),
    Index("emails_template", "template_id", sqlite_where=sa.text("template_id IS NOT NULL")),
    Index("emails_campaign", "campaign_id", "id", sqlite_where=sa.text("campaign_id IS NOT NULL")),
    Index("emails_execution", "workflow_execution_id", sqlite_where=sa.text("workflow_execution_id IS NOT NULL")),
    Index("emails_step", "workflow_step_execution_id", sqlite_where=sa.text("workflow_step_execution_id IS NOT NULL")),
    *(
        Index(f"emails_{what}", "project_id", "contact_id", f"{what}_at", sqlite_where=sa.text(f"{what}_at IS NOT NULL"))
        for what in ("opened", "clicked", "bounced", "complained")
    ),
)

deliveries = _table(
    "deliveries",
    _id(),  # the queue id: shown to senders, in logs and in Received
    Column("email_id", Id, ForeignKey("emails.id", ondelete="CASCADE"), nullable=False, unique=True),  # one a mail
    _project(),
    Column("priority", Integer, nullable=False),  # 1 transactional, 5 workflow, 10 campaign: lower goes first
    Column("sender", Text, nullable=False),  # envelope reverse-path
    Column("recipient", Text, nullable=False),  # envelope forward-path
    Column("domain", Text, nullable=False),  # recipient's domain, lower-cased A-labels
    Column(
        "state", Text, nullable=False
    ),  # QUEUED, HELD, or final: DELIVERED, BOUNCED, EXPIRED, SUPPRESSED, CANCELLED, FAILED
    Column("due_at", Time, nullable=False),  # next attempt; while leased, the end of the lease
    Column("lease_owner", Text),  # the process that is working on it; null: nobody
    Column("attempts", Integer, nullable=False),  # how many were counted so far
    Column("dot_sent_at", Time),  # the final dot went out and no reply was recorded; null otherwise
    Column("unknown_outcomes", Integer, nullable=False),  # attempts that may have delivered it without our knowing
    Column("never_twice", Boolean, nullable=False),  # an unknown outcome is final
    Column("expires_at", Time, nullable=False),  # no attempt from then on
    Column("last_reply", Text),  # the last answer or failure; null: no attempt yet
    Column("finished_at", Time),  # when it became final; null: it is not
    _created(),
    Column("tls_wish", Text),  # REQUIRED (REQUIRETLS), OPTIONAL (TLS-Required: No), RFC 8689; null: the policies decide
    Column(
        "notify", Boolean, nullable=False, server_default=sa.false()
    ),  # the sender is mailed on failure and delay (RFC 3464)
    Column("delay_notified_at", Time),  # when the delay notice was queued; null: none was
    Column("last_address", Text),  # the peer's address to prefer at the next attempt; null: any
    Index("deliveries_due", "priority", "project_id", "due_at", sqlite_where=sa.text("state = 'QUEUED'")),
    Index("deliveries_leased", "lease_owner", sqlite_where=sa.text("lease_owner IS NOT NULL")),
    Index("deliveries_project", "project_id", "state", "id"),
)

attempts = _table(
    "attempts",
    _id(),
    Column("delivery_id", Id, ForeignKey("deliveries.id", ondelete="CASCADE"), nullable=False),  # which mail
    Column("number", Integer, nullable=False),  # 1, 2, 3, ...
    Column("started_at", Time, nullable=False),  # begin
    Column("milliseconds", Integer, nullable=False),  # how long it took
    Column("host", Text),  # the peer's name and address; null: none was reached
    Column("tls", Text),  # protocol and whether verified, or none; null: no connection
    Column("outcome", Text, nullable=False),  # DELIVERED, DEFERRED, BOUNCED, UNKNOWN
    Column("reply", Text, nullable=False),  # the deciding answer
    Column("conversation", Text, nullable=False),  # both sides' lines with milliseconds, without bodies
    Column("reply_class", Text),  # recipient, policy, reputation, content, temporary, infrastructure; null: delivered
    Column("rule", Text),  # name of the rule that classified the reply; null: delivered, or not a reply
    Index("attempts_delivery", "delivery_id"),
)

captured = Table(
    "captured",  # what the route `capture` kept; clustered on a rowid: its rows are large
    metadata,
    Column("delivery_id", Id, ForeignKey("deliveries.id", ondelete="CASCADE"), primary_key=True),  # which mail
    Column("message", LargeBinary, nullable=False),  # the signed bytes that would have left
    _created(),
)

events = _table(
    "events",
    _id(),
    _project(),
    Column("name", Text, nullable=False),  # as tracked, or a system name such as email.sent
    Column("data", JSON),  # payload; null: none
    Column("contact_id", Id, ForeignKey("contacts.id", ondelete="CASCADE")),  # null: about no contact
    Column("email_id", Id, ForeignKey("emails.id", ondelete="CASCADE")),  # null: about no mail
    Column("processed_at", Time),  # handed to workflows, or recorded where there were none; null: not yet
    Column("dispatch_attempts", Integer, nullable=False),  # tries so far
    Column("next_dispatch_at", Time),  # when to try again; null: now, or done
    Column("dispatch_error", Text),  # the last failure; null: none
    _created(),
    Index("events_created", "project_id", "created_at"),
    Index("events_name", "project_id", "name", "contact_id", "created_at"),
    Index("events_contact", "contact_id", "id"),
    Index("events_email", "email_id"),
)

# --- what is known about other servers

provider_states = _table(
    "provider_states",
    Column("provider", Text, primary_key=True),  # in the provider table, or the exchangers' registered domain; everyone
    Column("source_address", Text, primary_key=True),  # our address the state is about; empty: all of them
    Column("pace", Integer, nullable=False),  # percent of the normal connections and rate
    Column("paused_until", Time),  # nothing is sent before; null: not paused
    Column("fallback_since", Time),  # its mail goes by the smarthost from then on; null: it goes directly
    Column("probe_at", Time),  # when one mail tries the direct way again; null: no fallback
    Column("reason", Text),  # the reply that caused it; null: none
    Column("alerted_at", Time),  # when the operator was told; null: not yet
    _updated(),
)

warmup_counts = _table(
    "warmup_counts",
    Column("source_address", Text, primary_key=True),  # our address
    Column("provider", Text, primary_key=True),  # as in provider_states; empty: the day the address was first used
    Column("day", Text, primary_key=True),  # YYYY-MM-DD UTC
    Column("sent", Integer, nullable=False),  # messages handed over that day
)

mta_sts_policies = _table(
    "mta_sts_policies",
    Column("domain", Text, primary_key=True),  # the policy domain, A-labels
    Column("policy_id", Text, nullable=False),  # id of the TXT record the policy was fetched for
    Column("policy", Text),  # the policy file as served; null: the last fetch gave no valid one
    Column("fetched_at", Time, nullable=False),  # last try
    Column("expires_at", Time, nullable=False),  # max_age after the fetch: not valid from then on
    Index("mta_sts_policies_expiry", "expires_at"),
)

tls_results = _table(
    "tls_results",
    Column("day", Text, primary_key=True),  # YYYY-MM-DD UTC
    Column("domain", Text, primary_key=True),  # the policy domain, A-labels
    Column("kind", Text, primary_key=True),  # sts, tlsa, no-policy-found
    Column("result", Text, primary_key=True),  # success, or the failure type of RFC 8460 4.3
    Column("sending_address", Text, primary_key=True),  # our address; empty: unknown
    Column("mx_host", Text, primary_key=True),  # the exchanger; empty: none was reached
    Column("receiving_address", Text, primary_key=True),  # its address; empty: none was reached
    Column("policy", Text, primary_key=True),  # the policy's lines; empty: none
    Column("sessions", Integer, nullable=False),  # how many
)

# --- the HTTP door's own books

idempotency_keys = _table(
    "idempotency_keys",
    Column("project_id", Id, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),  # scope
    Column("key", Text, primary_key=True),  # as the client sent it
    Column("request_id", Id, nullable=False),  # who holds the claim
    Column("method", Text, nullable=False),  # of the claiming request
    Column("path", Text, nullable=False),  # of the claiming request
    Column("status_code", Integer),  # its answer; null while it runs
    _created(),
    Column("expires_at", Time, nullable=False),  # the row counts as absent from then on
    Index("idempotency_keys_expiry", "expires_at"),
)

api_requests = _table(
    "api_requests",
    _id(),  # the request id
    Column("method", Text, nullable=False),  # GET, POST, ...
    Column("path", Text, nullable=False),  # without the query
    Column("status_code", Integer, nullable=False),  # of the answer
    Column("duration", Integer, nullable=False),  # milliseconds
    Column("project_id", Id, ForeignKey("projects.id", ondelete="SET NULL")),  # null: none was identified
    Column("user_id", Id),  # null: not a signed-in person
    Column("auth_type", Text),  # apiKey, jwt; null: none
    Column("ip", Text),  # of the client; null: unknown
    Column("user_agent", Text),  # as sent; null: none
    Column("error_code", Text),  # of the envelope; null: success
    Column("error_message", Text),  # of the envelope; null: success
    Column("request_size", Integer),  # bytes of the body; null: unknown
    Column("response_size", Integer),  # bytes of the body; null: unknown
    _created(),
    Index("api_requests_project", "project_id", "id"),
)

notes = _table(
    "notes",
    Column("key", Text, primary_key=True),  # what is remembered: smtp-guard, ...
    Column("value", JSON, nullable=False),  # any value
    Column("updated_at", Time, nullable=False),  # when it was written
)
