"""An HLR behind HTTP: hlr.py PORT FILE. FILE holds a JSON object: number to a list of answers, given in turn, the last one from then on. An
answer has status, body (a text), and delay (seconds). Prints each question, one JSON object a line.
"""
import http.server, json, sys, threading, time

answers = json.load(open(sys.argv[2]))
one_at_a_time = threading.Lock()


class Hlr(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        number = self.path.rsplit("/", 1)[1]
        with one_at_a_time:
            print(json.dumps({"event": "asked", "number": number}), flush=True)
            script = answers.get(number, [{"status": 404}])
            answer = script.pop(0) if len(script) > 1 else script[0]
        time.sleep(answer.get("delay", 0))
        body = answer.get("body", "{}").encode()
        try:
            self.send_response(answer.get("status", 200))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except BrokenPipeError:
            pass  # whoever asked has lost patience

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Hlr)
print(json.dumps({"event": "ready"}), flush=True)
server.serve_forever()
