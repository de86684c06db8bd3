// A user's browser (Chromium) at pages of the server, and at others: logs in, keeps a list, sends a file, logs out. What other pages ask for goes by
// the same cookies.
// node session.js URL OTHER DOMAIN PASSWORD; URL is the server's, OTHER an origin of the same site. Says on stdout what each request came to, and "done".
const chromium = require('./chromium');

const [url, other, domain, password] = process.argv.slice(2);
const say = (what, status) => console.log(`${what}: ${status}`);
const list = (user) => `/xcap-root/resource-lists/users/sip:${user}@${domain}/index`;
const friends = '<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list name="friends"/></resource-lists>';

// In a page: fetch, with what cannot be handed over made there.
async function ask([target, init, file]) {
  if (file) {
    init.body = new FormData();
    init.body.append('tid', crypto.randomUUID());
    init.body.append('File', new Blob([file], { type: 'text/plain' }), 'note.txt');
  }
  try {
    const answer = await fetch(target, init);
    return { status: answer.status, text: await answer.text() };
  } catch (e) {
    return { status: 'blocked', text: '' };
  }
}

chromium.run('<title>elsewhere</title>', async (open) => {
  const page = await open('alice', () => {});
  const elsewhere = page.url();
  await page.goto(`${url}/api/v1/session`);
  const json = { 'Content-Type': 'application/json' };
  const lists = { 'Content-Type': 'application/resource-lists+xml' };
  const tell = async (what, target, init = {}, file = '') => {
    const { status, text } = await page.evaluate(ask, [target, init, file]);
    say(what, status);
    return text;
  };
  const logIn = (word) => ({ method: 'POST', headers: json, body: JSON.stringify({ user: 'alice', password: word }) });
  await tell('before', '/api/v1/session');
  await tell('wrong password', '/api/v1/session', logIn('guess'));
  await tell('password', '/api/v1/session', logIn(password));
  say('cookies that scripts see', `"${await page.evaluate(() => document.cookie)}"`);
  say('user', JSON.parse(await tell('session', '/api/v1/session')).address);
  await tell('own list put', list('alice'), { method: 'PUT', headers: lists, body: friends });
  say('own list', await tell('own list get', list('alice')) === friends ? 'as it was put' : 'another');
  await tell("another's list put", list('bob'), { method: 'PUT', headers: lists, body: friends });
  await tell("another's list get", list('bob'));
  await tell('history', '/history/');
  await tell('file', '/content/', { method: 'POST' }, 'hello');

  // Other pages of the same browser. A script there does not see what came of it.
  const answers = [];
  const context = page.context();
  context.on('response', (r) => { if (r.url().startsWith(url)) answers.push(r.status()); });
  for (const [name, place] of [['same site', `${other}/api/v1/session`], ['elsewhere', elsewhere]]) {
    const tab = await context.newPage();
    await tab.goto(place);
    const from = async (what, target, init, file = '') => {
      answers.length = 0;
      const { status } = await tab.evaluate(ask, [target, { credentials: 'include', ...init }, file]);
      say(`${name}, ${what}`, init.mode === 'no-cors' ? answers.at(-1) : status);
    };
    await from('file', `${url}/content/`, { method: 'POST', mode: 'no-cors' }, 'hello');
    await from('log out', `${url}/api/v1/session`, { method: 'DELETE' });
    await from('list', url + list('alice'), { method: 'DELETE' });
    await from('password', `${url}/api/v1/session`, { ...logIn(password), mode: 'no-cors', headers: {} });
    await tab.close();
  }
  say('own list', await tell('own list get', list('alice')) === friends ? 'as it was put' : 'another');

  await tell('log out', '/api/v1/session', { method: 'DELETE' });
  await tell('own list get', list('alice'));
  await tell('after', '/api/v1/session');
  console.log('done');
});
