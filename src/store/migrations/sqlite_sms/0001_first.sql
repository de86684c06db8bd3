-- Short messages: see docs/decisions on the queue. States, verdicts and flags are gw-sms's numbers; times are unix milliseconds.
CREATE TABLE sms_segment (
    id         INTEGER PRIMARY KEY,
    client     TEXT    NOT NULL,
    msn        BIGINT  NOT NULL,
    reqid      TEXT    NOT NULL,
    part       BIGINT  NOT NULL,
    parts      BIGINT  NOT NULL,
    rank       BIGINT  NOT NULL,
    flags      BIGINT  NOT NULL,
    digest     BIGINT  NOT NULL,
    state      BIGINT  NOT NULL,
    -- The node that holds it in memory; 0: whoever has room.
    owner      BIGINT  NOT NULL,
    expires_at BIGINT  NOT NULL,
    due        BIGINT  NOT NULL,
    attempts   BIGINT  NOT NULL DEFAULT 0,
    verdict    BIGINT  NOT NULL DEFAULT 0,
    done_at    BIGINT  NOT NULL DEFAULT 0,
    -- Hash of the name under which the SMSC has it, while a receipt is awaited; else 0.
    sent_key   BIGINT  NOT NULL DEFAULT 0,
    sent_as    TEXT    NOT NULL DEFAULT '',
    body       BLOB    NOT NULL
);
-- A request is there once; its further segments have the ids behind its first one's.
CREATE UNIQUE INDEX sms_segment_request ON sms_segment (msn, reqid, client) WHERE part = 0;
CREATE INDEX sms_segment_ready ON sms_segment (owner, rank, id) WHERE state = 0;
CREATE INDEX sms_segment_due ON sms_segment (due, id) WHERE state = 1;
CREATE INDEX sms_segment_held ON sms_segment (msn, due) WHERE state = 1;
CREATE INDEX sms_segment_cancelling ON sms_segment (id) WHERE state = 3;
CREATE INDEX sms_segment_sent_key ON sms_segment (sent_key) WHERE sent_key <> 0;
CREATE INDEX sms_segment_sent_expiry ON sms_segment (expires_at) WHERE sent_key <> 0;

-- What push clients are still to be told, a row a request. Claimed by moving `due`.
CREATE TABLE sms_notice (
    id        INTEGER PRIMARY KEY,
    client    TEXT    NOT NULL,
    msn       BIGINT  NOT NULL,
    reqid     TEXT    NOT NULL,
    verdict   BIGINT  NOT NULL,
    delivered BIGINT  NOT NULL,
    cancelled BIGINT  NOT NULL,
    parts     BIGINT  NOT NULL,
    cancel    BIGINT  NOT NULL,
    done_at   BIGINT  NOT NULL,
    due       BIGINT  NOT NULL,
    attempts  BIGINT  NOT NULL DEFAULT 0
);
CREATE INDEX sms_notice_due ON sms_notice (due, id);

-- Counted in the transaction that ends the segments.
CREATE TABLE sms_total (
    day      TEXT   NOT NULL,
    client   TEXT   NOT NULL,
    verdict  BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    segments BIGINT NOT NULL,
    PRIMARY KEY (day, client, verdict)
) WITHOUT ROWID;

-- Who numbers segments, and who lives.
CREATE TABLE sms_node (
    slot        INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    lease_until BIGINT  NOT NULL
);
