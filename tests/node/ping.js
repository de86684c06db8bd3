// A browser's SIP stack whose WebSocket also sends keep-alives: a ping of the WebSocket's own, and the CRLF CRLF of SIP.
// node ping.js URL USER PASSWORD DOMAIN; says `registered`, `pong`, `crlf answered`, and stays until it is stopped.
const JsSIP = require('jssip');
const NodeWebSocket = require('jssip-node-websocket');

const [url, user, password, domain] = process.argv.slice(2);
const socket = new NodeWebSocket(url);
const ua = new JsSIP.UA({ sockets: [socket], uri: `sip:${user}@${domain}`, password, register: true });

ua.on('registered', () => {
  console.log('registered');
  const connection = socket._ws._connection;
  connection.on('pong', (text) => console.log(`pong ${text}`));
  connection.on('message', (m) => {
    if (m.utf8Data === '\r\n') console.log('crlf answered');
  });
  connection.ping('keep');
  connection.sendUTF('\r\n\r\n');
});
ua.on('registrationFailed', (e) => console.log(`failed ${e.cause}`));
ua.start();
