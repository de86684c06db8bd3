// The browser of the WebSocket story: JsSIP with node's WebSocket in place of the browser's.
// node browser.js URL USER PASSWORD DOMAIN [SEND_TO [ANSWER [TEXT]]]; sends TEXT, and answers the first message that it gets with
// ANSWER; says on stdout what happens, one line each, until it is stopped.
const JsSIP = require('jssip');
const NodeWebSocket = require('jssip-node-websocket');

const [url, user, password, domain, sendTo, answer, text = 'hello from the browser'] = process.argv.slice(2);
let answered = !answer;
const ua = new JsSIP.UA({
  sockets: [new NodeWebSocket(url)],
  uri: `sip:${user}@${domain}`,
  password,
  register: true,
  register_expires: 120,
});

ua.on('registered', () => {
  console.log('registered');
  if (sendTo) {
    ua.sendMessage(sendTo, text, {
      eventHandlers: {
        succeeded: () => console.log('sent'),
        failed: (e) => console.log(`failed to send: ${e.cause} ${e.response && e.response.getHeader('Warning')}`),
      },
    });
  }
});
ua.on('registrationFailed', (e) => console.log(`failed ${e.cause}`));
ua.on('newMessage', (e) => {
  if (e.originator !== 'remote') return;
  console.log(`got ${e.request.body}`);
  if (!answered) ua.sendMessage(e.request.from.uri.toString(), answer);
  answered = true;
});
ua.start();
