-- Sessions of browsers: each proves whom the session proves that let it in, and goes with it.
CREATE TABLE browser_session (
    token   BLOB    PRIMARY KEY CHECK (length(token) = 32),   -- SHA-256 of the token
    parent  BLOB    NOT NULL REFERENCES session (token) ON DELETE CASCADE,
    opened  INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    seal    BLOB    NOT NULL CHECK (length(seal) = 32)        -- identity/browser.rs
) STRICT, WITHOUT ROWID;
CREATE INDEX browser_session_of_parent ON browser_session (parent);
CREATE INDEX browser_session_over ON browser_session (expires);
