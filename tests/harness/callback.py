"""A push client's web server: prints every notification, one JSON object a line. callback.py PORT [STATUS ...]

The statuses are given to the first requests, in turn; afterwards 200.
"""
import http.server, json, sys, threading

statuses = [int(s) for s in sys.argv[2:]]
one_at_a_time = threading.Lock()

class Callback(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        status = statuses.pop(0) if statuses else 200
        with one_at_a_time:
            print(json.dumps({"path": self.path, "status": status, "body": body, "headers": dict(self.headers)}), flush=True)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Callback)
print(json.dumps({"event": "ready"}), flush=True)
server.serve_forever()
