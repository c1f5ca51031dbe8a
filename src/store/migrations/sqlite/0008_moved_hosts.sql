-- Which user CA a host is of is the log's to say, too: those entries are part of what the inventory is made of.
DROP INDEX log_entry_of_inventory;
CREATE INDEX log_entry_of_inventory ON log_entry (number) WHERE kind IN (
    'join_created', 'join_revoked', 'host_enrolled', 'host_refused', 'host_tagged', 'host_moved', 'host_retired', 'host_left'
);
