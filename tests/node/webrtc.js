// Two browsers that call one another through the server: JsSIP in headless Chromium, each with a tone for a voice.
// node webrtc.js ALICES_URL BOBS_URL PASSWORD DOMAIN; says on stdout what happens, one line each, and ends with "done".
const http = require('http');
const esbuild = require('esbuild');
const { chromium } = require('playwright-core');

const [aliceUrl, bobUrl, password, domain] = process.argv.slice(2);
const LIMIT = 60000;

const bundle = esbuild.buildSync({
  stdin: { contents: "window.JsSIP = require('jssip');", resolveDir: __dirname },
  bundle: true,
  write: false,
  define: { global: 'window' },
}).outputFiles[0].text;

const flags = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
  '--ignore-certificate-errors', '--autoplay-policy=no-user-gesture-required',
  // Without these WebRTC offers no address of the loopback interface.
  '--allow-loopback-in-peer-connection', '--disable-features=WebRtcHideLocalIpsWithMdns',
];

// What has been said, and who waits for it.
const said = [];
const waiting = [];
function say(line) {
  console.log(line);
  said.push(line);
  waiting.filter((w) => w.line === line).forEach((w) => w.done());
}
function heard(line) {
  if (said.includes(line)) return Promise.resolve();
  return new Promise((done, fail) => {
    waiting.push({ line, done });
    setTimeout(() => fail(new Error(`not heard: ${line}`)), LIMIT);
  });
}

async function phone(context, user, url, origin) {
  const page = await context.newPage();
  page.on('pageerror', (e) => console.error(`${user}: ${e}`));
  await page.exposeFunction('say', (what) => say(`${user} ${what}`));
  await page.goto(origin);
  await page.addScriptTag({ content: bundle });
  await page.evaluate(({ user, url, password, domain }) => {
    const uri = `sip:${user}@${domain}`;
    // Chromium's fake microphone beeps for one page at a time; an oscillator each is heard by both.
    const sound = new AudioContext();
    const [voice, microphone] = [sound.createOscillator(), sound.createMediaStreamDestination()];
    voice.connect(microphone);
    voice.start();
    window.options = { mediaStream: microphone.stream, pcConfig: { iceServers: [] } };
    window.ua = new JsSIP.UA({ sockets: [new JsSIP.WebSocketInterface(url)], uri, password, register_expires: 120 });
    ua.on('registered', () => say('registered'));
    ua.on('registrationFailed', (e) => say(`failed to register: ${e.cause}`));
    ua.on('newRTCSession', ({ session, originator }) => {
      window.session = session;
      session.on('progress', (e) => e.originator === 'remote' && say('hears it ring'));
      session.on('confirmed', () => {
        // What nobody plays is not decoded, and has no energy.
        window.audio = new Audio();
        audio.srcObject = new MediaStream(session.connection.getReceivers().map((r) => r.track));
        audio.play();
        say('is connected');
      });
      session.on('ended', (e) => say(`ended, ${e.originator} ${e.cause}`));
      session.on('failed', (e) => say(`failed: ${e.cause}`));
      if (originator === 'remote') {
        say('rings');
        session.answer(options);
      }
    });
    ua.start();
  }, { user, url, password, domain });
  await heard(`${user} registered`);
  return page;
}

// What arrived: packets of the other's audio, and that they were not silence.
async function listen(page, user) {
  const inbound = () => page.evaluate(async () => {
    const all = [...(await session.connection.getStats()).values()];
    const audio = all.find((s) => s.type === 'inbound-rtp' && s.kind === 'audio');
    return { packets: audio?.packetsReceived ?? 0, energy: audio?.totalAudioEnergy ?? 0 };
  });
  const end = Date.now() + LIMIT;
  for (;;) {
    const { packets, energy } = await inbound();
    if (packets > 50 && energy > 0) return say(`${user} hears audio`);
    if (Date.now() > end) throw new Error(`${user} got ${packets} packets, energy ${energy}`);
    await new Promise((wake) => setTimeout(wake, 200));
  }
}

async function call(from, to, ends) {
  said.length = 0;
  await from.page.evaluate((uri) => { ua.call(uri, options); }, `sip:${to.user}@${domain}`);
  await Promise.all([heard(`${from.user} is connected`), heard(`${to.user} is connected`)]);
  await Promise.all([from, to].map((p) => listen(p.page, p.user)));
  await ends.page.evaluate(() => session.terminate());
  const other = ends === from ? to : from;
  await Promise.all([heard(`${ends.user} ended, local Terminated`), heard(`${other.user} ended, remote Terminated`)]);
}

(async () => {
  // The page comes from a loopback address: so it may use the microphone, and connect to loopback addresses.
  const server = http.createServer((_, answer) => {
    answer.setHeader('Content-Type', 'text/html');
    answer.end('<!doctype html><title>phone</title>');
  });
  await new Promise((open) => server.listen(0, '127.0.0.1', open));
  const origin = `http://127.0.0.1:${server.address().port}/`;
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', headless: true, args: flags });
  try {
    // A context each: they share nothing, as two browsers would not.
    const [alice, bob] = [
      { user: 'alice', page: await phone(await browser.newContext(), 'alice', aliceUrl, origin) },
      { user: 'bob', page: await phone(await browser.newContext(), 'bob', bobUrl, origin) },
    ];
    await call(alice, bob, alice);
    say('the caller hung up');
    await call(bob, alice, alice);
    say('the callee hung up');
    for (const { page } of [alice, bob]) await page.evaluate(() => ua.stop());
    say('done');
  } catch (e) {
    console.log(`broken: ${e.message}`);
    process.exitCode = 1;
  } finally {
    await browser.close();
    server.close();
  }
})();
