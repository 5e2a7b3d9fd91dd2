-- The data model as of its first version; plunk_relay/db/tables.py says what every column means.
CREATE TABLE counters (
	name TEXT NOT NULL, 
	value INTEGER NOT NULL, 
	expires_at BIGINT NOT NULL, 
	PRIMARY KEY (name)
)
 WITHOUT ROWID;
CREATE TABLE notes (
	"key" TEXT NOT NULL, 
	value JSON NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY ("key")
)
 WITHOUT ROWID;
CREATE TABLE projects (
	id VARCHAR(36) NOT NULL, 
	name TEXT NOT NULL, 
	public_hash TEXT NOT NULL, 
	public_sealed TEXT NOT NULL, 
	secret_hash TEXT NOT NULL, 
	secret_sealed TEXT NOT NULL, 
	disabled BOOLEAN NOT NULL, 
	disabled_reason TEXT, 
	customer TEXT, 
	subscription TEXT, 
	card_verification TEXT, 
	card_verification_intent TEXT, 
	card_verification_at BIGINT, 
	card_verification_session TEXT, 
	card_verification_attempts INTEGER NOT NULL, 
	billing_limit_workflows INTEGER, 
	billing_limit_campaigns INTEGER, 
	billing_limit_transactional INTEGER, 
	billing_limit_inbound INTEGER, 
	tracking TEXT NOT NULL, 
	language TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (public_hash), 
	UNIQUE (secret_hash), 
	UNIQUE (customer), 
	UNIQUE (subscription)
)
 WITHOUT ROWID;
CREATE TABLE users (
	id VARCHAR(36) NOT NULL, 
	email TEXT NOT NULL, 
	password_hash TEXT, 
	type TEXT NOT NULL, 
	email_verified BOOLEAN NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (email)
)
 WITHOUT ROWID;
CREATE TABLE api_requests (
	id VARCHAR(36) NOT NULL, 
	method TEXT NOT NULL, 
	path TEXT NOT NULL, 
	status_code INTEGER NOT NULL, 
	duration INTEGER NOT NULL, 
	project_id VARCHAR(36), 
	user_id VARCHAR(36), 
	auth_type TEXT, 
	ip TEXT, 
	user_agent TEXT, 
	error_code TEXT, 
	error_message TEXT, 
	request_size INTEGER, 
	response_size INTEGER, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE SET NULL
)
 WITHOUT ROWID;
CREATE INDEX api_requests_project ON api_requests (project_id, id);
CREATE TABLE contacts (
	id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	email TEXT NOT NULL, 
	data JSON, 
	subscribed BOOLEAN NOT NULL, 
	snoozed_until BIGINT, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX contacts_created ON contacts (project_id, created_at, id);
CREATE UNIQUE INDEX contacts_email ON contacts (project_id, email);
CREATE TABLE contents (
	id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	kind TEXT NOT NULL, 
	data BLOB NOT NULL, 
	size INTEGER NOT NULL, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
);
CREATE TABLE domains (
	id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	domain TEXT NOT NULL, 
	verified BOOLEAN NOT NULL, 
	trusted BOOLEAN NOT NULL, 
	status TEXT NOT NULL, 
	records JSON, 
	checked_at BIGINT, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE, 
	UNIQUE (domain)
)
 WITHOUT ROWID;
CREATE INDEX domains_checked ON domains (checked_at) WHERE trusted = 0;
CREATE INDEX domains_project ON domains (project_id, id);
CREATE TABLE idempotency_keys (
	project_id VARCHAR(36) NOT NULL, 
	"key" TEXT NOT NULL, 
	request_id VARCHAR(36) NOT NULL, 
	method TEXT NOT NULL, 
	path TEXT NOT NULL, 
	status_code INTEGER, 
	created_at BIGINT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	PRIMARY KEY (project_id, "key"), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
CREATE TABLE jobs (
	id TEXT NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	kind TEXT NOT NULL, 
	state TEXT NOT NULL, 
	progress INTEGER NOT NULL, 
	data JSON NOT NULL, 
	input BLOB, 
	result JSON, 
	failed_reason TEXT, 
	due_at BIGINT NOT NULL, 
	lease_until BIGINT, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX jobs_due ON jobs (due_at) WHERE state IN ('waiting', 'active', 'delayed');
CREATE INDEX jobs_project ON jobs (project_id, created_at);
CREATE TABLE memberships (
	user_id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	role TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (user_id, project_id), 
	FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE RESTRICT, 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX memberships_project ON memberships (project_id);
CREATE TABLE segments (
	id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	name TEXT NOT NULL, 
	description TEXT, 
	type TEXT NOT NULL, 
	condition JSON, 
	track_membership BOOLEAN NOT NULL, 
	member_count INTEGER NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX segments_created ON segments (project_id, created_at, id);
CREATE TABLE suppression_rules (
	id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	name TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	pattern TEXT NOT NULL, 
	enabled BOOLEAN NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX suppression_rules_project ON suppression_rules (project_id, created_at);
CREATE TABLE templates (
	id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	name TEXT NOT NULL, 
	description TEXT, 
	subject TEXT NOT NULL, 
	body TEXT NOT NULL, 
	from_address TEXT NOT NULL, 
	from_name TEXT, 
	reply_to TEXT, 
	type TEXT NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX templates_created ON templates (project_id, created_at, id);
CREATE TABLE uploads (
	id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	"key" TEXT NOT NULL, 
	filename TEXT NOT NULL, 
	content_type TEXT NOT NULL, 
	size INTEGER NOT NULL, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE, 
	UNIQUE ("key")
)
 WITHOUT ROWID;
CREATE INDEX uploads_project ON uploads (project_id, created_at);
CREATE TABLE user_tokens (
	token_hash TEXT NOT NULL, 
	user_id VARCHAR(36) NOT NULL, 
	purpose TEXT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (token_hash), 
	FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE TABLE workflows (
	id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	name TEXT NOT NULL, 
	description TEXT, 
	enabled BOOLEAN NOT NULL, 
	trigger_type TEXT NOT NULL, 
	trigger_event TEXT, 
	trigger_config JSON, 
	allow_reentry BOOLEAN NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX workflows_created ON workflows (project_id, created_at, id);
CREATE INDEX workflows_trigger ON workflows (project_id, trigger_event) WHERE enabled;
CREATE TABLE campaigns (
	id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	name TEXT NOT NULL, 
	description TEXT, 
	status TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	body TEXT NOT NULL, 
	from_address TEXT NOT NULL, 
	from_name TEXT, 
	reply_to TEXT, 
	type TEXT NOT NULL, 
	audience_type TEXT NOT NULL, 
	audience_condition JSON, 
	segment_id VARCHAR(36), 
	scheduled_for BIGINT, 
	fan_out_cursor TEXT, 
	total_recipients INTEGER NOT NULL, 
	sent_count INTEGER NOT NULL, 
	delivered_count INTEGER NOT NULL, 
	opened_count INTEGER NOT NULL, 
	clicked_count INTEGER NOT NULL, 
	bounced_count INTEGER NOT NULL, 
	complained_count INTEGER NOT NULL, 
	unsubscribed_count INTEGER NOT NULL, 
	archived BOOLEAN NOT NULL, 
	sent_at BIGINT, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE, 
	FOREIGN KEY(segment_id) REFERENCES segments (id) ON DELETE SET NULL
)
 WITHOUT ROWID;
CREATE INDEX campaigns_created ON campaigns (project_id, created_at, id);
CREATE INDEX campaigns_due ON campaigns (scheduled_for) WHERE status IN ('SCHEDULED', 'SENDING');
CREATE TABLE dkim_keys (
	id VARCHAR(36) NOT NULL, 
	domain_id VARCHAR(36) NOT NULL, 
	selector TEXT NOT NULL, 
	algorithm TEXT NOT NULL, 
	private_sealed TEXT NOT NULL, 
	public_record TEXT NOT NULL, 
	retired_at BIGINT, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(domain_id) REFERENCES domains (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX dkim_keys_domain ON dkim_keys (domain_id);
CREATE TABLE segment_memberships (
	segment_id VARCHAR(36) NOT NULL, 
	contact_id VARCHAR(36) NOT NULL, 
	entered_at BIGINT NOT NULL, 
	exited_at BIGINT, 
	PRIMARY KEY (segment_id, contact_id), 
	FOREIGN KEY(segment_id) REFERENCES segments (id) ON DELETE CASCADE, 
	FOREIGN KEY(contact_id) REFERENCES contacts (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX segment_memberships_contact ON segment_memberships (contact_id);
CREATE TABLE workflow_steps (
	id VARCHAR(36) NOT NULL, 
	workflow_id VARCHAR(36) NOT NULL, 
	type TEXT NOT NULL, 
	name TEXT NOT NULL, 
	position JSON NOT NULL, 
	config JSON NOT NULL, 
	template_id VARCHAR(36), 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(workflow_id) REFERENCES workflows (id) ON DELETE CASCADE, 
	FOREIGN KEY(template_id) REFERENCES templates (id) ON DELETE RESTRICT
)
 WITHOUT ROWID;
CREATE INDEX workflow_steps_template ON workflow_steps (template_id);
CREATE INDEX workflow_steps_workflow ON workflow_steps (workflow_id);
CREATE TABLE workflow_executions (
	id VARCHAR(36) NOT NULL, 
	workflow_id VARCHAR(36) NOT NULL, 
	contact_id VARCHAR(36) NOT NULL, 
	status TEXT NOT NULL, 
	current_step_id VARCHAR(36), 
	source_event_id VARCHAR(36), 
	exit_reason TEXT, 
	context JSON, 
	started_at BIGINT NOT NULL, 
	completed_at BIGINT, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(workflow_id) REFERENCES workflows (id) ON DELETE CASCADE, 
	FOREIGN KEY(contact_id) REFERENCES contacts (id) ON DELETE CASCADE, 
	FOREIGN KEY(current_step_id) REFERENCES workflow_steps (id) ON DELETE SET NULL
)
 WITHOUT ROWID;
CREATE INDEX workflow_executions_contact ON workflow_executions (contact_id);
CREATE UNIQUE INDEX workflow_executions_event ON workflow_executions (workflow_id, source_event_id);
CREATE INDEX workflow_executions_status ON workflow_executions (workflow_id, status, id);
CREATE TABLE workflow_transitions (
	id VARCHAR(36) NOT NULL, 
	from_step_id VARCHAR(36) NOT NULL, 
	to_step_id VARCHAR(36) NOT NULL, 
	condition JSON, 
	wait_outcome TEXT, 
	priority INTEGER NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(from_step_id) REFERENCES workflow_steps (id) ON DELETE CASCADE, 
	FOREIGN KEY(to_step_id) REFERENCES workflow_steps (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE UNIQUE INDEX workflow_transitions_outcome ON workflow_transitions (from_step_id, wait_outcome);
CREATE INDEX workflow_transitions_to ON workflow_transitions (to_step_id);
CREATE TABLE workflow_step_executions (
	id VARCHAR(36) NOT NULL, 
	execution_id VARCHAR(36) NOT NULL, 
	step_id VARCHAR(36) NOT NULL, 
	status TEXT NOT NULL, 
	scheduled_for BIGINT, 
	execute_after BIGINT, 
	started_at BIGINT, 
	completed_at BIGINT, 
	resume_event_id VARCHAR(36), 
	output JSON, 
	error TEXT, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(execution_id) REFERENCES workflow_executions (id) ON DELETE CASCADE, 
	FOREIGN KEY(step_id) REFERENCES workflow_steps (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX workflow_step_executions_due ON workflow_step_executions (execute_after) WHERE status IN ('PENDING', 'SCHEDULED', 'WAITING');
CREATE UNIQUE INDEX workflow_step_executions_once ON workflow_step_executions (execution_id, step_id);
CREATE INDEX workflow_step_executions_step ON workflow_step_executions (step_id);
CREATE TABLE emails (
	id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	contact_id VARCHAR(36) NOT NULL, 
	recipient TEXT NOT NULL, 
	to_name TEXT, 
	subject TEXT NOT NULL, 
	from_address TEXT NOT NULL, 
	from_name TEXT, 
	reply_to TEXT, 
	headers JSON, 
	content_id VARCHAR(36), 
	attachments_id VARCHAR(36), 
	message_id TEXT NOT NULL, 
	mail_class TEXT NOT NULL, 
	tag TEXT, 
	tracked BOOLEAN, 
	source_type TEXT NOT NULL, 
	template_id VARCHAR(36), 
	campaign_id VARCHAR(36), 
	workflow_execution_id VARCHAR(36), 
	workflow_step_execution_id VARCHAR(36), 
	status TEXT NOT NULL, 
	error TEXT, 
	sent_at BIGINT, 
	delivered_at BIGINT, 
	opened_at BIGINT, 
	clicked_at BIGINT, 
	bounced_at BIGINT, 
	complained_at BIGINT, 
	opens INTEGER NOT NULL, 
	clicks INTEGER NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE, 
	FOREIGN KEY(contact_id) REFERENCES contacts (id) ON DELETE CASCADE, 
	FOREIGN KEY(content_id) REFERENCES contents (id), 
	FOREIGN KEY(attachments_id) REFERENCES contents (id), 
	FOREIGN KEY(template_id) REFERENCES templates (id) ON DELETE SET NULL, 
	FOREIGN KEY(campaign_id) REFERENCES campaigns (id) ON DELETE CASCADE, 
	FOREIGN KEY(workflow_execution_id) REFERENCES workflow_executions (id) ON DELETE CASCADE, 
	FOREIGN KEY(workflow_step_execution_id) REFERENCES workflow_step_executions (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX emails_attachments ON emails (attachments_id) WHERE attachments_id IS NOT NULL;
CREATE INDEX emails_campaign ON emails (campaign_id, id) WHERE campaign_id IS NOT NULL;
CREATE INDEX emails_contact ON emails (contact_id, id);
CREATE INDEX emails_content ON emails (content_id);
CREATE INDEX emails_execution ON emails (workflow_execution_id) WHERE workflow_execution_id IS NOT NULL;
CREATE INDEX emails_message_id ON emails (message_id);
CREATE INDEX emails_project ON emails (project_id, id);
CREATE INDEX emails_step ON emails (workflow_step_execution_id) WHERE workflow_step_execution_id IS NOT NULL;
CREATE INDEX emails_template ON emails (template_id) WHERE template_id IS NOT NULL;
CREATE TABLE deliveries (
	id VARCHAR(36) NOT NULL, 
	email_id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	priority INTEGER NOT NULL, 
	sender TEXT NOT NULL, 
	recipient TEXT NOT NULL, 
	domain TEXT NOT NULL, 
	state TEXT NOT NULL, 
	due_at BIGINT NOT NULL, 
	lease_owner TEXT, 
	attempts INTEGER NOT NULL, 
	dot_sent_at BIGINT, 
	unknown_outcomes INTEGER NOT NULL, 
	never_twice BOOLEAN NOT NULL, 
	expires_at BIGINT NOT NULL, 
	last_reply TEXT, 
	finished_at BIGINT, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (email_id), 
	FOREIGN KEY(email_id) REFERENCES emails (id) ON DELETE CASCADE, 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (priority, project_id, due_at) WHERE state = 'QUEUED';
CREATE INDEX deliveries_leased ON deliveries (lease_owner) WHERE lease_owner IS NOT NULL;
CREATE INDEX deliveries_project ON deliveries (project_id, state, id);
CREATE TABLE events (
	id VARCHAR(36) NOT NULL, 
	project_id VARCHAR(36) NOT NULL, 
	name TEXT NOT NULL, 
	data JSON, 
	contact_id VARCHAR(36), 
	email_id VARCHAR(36), 
	processed_at BIGINT, 
	dispatch_attempts INTEGER NOT NULL, 
	next_dispatch_at BIGINT, 
	dispatch_error TEXT, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE, 
	FOREIGN KEY(contact_id) REFERENCES contacts (id) ON DELETE CASCADE, 
	FOREIGN KEY(email_id) REFERENCES emails (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX events_contact ON events (contact_id, id);
CREATE INDEX events_created ON events (project_id, created_at);
CREATE INDEX events_email ON events (email_id);
CREATE INDEX events_name ON events (project_id, name, contact_id, created_at);
CREATE TABLE attempts (
	id VARCHAR(36) NOT NULL, 
	delivery_id VARCHAR(36) NOT NULL, 
	number INTEGER NOT NULL, 
	started_at BIGINT NOT NULL, 
	milliseconds INTEGER NOT NULL, 
	host TEXT, 
	tls TEXT, 
	outcome TEXT NOT NULL, 
	reply TEXT NOT NULL, 
	conversation TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(delivery_id) REFERENCES deliveries (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX attempts_delivery ON attempts (delivery_id);
CREATE TABLE captured (
	delivery_id VARCHAR(36) NOT NULL, 
	message BLOB NOT NULL, 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (delivery_id), 
	FOREIGN KEY(delivery_id) REFERENCES deliveries (id) ON DELETE CASCADE
);
