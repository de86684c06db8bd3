"""Requests over kept connections, one at a time on each. load.py PORT KIND CONNECTIONS SECONDS RATE NUMBERS

KIND is isthmus or kannel; RATE 0 means as fast as it goes. Prints one JSON object: sent, accepted, seconds, and the milliseconds
from a request to its answer at 50, 95 and 99 per cent.
"""
import base64
import json
import os
import selectors
import socket
import sys
import time

port, kind, connections, seconds, rate, numbers = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:7])
run = f"{os.getpid():08x}"
basic = base64.b64encode(b"12345678901:s3cret").decode()


def request(n):
    number = f"8190{n % numbers:08d}"
    if kind == "kannel":
        path = f"/cgi-bin/sendsms?username=bench&password=bench&from=5555&to=%2B{number}&text=Door+3+of+vehicle+{n:08d}+is+open"
        return f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n".encode()
    body = (
        f"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<smsgw>\r\n<fncid>0101</fncid>\r\n<comway>1101</comway>\r\n"
        f"<msn>+{number}</msn>\r\n<reqid>{run}-{n:027d}</reqid>\r\n<svcid>12345678901</svcid>\r\n<ctrlflg>1</ctrlflg>\r\n"
        f"<text>Door 3 of vehicle {n:08d} is open</text>\r\n</smsgw>\r\n"
    )
    head = f"POST /smsgw/ HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {basic}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def whole(data):
    """The end of a response, or 0."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = data[:end].lower()
    at = head.find(b"content-length:")
    length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    return end + 4 + length if len(data) >= end + 4 + length else 0


good = (lambda d: d.startswith(b"HTTP/1.1 202")) if kind == "kannel" else (lambda d: b"<code>0000<" in d)
select = selectors.DefaultSelector()
idle, waiting = [], {}
for _ in range(connections):
    s = socket.create_connection(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    select.register(s, selectors.EVENT_READ)
    idle.append(s)
sent = accepted = 0
times = []
start = now = time.perf_counter()
while waiting or now - start < seconds:
    now = time.perf_counter()
    if now - start < seconds:
        due = (now - start) * rate if rate else float("inf")
        while idle and sent < due:
            s = idle.pop()
            s.sendall(request(sent))
            waiting[s] = (now, b"")
            sent += 1
    elif now - start > seconds + 20:
        break
    for key, _ in select.select(0.0005 if rate else 0.1):
        s = key.fileobj
        if s not in waiting:
            continue
        began, data = waiting[s]
        data += s.recv(65536)
        if whole(data):
            accepted += good(data)
            times.append(time.perf_counter() - began)
            del waiting[s]
            idle.append(s)
        else:
            waiting[s] = (began, data)
took = now - start
times.sort()
at = lambda share: round(1000 * times[min(len(times) - 1, int(len(times) * share))], 2) if times else None
print(json.dumps({"sent": sent, "accepted": accepted, "seconds": took, "p50": at(0.5), "p95": at(0.95), "p99": at(0.99)}))
