-- The log's head carries a MAC under a key that is not in this database: who can write here, but has no key of the service,
-- adds and changes no log entry. It also names the newest policy version, so that none can be taken away unseen.
ALTER TABLE log_head ADD COLUMN policy INTEGER NOT NULL DEFAULT 0;
ALTER TABLE log_head ADD COLUMN seal BLOB NOT NULL DEFAULT x'';    -- 32 bytes once there is an entry
