-- Which hosts are enrolled and who may join is what the log says, and nothing else: these entries are read at start. The head counts
-- them under its seal, so that none can be hidden.
ALTER TABLE log_head ADD COLUMN inventory INTEGER NOT NULL DEFAULT 0;
CREATE INDEX log_entry_of_inventory ON log_entry (number) WHERE kind IN (
    'join_created', 'join_revoked', 'host_enrolled', 'host_refused', 'host_tagged', 'host_retired', 'host_left'
);

-- Host tokens. Short-lived, sealed like a person's session.
CREATE TABLE host_session (
    token  BLOB    PRIMARY KEY CHECK (length(token) = 32),    -- SHA-256 of the token
    host   TEXT    NOT NULL,
    key    TEXT    NOT NULL,             -- fingerprint of the identity key
    opened INTEGER NOT NULL,
    seal   BLOB    NOT NULL CHECK (length(seal) = 32)         -- identity/host.rs
) STRICT, WITHOUT ROWID;
CREATE INDEX host_session_over ON host_session (opened);

-- What a host told of itself last. Shown; nothing rests on it but whether to write that it changed.
CREATE TABLE host_seen (
    host TEXT    PRIMARY KEY,
    at   INTEGER NOT NULL,
    body TEXT    NOT NULL                -- JSON (store/host_rows.rs)
) STRICT, WITHOUT ROWID;

-- What a host has reported already; what it reports again is not written a second time.
CREATE TABLE host_report (
    host   TEXT    NOT NULL,
    report TEXT    NOT NULL,             -- the host's own id
    at     INTEGER NOT NULL,
    PRIMARY KEY (host, report)
) STRICT, WITHOUT ROWID;
CREATE INDEX host_report_over ON host_report (at);

-- The newest certificate of each host key. It vouches for itself: it is read only with the CA's signature.
CREATE TABLE host_certificate (
    host TEXT NOT NULL,
    key  TEXT NOT NULL,                  -- fingerprint of the host key
    line TEXT NOT NULL,
    PRIMARY KEY (host, key)
) STRICT, WITHOUT ROWID;

-- The table "certificate" has those of hosts, too; there "request" is the host's name, in which no letter is upper case.
