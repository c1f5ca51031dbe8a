-- Sessions carry a MAC under a key that is not in this database, and so does a login challenge: both keys are derived
-- from the log key, and no secret is kept here any more. Who was logged in logs in again.
DROP TABLE meta;
DROP TABLE session;
CREATE TABLE session (
    token   BLOB    PRIMARY KEY CHECK (length(token) = 32),   -- SHA-256 of the token
    person  TEXT    NOT NULL,
    key     TEXT    NOT NULL,            -- fingerprint of the login key
    opened  INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    seal    BLOB    NOT NULL CHECK (length(seal) = 32)        -- identity/session.rs
) STRICT, WITHOUT ROWID;
CREATE INDEX session_of_person ON session (person);
CREATE INDEX session_over ON session (expires);

-- A certificate without an outcome is completed by its next fetch; nobody looks for them.
DROP INDEX certificate_without_outcome;

-- Requests that wait for a decision: pending, or granted with an extension that waits.
ALTER TABLE request ADD COLUMN waits INTEGER NOT NULL DEFAULT 0 CHECK (waits IN (0, 1));
UPDATE request SET waits = 1 WHERE state = 'pending' OR json_extract(body, '$.extension') IS NOT NULL;
CREATE INDEX request_waits ON request (asked) WHERE waits = 1;

-- The text of a policy counts only if the log holds its hash.
CREATE INDEX log_entry_of_policy ON log_entry (number) WHERE kind = 'policy_applied';
