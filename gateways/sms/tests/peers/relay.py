"""Reads RP messages, one a line in hexadecimal, with pycrate; prints for each the address and the text that it found, and the octets
that pycrate makes of what it read."""
import sys

from pycrate_mobile.TS24011_PPSMS import RP_DATA_MO, RP_DATA_MT

for line in sys.stdin:
    octets = bytes.fromhex(line.strip())
    relay = RP_DATA_MT() if octets[0] & 1 else RP_DATA_MO()
    relay.from_bytes(octets)
    tpdu = relay["RPUserData"][1]
    names = [element._name for element in tpdu._content]
    address = next(tpdu[n]["Num"].decode() for n in ("TP_OA", "TP_DA", "TP_RA") if n in names)
    text = tpdu["TP_UD"]["UD"].decode() if "TP_UD" in names else ""
    print(address, text if isinstance(text, str) else text.hex(), relay.to_bytes().hex(), sep="\t")
