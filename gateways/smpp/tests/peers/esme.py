"""An ESME on PyPI `smpplib`: esme.py PORT. Says what it sees as JSON, a line each."""

import json
import sys

import smpplib.client
import smpplib.consts
import smpplib.exceptions


def say(what, **more):
    print(json.dumps({"what": what, **more}), flush=True)


def text(raw):
    return raw.decode("latin-1") if isinstance(raw, bytes) else raw


port = int(sys.argv[1])

wrong = smpplib.client.Client("127.0.0.1", port, allow_unknown_opt_params=True)
wrong.connect()
try:
    wrong.bind_transmitter(system_id="python", password="wrong")
    say("wrong", status=0)
except smpplib.exceptions.PDUError as error:
    say("wrong", status=error.args[1])
wrong.disconnect()

client = smpplib.client.Client("127.0.0.1", port, allow_unknown_opt_params=True)
client.set_message_sent_handler(lambda pdu: say("submit_sm_resp", status=pdu.status, id=text(pdu.message_id), sequence=pdu.sequence))


def received(pdu):
    say("deliver_sm", text=text(pdu.short_message), source=text(pdu.source_addr), receipted=text(pdu.receipted_message_id))
    return smpplib.consts.SMPP_ESME_ROK


client.set_message_received_handler(received)
client.connect()
client.bind_transceiver(system_id="python", password="secret")
say("bound")
for body in [b"one", b"two", b"three"]:
    client.send_message(
        source_addr_ton=smpplib.consts.SMPP_TON_ALNUM,
        source_addr="python",
        dest_addr_ton=smpplib.consts.SMPP_TON_INTL,
        dest_addr_npi=1,
        destination_addr="819012345678",
        short_message=body,
        registered_delivery=True,
    )
say("sent")
seen = 0
while seen < 5:
    # Three answers and two deliveries.
    client.read_once()
    seen += 1
client.unbind()
client.disconnect()
say("unbound")
