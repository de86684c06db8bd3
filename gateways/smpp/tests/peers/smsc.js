// A message centre on npm `smpp`, whose behaviour the text of each message chooses. Says what it sees as JSON, a line each.
//   node smsc.js [KEY CERT]
const path = require("path");
const smpp = require(path.join(process.env.PEERS_NODE, "node_modules", "smpp"));
const fs = require("fs");

const say = (what, more) => console.log(JSON.stringify({ what, ...more }));
const text = (pdu) => {
  // replace_sm has no data_coding, so its text stays a buffer.
  const body = Buffer.isBuffer(pdu.short_message) ? pdu.short_message : pdu.short_message && pdu.short_message.message;
  return Buffer.isBuffer(body) ? body.toString("latin1") : String(body || "");
};

let last = 0x1a0; // hexadecimal ids, as many centres name messages
const tries = {};
let waiting = [];

const receipt = (id, tlvs, state) => ({
  source_addr: "819012345678",
  destination_addr: "Isthmus",
  esm_class: 4,
  short_message: `id:${id} sub:001 dlvrd:001 submit date:2611270500 done date:2611270501 stat:${state} err:000 text:`,
  ...tlvs,
});

const listener = (session) => {
  session.on("error", (e) => say("error", { error: String(e) }));
  session.on("close", () => say("closed"));
  for (const kind of ["transceiver", "transmitter", "receiver"]) {
    session.on(`bind_${kind}`, (pdu) => {
      say("bind", { kind, system_id: pdu.system_id, version: pdu.interface_version });
      if (pdu.password !== "secret") {
        session.send(pdu.response({ command_status: smpp.ESME_RINVPASWD }));
        return session.close();
      }
      session.send(pdu.response({ system_id: "node" }));
    });
  }
  session.on("enquire_link", (pdu) => { say("enquire_link"); session.send(pdu.response()); });
  session.on("enquire_link_resp", () => say("enquire_link_resp"));
  session.on("unbind", (pdu) => { say("unbind"); session.send(pdu.response()); session.close(); });
  session.on("deliver_sm_resp", (pdu) => say("deliver_sm_resp", { status: pdu.command_status }));
  for (const op of ["query_sm", "cancel_sm", "replace_sm"]) {
    session.on(op, (pdu) => {
      say(op, { message_id: pdu.message_id, source: pdu.source_addr, text: text(pdu) });
      session.send(pdu.response({ message_id: pdu.message_id, message_state: 2, final_date: "" }));
    });
  }
  session.on("data_sm", (pdu) => {
    say("data_sm", { to: pdu.destination_addr, payload: pdu.message_payload && pdu.message_payload.message });
    session.send(pdu.response({ message_id: "data" }));
  });
  session.on("submit_multi", (pdu) => {
    say("submit_multi", { to: pdu.dest_address.map((d) => d.destination_addr || d.dl_name) });
    session.send(pdu.response({ message_id: "multi", unsuccess_sme: [
      { dest_addr_ton: 1, dest_addr_npi: 1, destination_addr: "2", error_status_code: smpp.ESME_RINVDSTADR },
    ] }));
  });
  session.on("submit_sm", (pdu) => {
    const body = text(pdu);
    const id = (last++).toString(16);
    const ok = () => session.send(pdu.response({ message_id: id }));
    say("submit_sm", { id, text: body, to: pdu.destination_addr, ton: pdu.dest_addr_ton, source: pdu.source_addr,
      source_ton: pdu.source_addr_ton, dcs: pdu.data_coding, registered: pdu.registered_delivery, esm: pdu.esm_class,
      reference: pdu.user_message_reference });
    const [command, argument] = body.split(" ");
    tries[body] = (tries[body] || 0) + 1;
    switch (command) {
      case "late": return setTimeout(ok, 3000);
      case "hold": return;
      case "early": session.deliver_sm(receipt(id, {}, "DELIVRD")); return ok();
      case "decimal": ok(); return session.deliver_sm(receipt(parseInt(id, 16), {}, "DELIVRD"));
      case "tlvonly": ok(); return session.deliver_sm({ source_addr: "8190", destination_addr: "Isthmus", esm_class: 4,
        receipted_message_id: id, message_state: 2, short_message: "" });
      case "twice": ok(); session.deliver_sm(receipt(id, {}, "DELIVRD")); return session.deliver_sm(receipt(id, {}, "DELIVRD"));
      case "throttle": if (tries[body] <= 2) return session.send(pdu.response({ command_status: smpp.ESME_RTHROTTLED })); return ok();
      case "full": if (tries[body] <= 1) return session.send(pdu.response({ command_status: smpp.ESME_RMSGQFUL })); return ok();
      case "refuse": return session.send(pdu.response({ command_status: smpp.ESME_RINVDSTADR }));
      case "vendor": return session.send(pdu.response({ command_status: 0x0402 }));
      case "nack": return session.generic_nack({ sequence_number: pdu.sequence_number, command_status: smpp.ESME_RINVCMDID });
      case "drop": return session.destroy();
      case "half": session.socket.write(Buffer.from("0000002080000004000000", "hex")); return setTimeout(() => session.destroy(), 200);
      case "unbind": session.unbind(() => { say("unbind_resp"); session.close(); }); return;
      case "stray": session.send(pdu.response({ message_id: "stray", sequence_number: 4242 })); return ok();
      case "unknown": session.socket.write(Buffer.from("000000140000" + "0fff" + "0000000000000063" + "01020304", "hex"));
        session.once("generic_nack", (n) => say("nacked", { status: n.command_status, sequence: n.sequence_number })); return ok();
      case "garbage": return session.socket.write(Buffer.from("GET / HTTP/1.1\r\n\r\n"));
      case "reverse":
        waiting.push(ok);
        if (waiting.length == argument) { waiting.reverse().forEach((answer) => answer()); waiting = []; }
        return;
      case "deliver":
        for (let i = 0; i < argument; i++) session.deliver_sm({ source_addr: "8190", destination_addr: "Isthmus", short_message: `mo ${i}` });
        return ok();
      default: return ok();
    }
  });
};

const [key, cert] = process.argv.slice(2);
const server = key ? smpp.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(cert) }, listener) : smpp.createServer(listener);
server.listen(0, "127.0.0.1", () => say("ready", { port: server.address().port }));
