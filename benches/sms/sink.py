"""An SMSC that takes everything: bind, submit_sm, enquire_link, unbind. sink.py PORT [--receipts]

Prints the number of submissions so far whenever it is sent SIGUSR1, and at the end.
"""
import asyncio
import signal
import struct
import sys

BIND = {0x1, 0x2, 0x9}
receipts = "--receipts" in sys.argv
count = 0


def pdu(command, status, sequence, body=b""):
    return struct.pack(">IIII", 16 + len(body), command, status, sequence) + body


class Centre(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.rest, self.sequence = transport, b"", 0

    def data_received(self, data):
        global count
        data, at, out = self.rest + data, 0, []
        while len(data) - at >= 16:
            length, command, _, sequence = struct.unpack_from(">IIII", data, at)
            if len(data) - at < length:
                break
            if command == 4:
                count += 1
                name = b"%x" % count
                out.append(pdu(0x80000004, 0, sequence, name + b"\0"))
                if receipts:
                    self.sequence += 1
                    text = b"id:%s sub:001 dlvrd:001 submit date:2611270500 done date:2611270500 stat:DELIVRD err:000 text:" % name
                    body = b"\0\1\1819012345678\0\0\0\0\4\0\0\0\0\0\0\0\0" + bytes([len(text)]) + text
                    out.append(pdu(5, 0, self.sequence, body))
            elif command in BIND:
                out.append(pdu(command | 0x80000000, 0, sequence, b"sink\0"))
            elif command in (0x15, 0x6):
                out.append(pdu(command | 0x80000000, 0, sequence))
            at += length
        self.rest = data[at:]
        if out:
            self.transport.write(b"".join(out))


def say(*_):
    print(count, flush=True)


async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, say)
    stop = loop.create_future()
    loop.add_signal_handler(signal.SIGTERM, lambda: stop.done() or stop.set_result(None))
    server = await loop.create_server(Centre, "127.0.0.1", int(sys.argv[1]))
    print("ready", flush=True)
    await stop
    server.close()
    say()


asyncio.run(main())
