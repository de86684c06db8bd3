"""A legacy application: smplib as ESME. esme.py PORT SYSTEM_ID PASSWORD NUMBER TEXT [cancel]

Submits one message with a receipt asked for, and says on stdout what happens, one JSON object a line, until the receipt is there.
"""
import json
import sys

import smpplib.client
import smpplib.consts
import smpplib.gsm

port, system_id, password, number, text = sys.argv[1:6]
say = lambda **what: print(json.dumps(what), flush=True)
client = smpplib.client.Client("127.0.0.1", int(port), allow_unknown_opt_params=True)


def sent(pdu):
    say(event="response", status=pdu.status, id=(pdu.message_id or b"").decode())
    if len(sys.argv) > 6:
        cancel = smpplib.smpp.make_pdu(
            "cancel_sm", client=client, message_id=(pdu.message_id or b"").decode(), source_addr_ton=0, source_addr_npi=0,
            source_addr="", dest_addr_ton=1, dest_addr_npi=1, destination_addr=number,
        )
        client.send_pdu(cancel)


def received(pdu):
    say(event="receipt", text=(pdu.short_message or b"").decode(), esm_class=pdu.esm_class)
    return 0


client.set_message_sent_handler(sent)
client.set_message_received_handler(received)
client.connect()
try:
    client.bind_transceiver(system_id=system_id, password=password)
except Exception as error:
    say(event="refused", why=str(error))
    sys.exit(0)
say(event="ready")
parts, coding, esm_class = smpplib.gsm.make_parts(text)
for part in parts:
    client.send_message(
        source_addr_ton=smpplib.consts.SMPP_TON_ALNUM, source_addr="Legacy", dest_addr_ton=smpplib.consts.SMPP_TON_INTL,
        dest_addr_npi=smpplib.consts.SMPP_NPI_ISDN, destination_addr=number, short_message=part, data_coding=coding,
        esm_class=esm_class, registered_delivery=True,
    )
client.listen()
