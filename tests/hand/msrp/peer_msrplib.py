"""AG Projects' msrplib as one end of a session, told by run.py what to do: JSON lines over a connection to the port in argv[1].

The library gives chunks; messages are put together here."""

import hashlib
import json
import os
import socket
import sys
import threading

from twisted.internet import reactor
from eventlib import coros, proc
from eventlib.twistedutil import join_reactor  # noqa: F401 (the main greenlet runs the reactor)
from gnutls.crypto import X509Certificate, X509PrivateKey
from gnutls.interfaces.twisted import X509Credentials
from msrplib import protocol
from msrplib.connect import DirectAcceptor, DirectConnector
from msrplib.protocol import URI
from msrplib.session import MSRPSession

control = socket.create_connection(("127.0.0.1", int(sys.argv[1])))


def say(event, **more):
    control.sendall((json.dumps({"event": event, **more}) + "\n").encode())


class Peer:
    def __init__(self):
        self.connector = self.session = self.remote = None
        self.accept = ["*"]
        self.messages = {}
        self.joining = coros.event()

    def describe(self, role, tls=False, accept="*", certificate=None, key=None, trusted=None):
        self.accept = accept.split()
        credentials = None
        if tls and certificate:
            certificate, key, trusted = (open(path, "rb").read() for path in (certificate, key, trusted))
            trusted = [X509Certificate(trusted)]
            credentials = X509Credentials(X509Certificate(certificate), X509PrivateKey(key), trusted)
        active = role == "active"
        uri = URI(host="127.0.0.1", use_tls=tls, port=9 if active else 0, credentials=credentials)
        self.connector = DirectConnector() if active else DirectAcceptor()
        path = self.connector.prepare(uri)
        lines = [
            f"m=message {path[-1].port} {'TCP/TLS/MSRP' if tls else 'TCP/MSRP'} *",
            f"a=accept-types:{accept}",
            "a=accept-wrapped-types:*",
            "a=path:" + " ".join(map(str, path)),
            f"a=setup:{role}",
        ]
        say("described", media=lines)
        if self.remote:
            proc.spawn(self.join)

    def told(self, path):
        self.remote = [URI.parse(uri) for uri in path.split(" ")]
        if self.connector:
            proc.spawn(self.join)

    def join(self):
        try:
            transport = self.connector.complete(self.remote)
        except Exception as why:
            return say("not_joined", why=f"{type(why).__name__}: {why}")
        self.session = MSRPSession(transport, accept_types=self.accept, on_incoming_cb=self.incoming)
        say("joined")

    def incoming(self, chunk=None, error=None):
        if error is not None:
            return say("closed", why=str(error.value or error.type.__name__))
        if chunk.method == "REPORT":
            status = chunk.status
            return say("report", id=chunk.message_id, code=status.code, range=chunk.byte_range)
        if chunk.method != "SEND" or (not chunk.data and chunk.contflag == "$"):
            return
        data = chunk.data if isinstance(chunk.data, bytes) else chunk.data.encode()
        start = chunk.byte_range.start if chunk.byte_range else 1
        body = self.messages.setdefault(chunk.message_id, bytearray())
        if start != len(body) + 1:
            say("disorder", id=chunk.message_id, at=start, had=len(body))
        body[start - 1 : start - 1 + len(data)] = data
        if chunk.contflag == "#":
            say("aborted", id=chunk.message_id, had=len(body))
        if chunk.contflag == "$":
            done = bytes(self.messages.pop(chunk.message_id))
            text = done.decode("utf-8", "replace") if len(done) < 4096 else None
            hash_ = hashlib.sha256(done).hexdigest()
            say("message", id=chunk.message_id, type=chunk.content_type, length=len(done), sha256=hash_, text=text)

    def send(self, id, type, text=None, file=None, success="no", failure="yes", chunk=16384):
        data = open(file, "rb").read() if file else text.encode()
        proc.spawn(self.sending, id, type, data, success, failure, chunk)

    def sending(self, id, type, data, success, failure, size):
        for at in range(0, len(data), size):
            part = data[at : at + size]
            chunk = self.session.msrp.make_send_request(
                message_id=id, data=part, start=at + 1, end=at + len(part), length=len(data)
            )
            chunk.add_header(protocol.ContentTypeHeader(type))
            chunk.add_header(protocol.SuccessReportHeader(success))
            chunk.add_header(protocol.FailureReportHeader(failure))
            last = at + len(part) == len(data)
            try:
                answered = coros.event()
                self.session.send_chunk(chunk, answered.send if failure == "yes" else None)
                code = answered.wait().code if failure == "yes" else 0
            except Exception as why:
                return say("not_sent", id=id, why=f"{type_name(why)}: {why}")
            if last or code not in (0, 200):
                return say("sent", id=id, code=code)

    def nickname(self, id, name):
        chunk = self.session.msrp.make_request("NICKNAME")
        chunk.add_header(protocol.UseNicknameHeader(name))
        self.session.send_chunk(chunk, lambda answer: say("sent", id=id, code=answer.code))

    def close(self):
        self.session.shutdown(wait=False)

    def vanish(self):
        os._exit(0)


def type_name(value):
    return type(value).__name__


def obey(order):
    try:
        getattr(peer, order.pop("do"))(**order)
    except Exception as why:
        say("error", why=f"{type_name(why)}: {why}")


def listen():
    for line in control.makefile("r"):
        reactor.callFromThread(proc.spawn, obey, json.loads(line))
    reactor.callFromThread(reactor.stop)


peer = Peer()
threading.Thread(target=listen, daemon=True).start()
reactor.callWhenRunning(say, "ready")
reactor.run()
