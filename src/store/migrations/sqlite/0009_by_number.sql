-- What belongs to a request is found by the request's number, which grows, and not by its id, which is drawn: what is new goes to the end of these
-- tables, and a change touches no page of long ago. The column "request" of the log stays, for who reads the file by hand.
CREATE TABLE request_entry (
    request INTEGER NOT NULL,            -- request.number
    entry   INTEGER NOT NULL,            -- log_entry.number
    PRIMARY KEY (request, entry)
) STRICT, WITHOUT ROWID;
INSERT INTO request_entry (request, entry)
    SELECT request.number, log_entry.number FROM request CROSS JOIN log_entry ON log_entry.request = request.id
    ORDER BY request.number, log_entry.number;
DROP INDEX log_entry_of_request;

CREATE TABLE host_request (
    host    TEXT    NOT NULL,
    request INTEGER NOT NULL REFERENCES request (number),
    PRIMARY KEY (host, request)
) STRICT, WITHOUT ROWID;
INSERT INTO host_request (host, request)
    SELECT request_host.host, request.number FROM request_host JOIN request ON request.id = request_host.request;
CREATE INDEX host_request_of_request ON host_request (request);
DROP TABLE request_host;
