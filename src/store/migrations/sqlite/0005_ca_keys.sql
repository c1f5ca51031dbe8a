-- The newest log entry that says which CA keys there are; sealed with the head, so that no older one can take its place.
ALTER TABLE log_head ADD COLUMN keys INTEGER NOT NULL DEFAULT 0;    -- entry 0 begins the log, so 0 is none
