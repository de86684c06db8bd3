"""A handset that takes and sends short messages over IP (TS 24.341), as far as pycrate makes and reads RP messages and TPDUs.

handset.py PORT SERVER USER DOMAIN REPORT [NUMBER TEXT]: PORT is one of UDP, or "tcp": it connects, and registers over its connection. REPORT is
"ack" or "full" (no memory); with NUMBER, it sends TEXT there first, with a status report. It says on stdout what it reads, one JSON object a line, until it is stopped.
PASSWORD in its environment: it answers when it is challenged.
"""
import hashlib
import json
import os
import re
import socket
import sys

from pycrate_mobile import TS23040_SMS as tp
from pycrate_mobile import TS24011_PPSMS as rp

tcp = sys.argv[1] == "tcp"
server, user, domain, report = int(sys.argv[2]), *sys.argv[3:6]
if tcp:
    sock = socket.create_connection(("127.0.0.1", server))
    stream = sock.makefile("rb")
else:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", int(sys.argv[1])))
port = sock.getsockname()[1]
transport = "TCP" if tcp else "UDP"
count = 0
# Where the last request came from: any node of a cluster may send.
peer = None


def write(octets, to):
    if tcp:
        sock.sendall(octets)
    else:
        sock.sendto(octets, to)


def say(**what):
    print(json.dumps(what), flush=True)


# What was sent, by Call-ID: challenged, it is sent again.
sent = {}


def send(uri, body, in_reply_to=None):
    global count
    count += 1
    request(count, 1, uri, body, in_reply_to)


def request(count, cseq, uri, body, in_reply_to, credentials=None):
    sent[f"pycrate-{port}-{count}"] = (count, cseq + 1, uri, body, in_reply_to)
    lines = [
        f"MESSAGE {uri} SIP/2.0",
        f"Via: SIP/2.0/{transport} 127.0.0.1:{port};rport;branch=z9hG4bKpycrate{port}n{count}c{cseq}",
        "Max-Forwards: 70",
        f"From: <sip:{user}@{domain}>;tag=p{count}",
        f"To: <{uri}>",
        f"Call-ID: pycrate-{port}-{count}",
        f"CSeq: {cseq} MESSAGE",
        *([f"Proxy-Authorization: {credentials}"] if credentials else []),
        *([f"In-Reply-To: {in_reply_to}"] if in_reply_to else []),
        "Content-Type: application/vnd.3gpp.sms",
        f"Content-Length: {len(body)}",
    ]
    write("\r\n".join(lines).encode() + b"\r\n\r\n" + body, ("127.0.0.1", server))


def challenged(head):
    """Answers the first challenge (RFC 7616), and sends again."""
    fields = dict(re.findall(r'(\w+)="?([^",\r]*)"?', re.search(r"(?m)^Proxy-Authenticate: Digest (.*)$", head).group(1)))
    name = fields.get("algorithm", "MD5")
    digest = lambda text: hashlib.new(name.replace("-", "").lower(), text.encode()).hexdigest()
    again = sent[re.search(r"(?m)^Call-ID: (.*?)\r?$", head).group(1)]
    uri, realm, nonce = again[2], fields["realm"], fields["nonce"]
    secret = digest(f"{user}:{realm}:{os.environ['PASSWORD']}")
    response = digest(f"{secret}:{nonce}:00000001:c0ffee:auth:" + digest(f"MESSAGE:{uri}"))
    request(*again, f'Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{uri}", algorithm={name}, '
                    f'qop=auth, nc=00000001, cnonce="c0ffee", response="{response}"')


def register():
    lines = [
        f"REGISTER sip:{domain} SIP/2.0",
        f"Via: SIP/2.0/TCP 127.0.0.1:{port};rport;branch=z9hG4bKpycrate{port}r",
        "Max-Forwards: 70",
        f"From: <sip:{user}@{domain}>;tag=r",
        f"To: <sip:{user}@{domain}>",
        f"Call-ID: pycrate-{port}-register",
        "CSeq: 1 REGISTER",
        f"Contact: <sip:{user}@127.0.0.1:{port};transport=tcp>;+g.3gpp.smsip;expires=600",
        "Content-Length: 0",
    ]
    sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")


def received():
    """The next message: its head and its body."""
    global peer
    if not tcp:
        datagram, peer = sock.recvfrom(65536)
        head, _, body = datagram.partition(b"\r\n\r\n")
        return head.decode(), body
    lines = []
    while not lines or lines[-1] != b"\r\n":
        line = stream.readline()
        if not line:
            sys.exit("the connection is closed")
        if lines or line != b"\r\n":
            lines.append(line)
    head = b"".join(lines).decode()
    return head, stream.read(int(re.search(r"(?im)^Content-Length: *(\d+)", head).group(1)))


def answered(message, tpdu):
    """Puts a TPDU into an RP message: its octets."""
    message.set_tpdu(tpdu)
    # In RP-ACK and RP-ERROR it may be left out.
    message["RPUserData"].set_trans(False)
    return message.to_bytes()


def take(head, body):
    kind = body[0] & 7
    message = rp.PPSMSRPTypeClasses[kind]()
    message.from_bytes(body)
    assert message.to_bytes() == body, "written again, it is another one"
    inner = message["RPUserData"][-1]
    said = {"rp": type(message).__name__, "reference": message["Ref"](), "tpdu": inner._name}
    if inner._name == "SMS_DELIVER":
        said.update(origin=inner["TP_OA"]["Num"].decode(), text=inner["TP_UD"]["UD"].decode())
    if inner._name == "SMS_STATUS_REPORT":
        said.update(recipient=inner["TP_RA"]["Num"].decode(), about=inner["TP_MR"](), status=body[-1])
    if kind == 5:
        said.update(cause=message["RPCause"][-1]["Value"]())
    say(event="read", **said)
    if kind != 1:
        return
    gateway = re.search(r"^P-Asserted-Identity: <(.*)>\r?$", head, re.M).group(1)
    call_id = re.search(r"^Call-ID: (.*?)\r?$", head, re.M).group(1)
    if report == "full":
        error = rp.RP_ERROR_MO(val={"Ref": message["Ref"]()})
        error["RPCause"].set_IE(val={"Value": 22})
        send(gateway, answered(error, tp.SMS_DELIVER_REPORT_RP_ERROR(val={"TP_FCS": 0xD3})), call_id)
    else:
        ack = rp.RP_ACK_MO(val={"Ref": message["Ref"]()})
        send(gateway, answered(ack, tp.SMS_DELIVER_REPORT_RP_ACK()), call_id)


if tcp:
    register()
    head, _ = received()
    assert head.startswith("SIP/2.0 200"), head
say(event="ready")
if len(sys.argv) > 6:
    number, text = sys.argv[6:8]
    submit = tp.SMS_SUBMIT(val={"TP_MR": 9, "TP_SRR": 1})
    submit["TP_DA"]["Type"].set_val(1)
    submit["TP_DA"]["Num"].encode(number.lstrip("+"))
    submit["TP_UD"]["UD"].set_val(text)
    data = rp.RP_DATA_MO(val={"Ref": 7})
    data["RPDestinationAddress"].set_IE(val={"Num": b""})
    data["RPDestinationAddress"][-1]["Num"].encode("10000000000")
    send("tel:+10000000000", answered(data, submit))
seen = set()
while True:
    head, body = received()
    if head.startswith("SIP/2.0"):
        status = int(head.split()[1])
        if status == 407:
            challenged(head)
        else:
            say(event="answer", status=status)
        continue
    copied = [l for l in head.split("\r\n") if re.match(r"(?i)(via|from|to|call-id|cseq):", l)]
    write(("SIP/2.0 200 OK\r\n" + "\r\n".join(copied) + "\r\nContent-Length: 0\r\n\r\n").encode(), peer)
    branch = re.search(r"branch=([^;\s,]+)", head).group(1)
    if branch not in seen:
        seen.add(branch)
        take(head, body)
