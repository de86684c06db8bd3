// Two browsers that call one another through the server: JsSIP in headless Chromium, each with a tone for a voice.
// node webrtc.js ALICES_URL BOBS_URL PASSWORD DOMAIN; says on stdout what happens, one line each, and ends with "done".
const chromium = require('./chromium');

const [aliceUrl, bobUrl, password, domain] = process.argv.slice(2);
const LIMIT = 60000;

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

async function phone(open, user, url) {
  const page = await open(user, (what) => say(`${user} ${what}`));
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

chromium.run('<title>phone</title>', async (open) => {
  const [alice, bob] = [
    { user: 'alice', page: await phone(open, 'alice', aliceUrl) },
    { user: 'bob', page: await phone(open, 'bob', bobUrl) },
  ];
  await call(alice, bob, alice);
  say('the caller hung up');
  await call(bob, alice, alice);
  say('the callee hung up');
  for (const { page } of [alice, bob]) await page.evaluate(() => ua.stop());
  say('done');
});
