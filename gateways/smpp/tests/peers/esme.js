// An ESME on npm `smpp` that goes through everything it can do at a centre: node esme.js PORT [tls].
const path = require("path");
const smpp = require(path.join(process.env.PEERS_NODE, "node_modules", "smpp"));

const say = (what, more) => console.log(JSON.stringify({ what, ...more }));
const [port, tls] = process.argv.slice(2);
const open = (listener) => {
  const session = new smpp.connect({ host: "127.0.0.1", port: +port, tls: !!tls, rejectUnauthorized: false }, listener);
  session.on("error", (e) => say("error", { error: String(e) }));
  return session;
};
const ask = (session, command, options) =>
  new Promise((done) => session[command](options, (pdu) => done(pdu)));

const main = async () => {
  const early = open(async () => {
    say("early", { status: (await ask(early, "submit_sm", { destination_addr: "1", short_message: "x" })).command_status });
    say("wrong", { status: (await ask(early, "bind_transceiver", { system_id: "node", password: "wrong" })).command_status });
    say("stranger", { status: (await ask(early, "bind_transceiver", { system_id: "who", password: "secret" })).command_status });
    early.close();
  });
  const session = open(async () => {
    session.on("deliver_sm", (pdu) => {
      const body = pdu.short_message.message;
      say("deliver_sm", { from: pdu.source_addr, text: Buffer.isBuffer(body) ? body.toString("latin1") : body, esm: pdu.esm_class,
        receipted: pdu.receipted_message_id, state: pdu.message_state });
      session.send(pdu.response());
    });
    session.on("enquire_link", (pdu) => session.send(pdu.response()));
    session.on("alert_notification", (pdu) => say("alert", { from: pdu.source_addr }));
    const bound = await ask(session, "bind_transceiver", { system_id: "node", password: "secret", interface_version: 0x34 });
    say("bound", { status: bound.command_status, system_id: bound.system_id, version: bound.sc_interface_version });
    const again = await ask(session, "bind_receiver", { system_id: "node", password: "secret" });
    say("again", { status: again.command_status });
    const one = await ask(session, "submit_sm", { source_addr: "node", destination_addr: "819012345678", short_message: "hello" });
    say("submit_sm", { status: one.command_status, message_id: one.message_id });
    const umlaut = await ask(session, "submit_sm", { source_addr: "node", destination_addr: "8190", short_message: "Gr\u00fc\u00dfe \u4f60" });
    say("unicode", { status: umlaut.command_status });
    const long = await ask(session, "submit_sm", { source_addr: "node", destination_addr: "8190", message_payload: "p".repeat(1000) });
    say("payload", { status: long.command_status });
    const data = await ask(session, "data_sm", { source_addr: "node", destination_addr: "8190", message_payload: "data" });
    say("data_sm", { status: data.command_status, message_id: data.message_id });
    const multi = await ask(session, "submit_multi", { source_addr: "node", dest_address: [
      { dest_addr_ton: 1, dest_addr_npi: 1, destination_addr: "1" }, { dl_name: "friends" }], short_message: "many" });
    say("submit_multi", { status: multi.command_status, message_id: multi.message_id,
      failed: (multi.unsuccess_sme || []).map((u) => [u.destination_addr, u.error_status_code]) });
    const query = await ask(session, "query_sm", { message_id: one.message_id, source_addr: "node" });
    say("query_sm", { status: query.command_status, state: query.message_state, message_id: query.message_id });
    say("replace_sm", { status: (await ask(session, "replace_sm", { message_id: one.message_id, source_addr: "node", short_message: "new" })).command_status });
    say("cancel_sm", { status: (await ask(session, "cancel_sm", { message_id: one.message_id, source_addr: "node" })).command_status });
    say("enquire_link", { status: (await ask(session, "enquire_link", {})).command_status });
    const spoof = await ask(session, "submit_sm", { source_addr: "other", destination_addr: "8190", short_message: "spoof" });
    say("spoof", { status: spoof.command_status });
    const burst = await Promise.all(Array.from({ length: 50 }, (_, i) =>
      ask(session, "submit_sm", { source_addr: "node", destination_addr: "8190", short_message: `burst ${i}` })));
    say("burst", { ok: burst.filter((p) => p.command_status === 0).length, ids: new Set(burst.map((p) => p.message_id)).size });
    say("ready");
    process.stdin.once("data", async () => {
      say("unbound", { status: (await ask(session, "unbind", {})).command_status });
      session.on("close", () => { say("closed"); process.exit(0); });
    });
  });
};
main();
