// A legacy application with much to send: node-smpp as ESME. node load.js PORT COUNT WINDOW FILE; submits COUNT messages and comes back whenever it is
// cut off. FILE gets the text of each that was accepted; stdout says how many every thousand, and when all were. A message without an answer is sent again under another
// text, so that a text that comes twice is not this end's doing.
const fs = require('fs');
const smpp = require('smpp');

const [port, count, window, file] = process.argv.slice(2);
const out = fs.openSync(file, 'w');
const say = (event, more) => console.log(JSON.stringify({ event, ...more }));
let next = 0;
let accepted = 0;
const again = [];

const connect = () => {
  const open = new Map();
  let over = false;
  const end = () => {
    if (over) return;
    over = true;
    for (const [n, attempt] of open) again.push([n, attempt + 1]);
    say('cut', { open: open.size });
    setTimeout(connect, 200);
  };
  const session = smpp.connect({ host: '127.0.0.1', port: +port }, () => {
    session.bind_transceiver({ system_id: 'legacy', password: 'pw' }, (pdu) => {
      if (pdu.command_status !== 0) return session.close();
      say('bound');
      fill();
    });
  });
  session.on('error', end);
  session.on('close', end);
  session.on('enquire_link', (pdu) => session.send(pdu.response()));
  session.on('deliver_sm', (pdu) => session.send(pdu.response()));
  const submit = (n, attempt) => {
    const text = `m${n}-${attempt}`;
    open.set(n, attempt);
    session.submit_sm({ source_addr: 'load', destination_addr: process.env.NUMBER, short_message: text }, (pdu) => {
      if (over) return;
      open.delete(n);
      if (pdu.command_status === 0) {
        fs.writeSync(out, `${text}\n`);
        accepted += 1;
        if (accepted % 1000 === 0) say('progress', { accepted });
        if (accepted === +count) return say('all');
      } else {
        again.push([n, attempt + 1]);
      }
      fill();
    });
  };
  const fill = () => {
    while (!over && open.size < +window && (again.length > 0 || next < +count)) {
      if (again.length > 0) submit(...again.shift());
      else submit(next++, 0);
    }
  };
};
connect();
