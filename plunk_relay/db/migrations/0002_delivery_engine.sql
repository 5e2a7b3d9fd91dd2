ALTER TABLE domains ADD COLUMN receiving BOOLEAN DEFAULT 0 NOT NULL;
ALTER TABLE emails ADD COLUMN suppression JSON;
ALTER TABLE deliveries ADD COLUMN tls_wish TEXT;
ALTER TABLE deliveries ADD COLUMN notify BOOLEAN DEFAULT 0 NOT NULL;
ALTER TABLE deliveries ADD COLUMN delay_notified_at BIGINT;
ALTER TABLE deliveries ADD COLUMN last_address TEXT;
ALTER TABLE attempts ADD COLUMN reply_class TEXT;
ALTER TABLE attempts ADD COLUMN rule TEXT;
CREATE TABLE suppressions (
	project_id VARCHAR(36) NOT NULL, 
	address TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	detail TEXT, 
	email_id VARCHAR(36), 
	created_at BIGINT NOT NULL, 
	PRIMARY KEY (project_id, address), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX suppressions_created ON suppressions (project_id, created_at, address);
CREATE TABLE content_parts (
	content_id VARCHAR(36) NOT NULL, 
	number INTEGER NOT NULL, 
	data BLOB NOT NULL, 
	PRIMARY KEY (content_id, number), 
	FOREIGN KEY(content_id) REFERENCES contents (id) ON DELETE CASCADE
);
CREATE TABLE provider_states (
	provider TEXT NOT NULL, 
	source_address TEXT NOT NULL, 
	pace INTEGER NOT NULL, 
	paused_until BIGINT, 
	fallback_since BIGINT, 
	probe_at BIGINT, 
	reason TEXT, 
	alerted_at BIGINT, 
	updated_at BIGINT NOT NULL, 
	PRIMARY KEY (provider, source_address)
)
 WITHOUT ROWID;
CREATE TABLE warmup_counts (
	source_address TEXT NOT NULL, 
	provider TEXT NOT NULL, 
	day TEXT NOT NULL, 
	sent INTEGER NOT NULL, 
	PRIMARY KEY (source_address, provider, day)
)
 WITHOUT ROWID;
CREATE TABLE mta_sts_policies (
	domain TEXT NOT NULL, 
	policy_id TEXT NOT NULL, 
	policy TEXT, 
	fetched_at BIGINT NOT NULL, 
	expires_at BIGINT NOT NULL, 
	PRIMARY KEY (domain)
)
 WITHOUT ROWID;
CREATE INDEX mta_sts_policies_expiry ON mta_sts_policies (expires_at);
CREATE TABLE tls_results (
	day TEXT NOT NULL, 
	domain TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	result TEXT NOT NULL, 
	sending_address TEXT NOT NULL, 
	mx_host TEXT NOT NULL, 
	receiving_address TEXT NOT NULL, 
	policy TEXT NOT NULL, 
	sessions INTEGER NOT NULL, 
	PRIMARY KEY (day, domain, kind, result, sending_address, mx_host, receiving_address, policy)
)
 WITHOUT ROWID;
