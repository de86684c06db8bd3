// A phone that others call: JsSIP over a WebSocket, or over TCP. It takes a session of messages, with a description of its own in place of a browser's.
// node phone.js URL USER PASSWORD DOMAIN MEDIA; URL is wss://…, or tcp://127.0.0.1:PORT. It says on stdout "registered", each line of an offer, "called by URI", "ended", until it
// is stopped.
const net = require('net');
const JsSIP = require('jssip');
const NodeWebSocket = require('jssip-node-websocket');

const [url, user, password, domain, media] = process.argv.slice(2);

// A JsSIP.Socket: one SIP message at a time, as their lengths tell them apart (RFC 3261 §18.3).
class TcpSocket {
  constructor(at) {
    this.url = at;
    this.port = Number(new URL(at).port);
    this.sip_uri = `sip:127.0.0.1:${this.port};transport=tcp`;
    this.via_transport = 'TCP';
  }

  connect() {
    let kept = Buffer.alloc(0);
    this.socket = net.connect(this.port, '127.0.0.1', () => this.onconnect());
    this.socket.on('error', () => {});
    this.socket.on('close', () => this.ondisconnect(true));
    this.socket.on('data', (data) => {
      kept = Buffer.concat([kept, data]);
      for (;;) {
        while (kept.subarray(0, 2).toString() === '\r\n') kept = kept.subarray(2);
        const head = kept.indexOf('\r\n\r\n');
        if (head < 0) return;
        const length = Number((kept.subarray(0, head).toString().match(/^(?:content-length|l)\s*:\s*(\d+)/im) || [0, 0])[1]);
        const end = head + 4 + length;
        if (kept.length < end) return;
        const message = kept.subarray(0, end).toString();
        kept = kept.subarray(end);
        this.ondata(message);
      }
    });
  }

  disconnect() {
    this.socket.destroy();
  }

  send(text) {
    return this.socket.write(text) || true;
  }
}

// What JsSIP wants of a browser.
global.window = global;
const sdp = `v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n${media.replace(/\n/g, '\r\n')}\r\n`;
global.RTCSessionDescription = class {
  constructor(description) {
    Object.assign(this, description);
  }
};
global.RTCPeerConnection = class extends EventTarget {
  iceGatheringState = 'complete';
  async setRemoteDescription() {}
  async createAnswer() {
    return { type: 'answer', sdp };
  }
  async setLocalDescription(description) {
    this.localDescription = description;
  }
  close() {}
};

const tcp = url.startsWith('tcp:');
const ua = new JsSIP.UA({
  sockets: [tcp ? new TcpSocket(url) : new NodeWebSocket(url)],
  uri: `sip:${user}@${domain}`,
  ...(tcp && { contact_uri: `sip:${user}@127.0.0.1:9;transport=tcp` }),
  password,
  register: true,
  register_expires: 600,
  session_timers: false,
});
ua.on('registered', () => console.log('registered'));
ua.on('registrationFailed', (e) => console.log(`failed ${e.cause}`));
ua.on('newRTCSession', ({ session, request }) => {
  session.on('ended', () => console.log('ended'));
  session.on('failed', (e) => console.log(`failed ${e.cause}`));
  session.answer({ mediaConstraints: { audio: false, video: false } });
  request.body.split('\r\n').forEach((line) => console.log(line));
  console.log(`called by ${request.parseHeader('contact').uri}`);
});
ua.start();
