// A person at a page in Chromium: types a text, clicks, reads what comes, and answers it. JsSIP is the page's SIP stack.
// node person.js URL USER PASSWORD DOMAIN SEND_TO ANSWER; says on stdout "registered", "sent", "got TEXT" for what the page shows, until it is stopped.
const chromium = require('./chromium');

const [url, user, password, domain, sendTo, answer] = process.argv.slice(2);
const say = (what) => console.log(what);

const html = `<title>messages</title><ul id="messages"></ul>
<form id="form"><input id="to"><input id="text"><button id="send">Send</button></form>`;

function page({ url, user, password, domain }) {
  const element = (id) => document.getElementById(id);
  const ua = new JsSIP.UA({
    sockets: [new JsSIP.WebSocketInterface(url)], uri: `sip:${user}@${domain}`, password, register_expires: 120,
  });
  ua.on('registered', () => say('registered'));
  ua.on('registrationFailed', (e) => say(`failed to register: ${e.cause}`));
  ua.on('newMessage', ({ originator, request }) => {
    if (originator !== 'remote') return;
    const item = document.createElement('li');
    item.textContent = request.body;
    item.dataset.from = request.from.uri.toString();
    element('messages').append(item);
  });
  element('form').addEventListener('submit', (event) => {
    event.preventDefault();
    ua.sendMessage(element('to').value, element('text').value, {
      eventHandlers: { succeeded: () => say('sent'), failed: (e) => say(`failed to send: ${e.cause}`) },
    });
  });
  ua.start();
}

chromium.run(html, async (open) => {
  let registered;
  const ready = new Promise((done) => { registered = done; });
  const tab = await open(user, (what) => {
    say(what);
    if (what === 'registered') registered();
  });
  await tab.evaluate(page, { url, user, password, domain });
  await ready;
  const send = async (to, text) => {
    await tab.fill('#to', to);
    await tab.fill('#text', text);
    await tab.click('#send');
  };
  await send(sendTo, 'hello from the browser');
  for (let read = 0; ; read += 1) {
    const item = tab.locator('#messages li').nth(read);
    await item.waitFor({ timeout: 0 });
    say(`got ${await item.textContent()}`);
    if (read === 0) await send(await item.getAttribute('data-from'), answer);
  }
});
