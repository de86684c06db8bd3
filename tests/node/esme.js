// A legacy application: node-smpp as ESME. node esme.js JSON; says on stdout what happens, one JSON object a line, until it is stopped.
//
// JSON: { port, system_id, password, bind: "transceiver", tls: CA file, listen: true (binds when it is called by outbind), steps: [...] }. A step is
// a PDU to send, { op: "submit_sm", ...fields }; its answer is said. { hex: "00ff" } is a buffer; "$id" is the message id of the answer before;
// with `refuse`, the first messages that are delivered are answered with these statuses; with `until`, a query_sm is asked until it tells that state; with `times`, so many go out at once.
const fs = require('fs');
const smpp = require('smpp');

const said = JSON.parse(process.argv[2]);
const say = (event, more) => console.log(JSON.stringify({ event, ...more }));
const text = (body) => (Buffer.isBuffer(body) ? body.toString('latin1') : body && body.message !== undefined ? text(body.message) : String(body || ''));
let id = said.id || '';

const filled = (value) => {
  if (Array.isArray(value)) return value.map(filled);
  if (value && typeof value === 'object') {
    if (value.hex !== undefined) return Buffer.from(value.hex, 'hex');
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, filled(v)]));
  }
  return value === '$id' ? id : value;
};

const serve = async (session) => {
  session.on('error', (error) => say('error', { error: String(error) }));
  session.on('close', () => say('closed'));
  session.on('enquire_link', (pdu) => session.send(pdu.response()));
  const refusals = said.refuse || [];
  session.on('deliver_sm', (pdu) => {
    const { udh } = pdu.short_message;
    const more = udh ? { udh: Buffer.concat(udh.map((u) => (Buffer.isBuffer(u) ? u : Buffer.from([])))).toString('hex') } : {};
    const command_status = refusals.shift() || 0;
    say('deliver', {
      from: pdu.source_addr, to: pdu.destination_addr, text: text(pdu.short_message), esm_class: pdu.esm_class, state: pdu.message_state,
      data_coding: pdu.data_coding, answer: command_status, ...more,
    });
    session.send(pdu.response({ command_status }));
  });
  const ask = (op, fields) => new Promise((done) => session[op](fields, done));
  const bound = await ask(`bind_${said.bind || 'transceiver'}`, {
    system_id: said.system_id, password: said.password, interface_version: 0x34, address_range: said.address_range || '',
  });
  say('bound', { status: bound.command_status, system_id: bound.system_id });
  if (bound.command_status !== 0) return;
  for (const step of said.steps || []) {
    const { op, until, times, ...fields } = step;
    const once = async () => {
      const answer = await ask(op, filled(fields));
      id = answer.message_id || id;
      return {
        op, status: answer.command_status, id: answer.message_id, state: answer.message_state, final_date: answer.final_date,
        failed: (answer.unsuccess_sme || []).map((f) => [f.destination_addr, f.error_status_code]),
      };
    };
    if (until !== undefined) {
      let answer = await once();
      while (answer.state !== until) {
        await new Promise((done) => setTimeout(done, 100));
        answer = await once();
      }
      say('answer', answer);
    } else {
      (await Promise.all(Array.from({ length: times || 1 }, once))).forEach((answer) => say('answer', answer));
    }
  }
  say('done', { id });
};

if (said.listen) {
  smpp.createServer((session) => {
    session.on('outbind', (pdu) => {
      say('outbind', { system_id: pdu.system_id, password: pdu.password });
      serve(session);
    });
  }).listen(said.port, '127.0.0.1', () => say('ready'));
} else {
  const tls = said.tls ? { tls: true, ca: fs.readFileSync(said.tls), servername: 'localhost' } : {};
  const session = smpp.connect({ host: '127.0.0.1', port: said.port, ...tls }, () => {
    say('ready', { encrypted: !!said.tls });
    serve(session);
  });
  session.on('error', (error) => say('error', { error: String(error) }));
}
