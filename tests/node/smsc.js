// The SMSC of the short message stories: node-smpp as message centre.
// node smsc.js PORT MODE [KEY CERTIFICATE]; with a key, over TLS. It says on stdout what happens, one JSON object a line, until it is stopped.
//
// MODE is how it behaves: normal, early (receipt before the response), late (2 s), text (no TLVs; the id in decimal where the
// response had it in hexadecimal), tlv (TLVs alone), double (every receipt twice), silent (no receipts), throttle (two of three
// submissions refused with RTHROTTLED), full (RMSGQFUL at first), drop (the connection is cut in the middle of every window), busy
// (RSYSERR at first), reject (RINVDSTADR), keep (no receipts; cancel_sm works), part (a receipt for the first of two), nocancel (cancel_sm fails, then a receipt), a number (each
// submission is followed by a message from its destination to that number), a number and `:parts` (by one in three parts, each when the one before was taken),
// `:again` (by one that is tried again until it is taken) or
// `:latin` (by one in Latin-1), strange (a receipt for a message that nobody sent, a number that no request has, and then normal).
const fs = require('fs');
const smpp = require('smpp');

const [port, mode, key, cert] = process.argv.slice(2);
const tls = key ? { key: fs.readFileSync(key), cert: fs.readFileSync(cert) } : {};
const say = (event) => console.log(JSON.stringify(event));
let count = 0;
let refused = 0;

const receiptOf = (id, pdu, hex) => {
  const named = mode === 'text' ? String(parseInt(hex, 16)) : hex;
  const text = `id:${named} sub:001 dlvrd:001 submit date:2611270500 done date:2611270500 stat:DELIVRD err:000 text:`;
  const receipt = {
    source_addr_ton: 1,
    source_addr_npi: 1,
    source_addr: pdu.destination_addr,
    destination_addr: pdu.source_addr,
    esm_class: 4,
    short_message: mode === 'tlv' ? '' : text,
  };
  if (mode !== 'text') {
    receipt.receipted_message_id = hex;
    receipt.message_state = 2;
  }
  return receipt;
};

smpp.createServer(tls, (session) => {
  const bound = (pdu) => {
    const { system_id, system_type, address_range, addr_ton } = pdu;
    say({ event: 'bound', command: pdu.command, system_id, system_type, address_range, addr_ton });
    session.send(pdu.response());
  };
  session.on('bind_transceiver', bound);
  session.on('bind_transmitter', bound);
  session.on('bind_receiver', bound);
  session.on('enquire_link', (pdu) => session.send(pdu.response()));
  session.on('unbind', (pdu) => session.send(pdu.response()));
  session.on('error', () => {});
  session.on('close', () => say({ event: 'closed' }));

  session.on('cancel_sm', (pdu) => {
    say({ event: 'cancel', id: pdu.message_id, to: pdu.destination_addr, from: pdu.source_addr });
    session.send(pdu.response({ command_status: mode === 'nocancel' ? smpp.ESME_RCANCELFAIL : smpp.ESME_ROK }));
    if (mode === 'nocancel') {
      session.deliver_sm(receiptOf(pdu.message_id, { destination_addr: pdu.destination_addr, source_addr: '' }, pdu.message_id));
    }
  });

  session.on('replace_sm', (pdu) => {
    say({ event: 'replace', id: pdu.message_id, text: pdu.short_message.toString() });
    session.send(pdu.response());
  });

  session.on('submit_sm', (pdu) => {
    count += 1;
    const refuse = (status) => {
      say({ event: 'refused', to: pdu.destination_addr });
      session.send(pdu.response({ command_status: status }));
    };
    if (mode === 'throttle' && count % 3 !== 0) return refuse(smpp.ESME_RTHROTTLED);
    if (mode === 'full' && count <= 5) return refuse(smpp.ESME_RMSGQFUL);
    if (mode === 'busy' && refused++ < 1) return refuse(smpp.ESME_RSYSERR);
    if (mode === 'reject') return refuse(smpp.ESME_RINVDSTADR);
    const { message, udh } = pdu.short_message.message === '' && pdu.message_payload ? pdu.message_payload : pdu.short_message;
    say({
      event: 'submit',
      to: pdu.destination_addr,
      from: pdu.source_addr,
      text: Buffer.isBuffer(message) ? message.toString('hex') : message,
      udh: udh ? Buffer.concat(udh.map((u) => (Buffer.isBuffer(u) ? u : Buffer.from([])))).toString('hex') : '',
      esm_class: pdu.esm_class,
      data_coding: pdu.data_coding,
      validity: pdu.validity_period,
      line_state: pdu[0x1501] === undefined ? undefined : pdu[0x1501].toString('hex'),
    });
    if (mode === 'drop' && count % 40 === 0) return session.socket.destroy();
    const hex = (0xa0000 + count).toString(16).toUpperCase();
    const respond = () => session.send(pdu.response({ message_id: hex }));
    const report = () =>
      session.deliver_sm(receiptOf(hex, pdu, hex), (answer) => say({ event: 'receipted', status: answer.command_status }));
    const [number, how] = mode.split(':');
    const back = (fields, done) =>
      session.deliver_sm(
        { source_addr_ton: 1, source_addr_npi: 1, source_addr: pdu.destination_addr, dest_addr_ton: 1, dest_addr_npi: 1, destination_addr: number, ...fields },
        (answer) => {
          say({ event: 'taken', status: answer.command_status });
          done(answer.command_status);
        },
      );
    const part = (n) => {
      if (n > 3) return;
      const text = Buffer.concat([Buffer.from([5, 0, 3, 77, 3, n]), Buffer.from(`Part ${n} of a long message. `)]);
      back({ esm_class: 0x40, data_coding: 0, short_message: text }, () => part(n + 1));
    };
    if (/^[0-9]+$/.test(number)) {
      respond();
      if (how === 'parts') return part(1);
      if (how === 'again') {
        const try_ = () => back({ data_coding: 0, short_message: 'Back from outside' }, (status) => status && setTimeout(try_, 500));
        return try_();
      }
      if (how === 'latin') return back({ data_coding: 3, short_message: Buffer.from('Cr\u00e8me br\u00fbl\u00e9e \u00e1', 'latin1') }, () => {});
      return back({ data_coding: 0, short_message: 'Back from outside' }, () => {});
    }
    switch (mode) {
      case 'early':
        report();
        setTimeout(respond, 100);
        break;
      case 'late':
        respond();
        setTimeout(report, 2000);
        break;
      case 'strange':
        session.deliver_sm(receiptOf('F00D', pdu, 'F00D'), (answer) => {
          say({ event: 'strange', status: answer.command_status });
          session.send(new smpp.PDU('submit_sm_resp', { sequence_number: 4711, message_id: 'F00D' }));
          respond();
          report();
        });
        break;
      case 'double':
        respond();
        report();
        setTimeout(report, 300);
        break;
      case 'part':
        respond();
        if (count % 2 === 1) report();
        break;
      case 'silent':
      case 'keep':
      case 'nocancel':
        respond();
        break;
      default:
        respond();
        report();
    }
  });
}).listen(port, '127.0.0.1', () => say({ event: 'ready' }));
