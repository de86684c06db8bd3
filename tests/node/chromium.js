// Debian's Chromium without a window, for pages that run JsSIP.
const http = require('http');
const esbuild = require('esbuild');
const { chromium } = require('playwright-core');

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

// Runs `story` with a function that opens a page with this HTML and JsSIP in it, each in a context of its own: they share nothing, as two browsers
// would not. Its `say` is a function of the page.
exports.run = async (html, story) => {
  // The page comes from a loopback address: so it may use the microphone, and connect to loopback addresses.
  const server = http.createServer((_, answer) => {
    answer.setHeader('Content-Type', 'text/html;charset=utf-8');
    answer.end(`<!doctype html>${html}`);
  });
  await new Promise((open) => server.listen(0, '127.0.0.1', open));
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', headless: true, args: flags });
  const open = async (name, say) => {
    const page = await (await browser.newContext()).newPage();
    page.on('pageerror', (e) => console.error(`${name}: ${e}`));
    await page.exposeFunction('say', say);
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.addScriptTag({ content: bundle });
    return page;
  };
  try {
    await story(open);
  } catch (e) {
    console.log(`broken: ${e.message}`);
    process.exitCode = 1;
  } finally {
    await browser.close();
    server.close();
  }
};
