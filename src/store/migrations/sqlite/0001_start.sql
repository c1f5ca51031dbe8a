-- The first schema. Words are those of DESIGN section 3; times are whole Unix seconds.

-- Service secrets and settings that every node shares.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The log's head: one row, rewritten in every transaction that appends.
CREATE TABLE log_head (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    size     INTEGER NOT NULL CHECK (size >= 0),
    frontier BLOB    NOT NULL,           -- the roots, 32 bytes each, largest subtree first
    at       INTEGER NOT NULL,           -- time of the last entry; 0 while there is none
    probe    INTEGER NOT NULL DEFAULT 0  -- changed to see whether a write succeeds
) STRICT;
INSERT INTO log_head (one, size, frontier, at) VALUES (1, 0, x'', 0);

CREATE TABLE log_entry (
    number  INTEGER PRIMARY KEY CHECK (number >= 0),
    at      INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    request TEXT,                        -- eight digits, if it is about one
    bytes   BLOB    NOT NULL             -- the canonical entry; the other columns only find it
) STRICT;
CREATE INDEX log_entry_of_request ON log_entry (request, number) WHERE request IS NOT NULL;

-- Complete subtrees (audit::tree).
CREATE TABLE log_node (
    level    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    hash     BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, position)
) STRICT, WITHOUT ROWID;

-- One row per certificate_to_be_signed entry; signed becomes 1 with its certificate_signed entry.
CREATE TABLE certificate (
    serial  INTEGER PRIMARY KEY REFERENCES log_entry (number),
    request TEXT    NOT NULL,
    signed  INTEGER NOT NULL DEFAULT 0 CHECK (signed IN (0, 1))
) STRICT;
CREATE INDEX certificate_without_outcome ON certificate (serial) WHERE signed = 0;

CREATE TABLE request (
    number    INTEGER PRIMARY KEY,       -- order of asking; tells apart what was asked in one second
    id        TEXT    NOT NULL UNIQUE,   -- eight digits
    version   INTEGER NOT NULL,          -- counts changes
    asker     TEXT    NOT NULL,
    state     TEXT    NOT NULL,
    asked     INTEGER NOT NULL,
    next_tick INTEGER,
    body      TEXT    NOT NULL           -- everything, as JSON (store/rows.rs); the other columns only find it
) STRICT;
CREATE INDEX request_of_asker ON request (asker, asked);
CREATE INDEX request_in_state ON request (state, asked);
CREATE INDEX request_asked ON request (asked);
CREATE INDEX request_due ON request (next_tick) WHERE next_tick IS NOT NULL;

CREATE TABLE request_host (
    host    TEXT NOT NULL,
    request TEXT NOT NULL REFERENCES request (id),
    PRIMARY KEY (host, request)
) STRICT, WITHOUT ROWID;
CREATE INDEX request_host_of_request ON request_host (request);

CREATE TABLE session (
    token   BLOB    PRIMARY KEY CHECK (length(token) = 32),   -- SHA-256 of the token
    person  TEXT    NOT NULL,
    key     TEXT    NOT NULL,            -- fingerprint of the login key
    opened  INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_of_person ON session (person);
CREATE INDEX session_over ON session (expires);

CREATE TABLE redemption (
    nonce   BLOB    PRIMARY KEY CHECK (length(nonce) = 16),
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX redemption_over ON redemption (expires);

CREATE TABLE policy (
    version    INTEGER PRIMARY KEY CHECK (version >= 1),
    text       TEXT    NOT NULL,
    applied_by TEXT    NOT NULL,
    at         INTEGER NOT NULL
) STRICT;
