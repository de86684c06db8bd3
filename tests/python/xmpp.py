"""A user of XMPP, by slixmpp: xmpp.py PORT JID PASSWORD [TO TEXT].

Says on stdout what happens, one JSON object a line, until it is stopped; with TO and TEXT, sends that once it is there.
"""

import json
import logging
import ssl
import sys

import slixmpp


def say(**event):
    print(json.dumps(event), flush=True)


class User(slixmpp.ClientXMPP):
    def __init__(self, jid, password, more):
        super().__init__(jid, password)
        self.more = more
        self.add_event_handler("session_start", self.started)
        self.add_event_handler("message", lambda m: self.got("message", m))
        self.add_event_handler("message_error", lambda m: self.got("error", m))
        self.add_event_handler("failed_auth", lambda _: say(event="refused"))

    async def started(self, _):
        self.send_presence()
        await self.get_roster()
        say(event="ready")
        if self.more:
            to, text = self.more
            self.send_message(mto=to, mbody=text, mtype="normal")

    def got(self, event, message):
        condition = message["error"]["condition"] if event == "error" else None
        say(
            event=event,
            **{"from": str(message["from"])},
            to=str(message["to"]),
            type=message["type"],
            id=message["id"],
            text=message["body"],
            condition=condition,
        )


port, jid, password, *more = sys.argv[1:]
logging.basicConfig(level=logging.WARNING)
user = User(jid, password, more)
user.enable_direct_tls = False
# Whom it talks to is not what is tested.
user.ssl_context.check_hostname = False
user.ssl_context.verify_mode = ssl.CERT_NONE
user.connect("127.0.0.1", int(port))
user.loop.run_forever()
