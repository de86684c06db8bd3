// msrp-node-lib as one end of a session, told by run.py what to do: JSON lines over a connection to a port.
// node peer_msrp_node_lib.js PORT CHECKOUT
const crypto = require('crypto');
const fs = require('fs');
const net = require('net');

const [port, checkout] = process.argv.slice(2);
const control = net.connect(+port, '127.0.0.1');
const say = (event, more) => control.write(`${JSON.stringify({ event, ...more })}\n`);

// The library listens at a port that it is told, and has no 0.
const free = () =>
  new Promise((resolve) => {
    const server = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

const quiet = { debug() {}, info() {}, warn: (m) => say('log', { why: String(m) }), error: (m) => say('log', { why: String(m) }) };
let msrp;
let session;
let remote;
let hints;
// Message-ID of the library for ours, in the order of sending.
const names = new Map();

const described = (sdp) => {
  const lines = sdp.split(/\r?\n/).filter((line) => line);
  const media = lines.filter((line) => line.startsWith('m='));
  const attributes = lines.filter((line) => line.startsWith('a='));
  say('described', { media: [...media, ...attributes, 'a=accept-wrapped-types:*'] });
};

const orders = {
  async describe({ role, accept = '*' }) {
    const config = {
      host: '127.0.0.1', port: await free(), sessionName: 'hand', acceptTypes: accept, setup: role, forceSetup: true,
      enableHeartbeats: false, traceMsrp: false,
      // Whoever connects to it does so from another port than that of its URI.
      useInboundMessageForSocketSetup: true,
    };
    msrp = require(checkout)(config, quiet);
    await new Promise((resolve) => msrp.Server.start(resolve));
    session = msrp.SessionController.createSession();
    session.on('socketSet', () => say('joined'));
    session.on('socketClose', () => say('closed', { why: 'socketClose' }));
    session.on('message', (message) => {
      if (!message.body) return;
      const body = Buffer.from(message.body);
      const text = body.length < 4096 ? message.body : null;
      const sha256 = crypto.createHash('sha256').update(body).digest('hex');
      say('message', { id: message.messageId, type: message.contentType, length: body.length, sha256, text });
    });
    session.on('report', (report) => {
      // It speaks when all bytes have been reported, or the first that failed.
      const { end, total } = report.byteRange;
      say('report', { id: names.get(report.messageId) || report.messageId, code: report.status, range: [1, end, total] });
    });
    session.on('response', (response) => say('response', { code: response.status, tid: response.tid }));
    hints = { acceptTypes: accept };
    if (remote) session.setDescription(remote, () => {}, (why) => say('error', { why }));
    session.getDescription(described, (why) => say('error', { why }), hints);
  },
  told({ sdp }) {
    remote = sdp;
    if (session) session.setDescription(sdp, () => {}, (why) => say('error', { why }));
  },
  send({ id, type, text, file, success = 'no', failure = 'no' }) {
    const body = file ? fs.readFileSync(file) : text;
    session.sendMessage(body, (message, error) => {
      if (error) return say('not_sent', { id, why: error.message });
      names.set(message.messageId, id);
      // It waits for no answer.
      say('sent', { id, code: 200 });
    }, type, success === 'yes' || failure === 'yes');
  },
  close() { msrp.SessionController.removeSession(session); },
  vanish() { process.exit(0); },
};

say('ready');
let buffer = '';
control.on('data', (data) => {
  buffer += data;
  const lines = buffer.split('\n');
  buffer = lines.pop();
  for (const line of lines) {
    const order = JSON.parse(line);
    Promise.resolve().then(() => orders[order.do](order)).catch((why) => say('error', { why: String(why) }));
  }
});
control.on('close', () => process.exit(0));
