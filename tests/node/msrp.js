// An MSRP client over a WebSocket (RFC 7977), with the `websocket` package of npm: gets itself a relay path by AUTH, then sends
// what it is told on its standard input, a JSON object with `text` a line, and prints what comes.
//   msrp.js URL USER PASSWORD
const crypto = require('crypto');
const readline = require('readline');
const { w3cwebsocket: WebSocket } = require('websocket');

const [url, user, password] = process.argv.slice(2);
const host = new URL(url).host;
const relay = `msrps://${host};ws`;
const own = 'msrps://df7jal23ls0d.invalid:2855/alice98cjs;ws';
const socket = new WebSocket(url, 'msrp', undefined, undefined, { rejectUnauthorized: false });

const auth = (id, more) => `MSRP ${id} AUTH\r\nTo-Path: ${relay}\r\nFrom-Path: ${own}\r\n${more}-------${id}$\r\n`;

function answer(challenge) {
  const value = (name) => (challenge.match(new RegExp(`${name}="?([^",]+)"?`)) || [])[1];
  const algorithm = value('algorithm') || 'MD5';
  const hash = (text) => crypto.createHash(algorithm === 'SHA-256' ? 'sha256' : 'md5').update(text).digest('hex');
  const [realm, nonce, cnonce, nc] = [value('realm'), value('nonce'), 'f00dcafe', '00000001'];
  const secret = hash(`${user}:${realm}:${password}`);
  const response = hash(`${secret}:${nonce}:${nc}:${cnonce}:auth:${hash(`AUTH:${relay}`)}`);
  // No uri: RFC 4976 §9.1.
  return `Digest username="${user}", realm="${realm}", nonce="${nonce}", qop=auth, nc=${nc}, ` +
    `cnonce="${cnonce}", response="${response}", algorithm=${algorithm}`;
}

socket.onopen = () => socket.send(auth('49fh0000', ''));
socket.onerror = () => console.log('failed');
socket.onclose = () => console.log('closed');
socket.onmessage = ({ data }) => {
  const text = typeof data === 'string' ? data : Buffer.from(data).toString('utf8');
  if (text.startsWith('MSRP 49fh0000 401')) {
    socket.send(auth('49fi0000', `Authorization: ${answer(text.match(/WWW-Authenticate: (.*)\r\n/)[1])}\r\n`));
  } else if (text.startsWith('MSRP 49fi0000 200')) {
    console.log(`use-path ${text.match(/Use-Path: (.*)\r\n/)[1]} ${own}`);
  } else if (text.startsWith('MSRP 49fi0000')) {
    console.log(`refused ${text.split(' ')[2]}`);
  } else {
    console.log(`got ${JSON.stringify(text)}`);
    const send = text.match(/^MSRP (\S+) SEND\r\nTo-Path: (.*)\r\nFrom-Path: (\S+).*\r\n/);
    if (send) {
      socket.send(`MSRP ${send[1]} 200 OK\r\nTo-Path: ${send[3]}\r\nFrom-Path: ${send[2]}\r\n-------${send[1]}$\r\n`);
    }
  }
};
readline.createInterface({ input: process.stdin }).on('line', (line) => socket.send(JSON.parse(line).text))
  .on('close', () => process.exit(0));
