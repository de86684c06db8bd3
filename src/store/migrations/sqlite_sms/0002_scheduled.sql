-- What waits for its time, and the requests to several numbers that have one id (docs/decisions/0008).
CREATE INDEX sms_segment_scheduled ON sms_segment (due, id) WHERE state = 5;
CREATE INDEX sms_segment_many ON sms_segment (reqid, client) WHERE part = 0 AND (flags & 32) <> 0;
