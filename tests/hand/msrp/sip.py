"""A few lines of SIP over UDP on loopback, for a server that asks for no credentials: enough of a phone to register, and to set up and end a session."""

import itertools
import socket
import time

SERIAL = itertools.count(1)


class Message:
    def __init__(self, data):
        head, _, self.body = data.decode().partition("\r\n\r\n")
        self.first, *lines = head.split("\r\n")
        self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines if ":" in line]
        self.status = int(self.first.split(" ")[1]) if self.first.startswith("SIP/2.0 ") else None
        self.method = self.get("CSeq").split(" ")[1]

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name):
        return (self.all(name) or [""])[0]

    def contact(self):
        return self.get("Contact").split("<")[1].split(">")[0]

    def route(self):
        return [r.strip() for value in self.all("Record-Route") for r in value.split(",")]


class Dialog:
    def __init__(self, phone, call_id, mine, theirs, target, route, sdp):
        self.phone, self.call_id, self.mine, self.theirs = phone, call_id, mine, theirs
        self.target, self.route, self.sdp, self.cseq = target, route, sdp, 1

    def request(self, method):
        self.cseq += 1
        route = [f"Route: {uri}" for uri in self.route]
        return self.phone.request(method, self.target, self.call_id, self.cseq, self.mine, self.theirs, route)

    def ends(self, other=None):
        """Hangs up; `other` is the phone on the other side, unless that is the server."""
        branch = self.request("BYE")
        if other:
            other.answer(other.next(lambda m: m.status is None and m.method == "BYE"))
        answer = self.phone.final(branch)
        assert answer.status == 200, answer.first


class Phone:
    def __init__(self, user, domain, server):
        self.domain, self.server, self.uri = domain, server, f"sip:{user}@{domain}"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.contact = f"Contact: <sip:{user}@127.0.0.1:{self.port}>"
        self.waiting = []

    def send(self, lines, body=""):
        text = "\r\n".join([*lines, f"Content-Length: {len(body.encode())}", "", body])
        self.socket.sendto(text.encode(), ("127.0.0.1", self.server))

    def request(self, method, uri, call_id, cseq, mine, theirs, more=(), body=""):
        """Sends one; its branch."""
        branch = f"z9hG4bK{next(SERIAL)}-{self.port}"
        via = f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};branch={branch};rport"
        dialog = [f"From: {mine}", f"To: {theirs}", f"Call-ID: {call_id}", f"CSeq: {cseq} {method}"]
        self.send([f"{method} {uri} SIP/2.0", via, "Max-Forwards: 70", *dialog, self.contact, *more], body)
        return branch

    def answer(self, request, more=(), body=""):
        to = self.tagged(request)
        kept = [f"{n}: {v}" for n, v in request.headers if n in ("Via", "From", "Call-ID", "CSeq", "Record-Route")]
        self.send(["SIP/2.0 200 OK", *kept, f"To: {to}", self.contact, *more], body)

    def tagged(self, request):
        to = request.get("To")
        return to if "tag=" in to else f"{to};tag=a{self.port}"

    def next(self, wanted, seconds=20):
        """The next message that is wanted; the others wait."""
        until = time.monotonic() + seconds
        while True:
            for message in self.waiting:
                if wanted(message):
                    self.waiting.remove(message)
                    return message
            self.socket.settimeout(max(0.01, until - time.monotonic()))
            try:
                self.waiting.append(Message(self.socket.recv(65535)))
            except TimeoutError:
                there = [message.first for message in self.waiting]
                raise AssertionError(f"{self.uri} waited in vain; there was {there}") from None

    def final(self, branch):
        return self.next(lambda m: m.status and m.status >= 200 and f"branch={branch}" in m.get("Via"))

    def register(self, seconds=600):
        to, more = f"<{self.uri}>", [f"Expires: {seconds}"]
        serial = next(SERIAL)
        branch = self.request("REGISTER", f"sip:{self.domain}", f"r{self.port}", serial, f"{to};tag=r{serial}", to, more)
        answer = self.final(branch)
        assert answer.status == 200, answer.first

    def offers(self, uri, media):
        """Calls; what is to be waited for with `answered`."""
        call_id, mine = f"call-{next(SERIAL)}-{self.port}", f"<{self.uri}>;tag=c{next(SERIAL)}"
        sdp = ["Content-Type: application/sdp"]
        return self.request("INVITE", uri, call_id, 1, mine, f"<{uri}>", sdp, description(media)), call_id, mine

    def answered(self, call):
        branch, call_id, mine = call
        answer = self.final(branch)
        assert answer.status == 200, answer.first
        to, route = answer.get("To"), answer.route()[::-1]
        self.request("ACK", answer.contact(), call_id, 1, mine, to, [f"Route: {uri}" for uri in route])
        return Dialog(self, call_id, mine, to, answer.contact(), route, answer.body)

    def called(self):
        return self.next(lambda m: m.status is None and m.method == "INVITE")

    def accepts(self, invite, media):
        self.answer(invite, ["Content-Type: application/sdp"], description(media))
        mine, theirs = self.tagged(invite), invite.get("From")
        return Dialog(self, invite.get("Call-ID"), mine, theirs, invite.contact(), invite.route(), invite.body)


def description(media):
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0", *media]
    return "".join(f"{line}\r\n" for line in lines)


def attribute(sdp, name):
    return next((line[len(name) + 3 :] for line in sdp.splitlines() if line.startswith(f"a={name}:")), "")
