// An application that gets SMPP wrong: node-smpp makes its PDUs, this breaks them, and node-smpp reads the answers.
// node noise.js PORT SYSTEM_ID PASSWORD NUMBER; says on stdout each answer by its step, one JSON object a line, and when the connection is closed.
const net = require('net');
const smpp = require('smpp');

const [port, system_id, password, number] = process.argv.slice(2);
const say = (event) => console.log(JSON.stringify(event));
let sequence_number = 0;
const pdu = (command, fields) => new smpp.PDU(command, { sequence_number: ++sequence_number, ...fields }).toBuffer();
const bind = () => pdu('bind_transceiver', { system_id, password, interface_version: 0x34 });
const submit = () => pdu('submit_sm', { source_addr: 'Noise', source_addr_ton: 5, destination_addr: number, short_message: 'well said' });
const sized = (bytes) => {
  bytes.writeUInt32BE(bytes.length);
  return bytes;
};
const header = (length, command) => {
  const bytes = Buffer.alloc(16);
  [length, command, 0, 4711].forEach((word, n) => bytes.writeUInt32BE(word, 4 * n));
  return bytes;
};

// Each of these on one connection, one after the other, as long as it is open. What needs no answer is followed by a question.
const connections = [
  [
    ['unbound', submit],
    ['bound', bind],
    ['bound again', bind],
    ['unknown command', () => header(16, 0x4711)],
    ['unknown number', () => Buffer.concat([pdu('submit_sm_resp', { message_id: 'x', sequence_number: 77 }), pdu('enquire_link')])],
    ['parameter past the end', () => sized(Buffer.concat([submit(), Buffer.from('042400ff78', 'hex')]))],
    ['parameter of the wrong size', () => sized(Buffer.concat([submit(), Buffer.from('020400037878ff', 'hex')]))],
    ['body cut short', () => sized(submit().subarray(0, 19))],
    ['good', submit],
    ['length 0', () => header(0, 0x15)],
  ],
  [['bound', bind], ['length of 4 GiB', () => header(0xffffffff, 4)]],
  [['garbage', () => Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')]],
];

const run = (steps) => new Promise((over) => {
  const socket = net.connect(port, '127.0.0.1');
  let kept = Buffer.alloc(0);
  let step;
  const next = () => {
    if (steps.length === 0) return;
    const [name, bytes] = steps.shift();
    step = name;
    socket.write(bytes());
  };
  socket.on('connect', next);
  socket.on('error', () => {});
  socket.on('data', (data) => {
    kept = Buffer.concat([kept, data]);
    while (kept.length >= 16 && kept.length >= kept.readUInt32BE()) {
      const answer = smpp.PDU.fromBuffer(kept.subarray(0, kept.readUInt32BE()));
      kept = kept.subarray(kept.readUInt32BE());
      say({ event: 'answer', step, command: answer.command, status: answer.command_status, sequence: answer.sequence_number });
      next();
    }
  });
  socket.on('close', () => {
    say({ event: 'closed', step });
    over();
  });
});

(async () => {
  say({ event: 'ready' });
  for (const steps of connections) await run(steps);
  say({ event: 'done' });
})();
