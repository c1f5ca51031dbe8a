-- The first schema of PostgreSQL: what SQLite's first seven make, in one. Words are those of DESIGN section 3; times are whole Unix
-- seconds. Text that is compared or sorted is compared byte by byte.

-- Which schema this is, and the oldest program (by the schema it knows) that may work on it.
CREATE TABLE schema_version (
    one     smallint PRIMARY KEY CHECK (one = 1),
    version integer NOT NULL,
    serves  integer NOT NULL CHECK (serves <= version)
);
INSERT INTO schema_version VALUES (1, 0, 0);

-- The log's head: one row. Who writes anything locks it first, so that all nodes together append to one log.
CREATE TABLE log_head (
    one       smallint PRIMARY KEY CHECK (one = 1),
    size      bigint NOT NULL CHECK (size >= 0),
    frontier  bytea  NOT NULL,              -- the roots, 32 bytes each, largest subtree first
    at        bigint NOT NULL,              -- time of the last entry; 0 while there is none
    policy    bigint NOT NULL DEFAULT 0,    -- the newest policy version that the log names
    keys      bigint NOT NULL DEFAULT 0,    -- the newest entry that says which CA keys there are
    inventory bigint NOT NULL DEFAULT 0,    -- how many entries are about joining and enrolled hosts
    seal      bytea  NOT NULL DEFAULT '',   -- MAC under a key that is not in this database
    probe     bigint NOT NULL DEFAULT 0     -- counted up to see whether a write succeeds
) WITH (fillfactor = 10);                   -- one row, rewritten in place for ever
INSERT INTO log_head (one, size, frontier, at) VALUES (1, 0, '', 0);

-- The last group of changes that each node committed: says what became of a commit whose answer was lost.
CREATE TABLE writer (
    node   text   PRIMARY KEY,
    number bigint NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

CREATE TABLE log_entry (
    number  bigint PRIMARY KEY CHECK (number >= 0),
    at      bigint NOT NULL,
    kind    text COLLATE "C" NOT NULL,
    request text COLLATE "C",               -- eight digits, if it is about one
    bytes   bytea NOT NULL                  -- the canonical entry; the other columns only find it
);
CREATE INDEX log_entry_of_request ON log_entry (request, number) WHERE request IS NOT NULL;
CREATE INDEX log_entry_of_policy ON log_entry (number) WHERE kind = 'policy_applied';
CREATE INDEX log_entry_of_inventory ON log_entry (number) WHERE kind IN (
    'join_created', 'join_revoked', 'host_enrolled', 'host_refused', 'host_tagged', 'host_retired', 'host_left'
);

-- Complete subtrees (audit::tree).
CREATE TABLE log_node (
    level    smallint NOT NULL,
    position bigint   NOT NULL,
    hash     bytea    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, position)
);

-- One row per entry with a certificate to be signed; signed with the entry of its outcome. "request" is the host's name for those of
-- hosts, in which no letter is upper case.
CREATE TABLE certificate (
    serial  bigint  PRIMARY KEY,
    request text COLLATE "C" NOT NULL,
    signed  boolean NOT NULL DEFAULT false
);

CREATE TABLE request (
    number    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- order of asking; tells apart what was asked in one second
    id        text COLLATE "C" NOT NULL UNIQUE,                 -- eight digits
    version   bigint  NOT NULL,                                 -- counts changes
    asker     text COLLATE "C" NOT NULL,
    state     text COLLATE "C" NOT NULL,
    asked     bigint  NOT NULL,
    next_tick bigint,
    until     bigint,                                           -- the end of the last grant
    waits     boolean NOT NULL,                                 -- for a decision
    key       text COLLATE "C" NOT NULL,                        -- the subject key's line
    body      text    NOT NULL                                  -- everything, as JSON (store/rows.rs); the other columns only find it
);
CREATE INDEX request_of_asker ON request (asker, asked);
CREATE INDEX request_in_state ON request (state, asked);
CREATE INDEX request_asked ON request (asked);
CREATE INDEX request_due ON request (next_tick) WHERE next_tick IS NOT NULL;
CREATE INDEX request_waits ON request (asked) WHERE waits;
CREATE INDEX request_open ON request (asker, key) WHERE state IN ('pending', 'approved', 'issued');

CREATE TABLE request_host (
    host    text COLLATE "C" NOT NULL,
    request text COLLATE "C" NOT NULL,
    PRIMARY KEY (host, request)
);
CREATE INDEX request_host_of_request ON request_host (request);

CREATE TABLE session (
    token   bytea  PRIMARY KEY CHECK (length(token) = 32),      -- SHA-256 of the token
    person  text COLLATE "C" NOT NULL,
    key     text   NOT NULL,                                    -- fingerprint of the login key
    opened  bigint NOT NULL,
    expires bigint NOT NULL,
    seal    bytea  NOT NULL CHECK (length(seal) = 32)           -- identity/session.rs
);
CREATE INDEX session_of_person ON session (person);
CREATE INDEX session_over ON session (expires);

-- Sessions of browsers: each proves whom the session proves that let it in, and goes with it.
CREATE TABLE browser_session (
    token   bytea  PRIMARY KEY CHECK (length(token) = 32),      -- SHA-256 of the token
    parent  bytea  NOT NULL REFERENCES session (token) ON DELETE CASCADE,
    opened  bigint NOT NULL,
    expires bigint NOT NULL,
    seal    bytea  NOT NULL CHECK (length(seal) = 32)           -- identity/browser.rs
);
CREATE INDEX browser_session_of_parent ON browser_session (parent);
CREATE INDEX browser_session_over ON browser_session (expires);

CREATE TABLE redemption (
    nonce   bytea  PRIMARY KEY CHECK (length(nonce) = 16),
    expires bigint NOT NULL
);
CREATE INDEX redemption_over ON redemption (expires);

CREATE TABLE policy (
    version    bigint PRIMARY KEY CHECK (version >= 1),
    text       text   NOT NULL,
    applied_by text   NOT NULL,
    at         bigint NOT NULL
);

CREATE TABLE host_session (
    token  bytea  PRIMARY KEY CHECK (length(token) = 32),       -- SHA-256 of the token
    host   text   NOT NULL,
    key    text   NOT NULL,                                     -- fingerprint of the identity key
    opened bigint NOT NULL,
    seal   bytea  NOT NULL CHECK (length(seal) = 32)            -- identity/host.rs
);
CREATE INDEX host_session_over ON host_session (opened);

-- What a host told of itself last. "change" grows with every row that any node writes, so that the others read only what is new.
CREATE SEQUENCE host_seen_change;
CREATE TABLE host_seen (
    host   text COLLATE "C" PRIMARY KEY,
    at     bigint NOT NULL,
    body   text   NOT NULL,                                     -- JSON (store/host_rows.rs)
    change bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX host_seen_by_change ON host_seen (change);

CREATE TABLE host_report (
    host   text COLLATE "C" NOT NULL,
    report text COLLATE "C" NOT NULL,                           -- the host's own id
    at     bigint NOT NULL,
    PRIMARY KEY (host, report)
);
CREATE INDEX host_report_over ON host_report (at);

-- The newest certificate of each host key. It vouches for itself: it is read only with the CA's signature.
CREATE TABLE host_certificate (
    host text COLLATE "C" NOT NULL,
    key  text COLLATE "C" NOT NULL,                             -- fingerprint of the host key
    line text NOT NULL,
    PRIMARY KEY (host, key)
);
