"""A developer's web server: takes webhooks as the standardwebhooks and cloudevents libraries have them, and prints each, one JSON object a line.

hook.py PORT KEYFILE [STATUS ...]: the keys of the signatures stand in KEYFILE, one a line; the statuses are given to the first requests, in
turn, and afterwards 204. A redirect leads to /elsewhere.
"""
import http.server, json, sys, threading

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

one_at_a_time = threading.Lock()


def say(what):
    with one_at_a_time:
        print(json.dumps(what), flush=True)


keyfile, statuses = sys.argv[2], [int(s) for s in sys.argv[3:]]


def signed(headers, body):
    for key in open(keyfile).read().split():
        try:
            Webhook(key).verify(body, headers)
            return True
        except WebhookVerificationError:
            pass
    return False


class Hook(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        event = from_http_event(HTTPMessage(headers, body))
        status = statuses.pop(0) if statuses else 204
        say({
            "event": "hook", "path": self.path, "status": status, "signed": signed(headers, body), "id": event.get_id(), "type": event.get_type(),
            "subject": event.get_subject(), "data": event.get_data(), "authorization": headers.get("authorization"),
            "same": headers["webhook-id"] == event.get_id(),
        })
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Hook)
say({"event": "ready"})
server.serve_forever()
