-- What a person has open, and under which key: looked at by every ask, whatever the person's history.
ALTER TABLE request ADD COLUMN key TEXT NOT NULL DEFAULT '';     -- the subject key's line, as in the body
UPDATE request SET key = json_extract(body, '$.key');
CREATE INDEX request_open ON request (asker, key) WHERE state IN ('pending', 'approved', 'issued');
