#!/usr/bin/env python3
"""Foreign MSRP ends through the built server, by hand: see README.md beside this.

  run.py --server BINARY --python PYTHON --msrplib FOLDER[:FOLDER...] --msrp-node-lib FOLDER [--only WORD] [-v]

The last line is "N passed, N failed"; exit 0 when nothing failed."""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from sip import Phone, attribute

HERE = pathlib.Path(__file__).parent
DOMAIN = "hand.test"
LONG = 2 << 20
SOON = 30

arguments = argparse.ArgumentParser(usage=__doc__)
arguments.add_argument("--server", required=True, help="the built isthmus")
arguments.add_argument("--python", default=sys.executable, help="that has what msrplib wants")
arguments.add_argument("--msrplib", required=True, help="checkouts that its PYTHONPATH needs")
arguments.add_argument("--msrp-node-lib", required=True, help="a checkout, with what it depends on")
arguments.add_argument("--only", default="", help="cases with this word in their name")
arguments.add_argument("-v", action="store_true", help="all that the peers say")
options = arguments.parse_args()


class Server:
    def __init__(self, folder):
        self.sip, self.msrp, self.msrps, *other = free_ports(6)
        self.folder = folder
        openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
        names = ["-addext", "subjectAltName=IP:127.0.0.1"]
        for name in ("server", "alice", "bob"):
            files = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
            subprocess.run([*openssl, *names, *files], check=True, capture_output=True)
        (folder / "isthmus.toml").write_text(
            f'domain = "{DOMAIN}"\ndata_dir = "{folder}/data"\n'
            f'[sip]\nudp = ["127.0.0.1:{self.sip}"]\ntcp = []\ntls = []\nauth = "none"\n'
            f'[tls]\ncertificate = "{folder}/server.pem"\nkey = "{folder}/server.key"\n'
            f'[http]\nplain = "127.0.0.1:{other[0]}"\ntls = "127.0.0.1:{other[1]}"\n[admin]\nlisten = "127.0.0.1:{other[2]}"\n'
            f'[msrp]\ntcp = "127.0.0.1:{self.msrp}"\ntls = "127.0.0.1:{self.msrps}"\n'
        )
        (folder / "users.toml").write_text("".join(f'[[user]]\nid = "{u}"\npassword = "x"\n' for u in ("alice", "bob", "carol")))
        config = ["--config", folder / "isthmus.toml"]
        subprocess.run([options.server, "import", folder / "users.toml", *config], check=True, capture_output=True)
        self.log = open(folder / "isthmus.log", "w+b")
        self.process = subprocess.Popen([options.server, "serve", *config], stdout=self.log, stderr=self.log)
        wait(lambda: b"ready domain=" in (folder / "isthmus.log").read_bytes(), "the server is ready")

    def stop(self):
        self.process.terminate()
        assert self.process.wait(40) == 0, "the server's exit"


class Peer:
    """A library in a process of its own; what it said waits until it is asked for."""

    kinds = {
        "msrplib": lambda port: [options.python, HERE / "peer_msrplib.py", str(port)],
        "node": lambda port: ["node", HERE / "peer_msrp_node_lib.js", str(port), os.path.abspath(options.msrp_node_lib)],
    }

    def __init__(self, kind, folder):
        self.kind = kind
        listener = socket.create_server(("127.0.0.1", 0))
        environment = {**os.environ, "PYTHONPATH": options.msrplib}
        self.errors = open(folder / f"{kind}.log", "ab")
        command = self.kinds[kind](listener.getsockname()[1])
        self.process = subprocess.Popen(command, env=environment, stdout=self.errors, stderr=self.errors)
        listener.settimeout(SOON)
        self.control, _ = listener.accept()
        listener.close()
        self.said, self.heard = [], queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.waits("ready")

    def read(self):
        with contextlib.suppress(OSError):
            for line in self.control.makefile("r"):
                if options.v:
                    print(f"    {self.kind}: {line.strip()[:200]}", flush=True)
                self.heard.put(json.loads(line))
        self.heard.put({"event": "gone"})

    def does(self, order, **more):
        self.control.sendall((json.dumps({"do": order, **more}) + "\n").encode())

    def gather(self):
        with contextlib.suppress(queue.Empty):
            while True:
                self.said.append(self.heard.get_nowait())

    def waits(self, event, seconds=SOON, **like):
        """The next event of that kind, with these values."""
        until = time.monotonic() + seconds
        while True:
            self.gather()
            for said in self.said:
                if said["event"] == event and all(said.get(name) == value for name, value in like.items()):
                    self.said.remove(said)
                    return said
            assert time.monotonic() < until, f"{self.kind} did not say {event} {like}: {str(self.said)[:1500]}"
            time.sleep(0.01)

    def all(self, event):
        self.gather()
        return [said for said in self.said if said["event"] == event]

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.control.close()


class End:
    """A user: a phone, and the library that it talks with."""

    def __init__(self, stage, user, kind):
        self.stage, self.user, self.kind = stage, user, kind
        self.phone = Phone(user, DOMAIN, stage.server.sip)
        self.phone.register()
        self.peer = Peer(kind, stage.server.folder)
        stage.ends.append(self)

    def describes(self, role, more=(), **how):
        if how.get("tls"):
            folder = self.stage.server.folder
            how |= {"certificate": str(folder / f"{self.user}.pem"), "key": str(folder / f"{self.user}.key")}
            how["trusted"] = str(folder / "server.pem")
            # The library does not say it itself; who shows a certificate of his own has to (RFC 4975 §14.4).
            shown = subprocess.run(
                ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", how["certificate"]],
                check=True, capture_output=True, text=True,
            )
            more = [*more, f"a=fingerprint:SHA-256 {shown.stdout.strip().split('=')[1]}"]
        self.peer.does("describe", role=role, **how)
        return self.peer.waits("described")["media"] + list(more)

    def is_told(self, sdp):
        if self.kind == "node":
            self.peer.does("told", sdp=sdp)
        else:
            self.peer.does("told", path=attribute(sdp, "path"))

    def sends(self, id, type="text/plain", **what):
        self.peer.does("send", id=id, type=type, **what)

    def gets(self, type, text):
        got = self.peer.waits("message")
        assert (got["type"], got["text"]) == (type, text), got
        return got


class Stage:
    """What one case has, and takes away."""

    def __init__(self, server):
        self.server, self.ends = server, []

    def session(self, caller, callee, roles=("active", "passive"), more=(), tls=False, accept=("*", "*")):
        """Alice with the one library calls bob with the other."""
        alice, bob = End(self, "alice", caller), End(self, "bob", callee)
        how = {"tls": True} if tls else {}
        offer = alice.describes(roles[0], more, accept=accept[0], **how)
        call = alice.phone.offers(bob.phone.uri, offer)
        invite = bob.phone.called()
        assert attribute(invite.body, "path") not in "\n".join(offer), "the session does not go through the server"
        bob.is_told(invite.body)
        answer = bob.describes(roles[1], more, accept=accept[1], **how)
        bob.call = bob.phone.accepts(invite, answer)
        alice.call = alice.phone.answered(call)
        alice.is_told(alice.call.sdp)
        alice.peer.waits("joined"), bob.peer.waits("joined")
        return alice, bob

    def close(self):
        for end in self.ends:
            end.peer.stop()
            end.phone.register(0)


# --- the cases; each gets a stage and the kinds of the two libraries ---------------------------------------------------------
def chat_both_ways(stage, caller, callee):
    alice, bob = stage.session(caller, callee)
    for n in range(3):
        alice.sends(f"a{n}", text=f"from alice {n}: Grüße, 世界")
        bob.gets("text/plain", f"from alice {n}: Grüße, 世界")
        alice.peer.waits("sent", code=200)
        bob.sends(f"b{n}", text=f"from bob {n}")
        alice.gets("text/plain", f"from bob {n}")
        bob.peer.waits("sent", code=200)
    alice.call.ends(bob.phone)
    alice.peer.waits("closed", 10), bob.peer.waits("closed", 10)


def both_connect(stage, caller, callee):
    greets_and_is_greeted(*stage.session(caller, callee, roles=("active", "active")))


def both_are_connected_to(stage, caller, callee):
    greets_and_is_greeted(*stage.session(caller, callee, roles=("passive", "passive")))


def greets_and_is_greeted(alice, bob):
    alice.sends("a", text="hello")
    bob.gets("text/plain", "hello")
    bob.sends("b", text="hello back")
    alice.gets("text/plain", "hello back")


def long_message_with_success_reports(stage, caller, callee):
    alice, bob = stage.session(caller, callee)
    for sender, receiver in ((alice, bob), (bob, alice)):
        file = stage.server.folder / "long.txt"
        file.write_bytes(letters(LONG))
        sender.sends("long", file=str(file), success="yes")
        got = receiver.peer.waits("message", 60)
        assert (got["length"], got["sha256"]) == (LONG, hashlib.sha256(file.read_bytes()).hexdigest()), got
        sender.peer.waits("sent", code=200)
        wait(lambda: covered(sender.peer.all("report")) >= LONG - left_out(receiver), "reports for all of it")
        assert not receiver.peer.all("disorder")


def refused_type_is_reported(stage, caller, callee):
    if callee == "node":
        return "msrp-node-lib takes every type"
    alice, bob = stage.session(caller, callee, accept=("text/plain", "text/plain"))
    alice.sends("x", type="image/png", text="not an image", failure="yes")
    if caller == "node":
        # It reads the session description.
        return alice.peer.waits("not_sent", id="x") and None
    report = alice.peer.waits("report", id="x")
    assert report["code"] == 415, report
    # The session goes on.
    alice.sends("a", text="text")
    bob.gets("text/plain", "text")
    # Who wants no reports gets none.
    alice.sends("y", type="image/png", text="not an image", failure="no")
    alice.sends("b", text="more text")
    bob.gets("text/plain", "more text")
    time.sleep(1)
    assert not alice.peer.all("report"), alice.peer.all("report")


def notifications_and_composing_pass(stage, caller, callee):
    alice, bob = stage.session(caller, callee)
    imdn = (
        f"From: <sip:alice@{DOMAIN}>\r\nTo: <sip:bob@{DOMAIN}>\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: 34jk\r\n"
        "DateTime: 2026-04-04T12:16:49Z\r\nimdn.Disposition-Notification: positive-delivery, display\r\n\r\n"
        "Content-type: text/plain; charset=utf-8\r\n\r\nDid you see it?"
    )
    composing = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<isComposing xmlns="urn:ietf:params:xml:ns:im-iscomposing">'
        "<state>active</state><contenttype>text/plain</contenttype><refresh>60</refresh></isComposing>"
    )
    for sender, receiver in ((alice, bob), (bob, alice)):
        sender.sends("i", type="message/cpim", text=imdn)
        receiver.gets("message/cpim", imdn)
        sender.sends("c", type="application/im-iscomposing+xml", text=composing)
        receiver.gets("application/im-iscomposing+xml", composing)


def file_is_offered_and_taken(stage, caller, callee):
    file = stage.server.folder / "notes.txt"
    file.write_bytes(letters(300_000))
    sha1 = hashlib.sha1(file.read_bytes()).hexdigest().upper()
    colons = ":".join(sha1[n : n + 2] for n in range(0, 40, 2))
    about = [
        f'a=file-selector:name:"notes.txt" type:text/plain size:300000 hash:sha-1:{colons}',
        "a=file-transfer-id:vBnG916bdberum2fFEABR1FR3ExZMUrd",
        "a=file-disposition:attachment",
    ]
    alice, bob = stage.session(caller, callee, more=about)
    for line in about:
        assert line in alice.call.sdp and line in bob.call.sdp, line
    alice.sends("file", file=str(file), success="yes")
    got = bob.peer.waits("message")
    assert got["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest(), got
    wait(lambda: covered(alice.peer.all("report")) >= 300_000 - left_out(bob), "reports for all of it")


def the_other_vanishes(stage, caller, callee):
    alice, bob = stage.session(caller, callee)
    bob.peer.does("vanish")
    bob.peer.waits("gone")
    time.sleep(0.5)
    alice.sends("lost", text="are you there?", failure="yes")
    if caller == "msrplib":
        told = alice.peer.waits("sent", id="lost")["code"]
        told = told if told != 200 else alice.peer.waits("report", id="lost")["code"]
    else:
        told = wait(lambda: [r["code"] for r in alice.peer.all("response") + alice.peer.all("report") if r["code"] != 200], "an error")[0]
    assert told in (408, 481), told
    alice.call.ends(bob.phone)
    alice.peer.waits("closed", 10)


def the_caller_vanishes(stage, caller, callee):
    alice, bob = stage.session(caller, callee)
    alice.peer.does("vanish")
    alice.peer.waits("gone")
    bob.call.ends(alice.phone)
    bob.peer.waits("closed", 10)


def chat_over_tls(stage, caller, callee):
    if (caller, callee) != ("msrplib", "msrplib"):
        return "msrp-node-lib has no TLS"
    alice, bob = stage.session(caller, callee, tls=True)
    alice.sends("a", text="behind a door")
    bob.gets("text/plain", "behind a door")
    bob.sends("b", text="and back")
    alice.gets("text/plain", "and back")
    file = stage.server.folder / "long.bin"
    file.write_bytes(os.urandom(LONG))
    alice.sends("long", type="application/octet-stream", file=str(file), success="yes")
    assert bob.peer.waits("message")["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    wait(lambda: covered(alice.peer.all("report")) == LONG, "reports for all of it")


def room(stage, caller, callee):
    more = ["a=chatroom:nickname private-messages"]
    members = []
    uri = f"sip:conference-factory@{DOMAIN}"
    for user, kind in (("alice", caller), ("bob", callee), ("carol", caller)):
        end = End(stage, user, kind)
        call = end.phone.offers(uri, end.describes("active", more, accept="message/cpim"))
        end.call = end.phone.answered(call)
        end.is_told(end.call.sdp)
        end.peer.waits("joined")
        uri = end.call.target.split(";")[0]
        members.append(end)
    time.sleep(0.5)
    for speaker in members:
        envelope = (
            f"From: <{speaker.phone.uri}>\r\nTo: <{uri}>\r\nDateTime: 2026-04-04T12:16:49Z\r\n\r\n"
            f"Content-Type: text/plain\r\n\r\n{speaker.user} is here"
        )
        speaker.sends(f"from-{speaker.user}", type="message/cpim", text=envelope)
        speaker.peer.waits("sent", code=200)
        for hearer in members:
            if hearer is not speaker:
                assert hearer.peer.waits("message")["text"].endswith(f"{speaker.user} is here")
    if caller == "msrplib":
        members[0].peer.does("nickname", id="n", name='"Lewis"')
        assert members[0].peer.waits("sent", id="n")["code"] == 200
    # One hangs up, the others go on.
    members[1].call.ends()
    members[1].peer.waits("closed", 10)
    members[0].sends("last", type="message/cpim", text=envelope.replace("carol", "alice"))
    members[2].peer.waits("message")


CASES = [
    chat_both_ways,
    both_connect,
    both_are_connected_to,
    long_message_with_success_reports,
    refused_type_is_reported,
    notifications_and_composing_pass,
    file_is_offered_and_taken,
    the_other_vanishes,
    the_caller_vanishes,
    chat_over_tls,
    room,
]


def letters(length):
    line = "".join(f"{n:07}\n" for n in range(length // 8 + 1))
    return line[:length].encode()


def covered(reports):
    """The bytes from the first on that success reports tell of."""
    end = 0
    for start, last, _ in sorted(r["range"] for r in reports if r["code"] == 200):
        if start > end + 1:
            break
        end = max(end, last)
    return end


def left_out(receiver):
    """msrp-node-lib reports the last chunk with a range beyond the end of the message, which goes nowhere; its sender's chunk is this long."""
    return 16384 if receiver.kind == "node" else 0


def wait(fact, what, seconds=SOON):
    until = time.monotonic() + seconds
    while not (value := fact()):
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="isthmus-hand-"))
    server = Server(folder)
    passed = failed = 0
    try:
        for case, (caller, callee) in itertools.product(CASES, itertools.product(Peer.kinds, repeat=2)):
            name = f"{case.__name__}, {caller} and {callee}"
            if options.only not in name:
                continue
            stage = Stage(server)
            try:
                left_out = case(stage, caller, callee)
            except Exception as why:
                failed += 1
                print(f"FAIL  {name}: {why or type(why).__name__}", flush=True)
                if options.v:
                    traceback.print_exc()
            else:
                passed += not left_out
                print(f"{'-   ' if left_out else 'ok  '}  {name}{f': {left_out}' if left_out else ''}", flush=True)
            finally:
                stage.close()
    finally:
        server.stop()
    complaints = [line for line in (folder / "isthmus.log").read_text().splitlines() if "ERROR" in line or "panicked" in line]
    print("\n".join(complaints))
    failed += bool(complaints)
    if not failed:
        shutil.rmtree(folder)
    else:
        print(f"logs: {folder}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
