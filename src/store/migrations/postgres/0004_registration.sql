-- Push clients, API clients and lines. A removed one stays as a row with an empty body, so that other processes learn of it.
CREATE TABLE registration (
    kind     TEXT   COLLATE "C" NOT NULL,
    key      TEXT   COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    body     TEXT   NOT NULL,
    PRIMARY KEY (kind, key)
);
CREATE INDEX registration_sequence ON registration (sequence);
INSERT INTO counter (name, value) VALUES ('registration', 0);

-- Which push clients a number is tied to: at most ten.
CREATE TABLE registration_number (
    msn  BIGINT NOT NULL,
    xpid TEXT   COLLATE "C" NOT NULL,
    PRIMARY KEY (msn, xpid)
);
CREATE INDEX registration_number_xpid ON registration_number (xpid);
