// Drives a browser for the tests. A line of JSON on standard input is a command; a line on standard output with the same number is its answer. The browser ends when the input does.
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const { chromium } = require('playwright-core');

const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
// What a page that has no answer may still take, on a busy machine.
const patience = 20000;

let browser;
const tabs = new Map();
let last = 0;

// Through the protocol and not through the page: the pages' policy forbids eval, and must go on doing so.
const evaluate = async (tab, expression) => {
  const answer = await tab.cdp.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
  if (answer.exceptionDetails) {
    throw new Error(answer.exceptionDetails.exception?.description || answer.exceptionDetails.text);
  }
  return answer.result.value;
};

const commands = {
  // A tab of its own context: no cookies, no cache, no connections of other tabs.
  async open(_, { origin, width, height }) {
    const context = await browser.newContext({ viewport: { width, height }, reducedMotion: 'reduce' });
    context.setDefaultTimeout(patience);
    const tab = { context, seen: { console: [], errors: [], elsewhere: [], dialogs: [], violations: [], requests: 0 } };
    await context.addInitScript(() => {
      globalThis.violations = [];
      document.addEventListener('securitypolicyviolation', (e) => globalThis.violations.push(`${e.violatedDirective} ${e.blockedURI} ${e.sourceFile || ''}`));
    });
    context.on('request', (r) => {
      tab.seen.requests++;
      if (new URL(r.url()).origin !== origin) tab.seen.elsewhere.push(r.url().slice(0, 300));
    });
    context.on('console', (m) => {
      if (/Content.Security.Policy/i.test(m.text())) tab.seen.violations.push(m.text());
      else if (['error', 'warning'].includes(m.type())) tab.seen.console.push(`${m.text()} (${m.location().url})`);
    });
    context.on('weberror', (e) => tab.seen.errors.push(String(e.error().stack || e.error())));
    context.on('dialog', (d) => { tab.seen.dialogs.push(d.message()); d.dismiss().catch(() => {}); });
    tab.page = await context.newPage();
    tab.cdp = await context.newCDPSession(tab.page);
    tabs.set(++last, tab);
    return last;
  },
  // Answers with the status; a page is there when its script has run.
  async goto(tab, { url }) {
    const answer = await tab.page.goto(url, { waitUntil: 'load', timeout: patience });
    return answer ? answer.status() : 0;
  },
  async look(tab, { dark, width, height }) {
    await tab.page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' });
    await tab.page.setViewportSize({ width, height });
  },
  evaluate: (tab, { script }) => evaluate(tab, script),
  click: (tab, { selector }) => tab.page.click(selector),
  fill: (tab, { selector, text }) => tab.page.fill(selector, text),
  check: (tab, { selector }) => tab.page.check(selector),
  press: (tab, { key }) => tab.page.keyboard.press(key),
  type: (tab, { text }) => tab.page.keyboard.type(text),
  url: (tab) => tab.page.url(),
  async shot(tab, { path }) { await tab.page.screenshot({ path, fullPage: true }); },
  // Presses Tab until the focus has been everywhere, and tells each stop by its number among all that can have the focus; -1 is something else.
  async walk(tab, { script, most }) {
    const stops = [];
    for (let i = 0; i < most; i++) {
      await tab.page.keyboard.press('Tab');
      const stop = await evaluate(tab, script);
      if (stop === null) break;
      stops.push(stop);
    }
    return stops;
  },
  async axe(tab, { rules }) {
    if (!await evaluate(tab, 'typeof axe === "object"')) await evaluate(tab, `${axe};0`);
    return evaluate(tab, `axe.run(document, { ${rules ? `runOnly: ${JSON.stringify(rules)},` : ''} preload: false, resultTypes: ['violations'] }).then((r) => r.violations.map((v) => ({
      id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 3).map((n) => n.html.slice(0, 300) + ' ' + (n.failureSummary || '').slice(0, 300)) })))`);
  },
  async close(tab) {
    tab.seen.violations.push(...await evaluate(tab, 'globalThis.violations || []').catch(() => []));
    await tab.context.close();
    return tab.seen;
  },
};

(async () => {
  browser = await chromium.launch({
    executablePath: process.argv[2],
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  console.log(JSON.stringify({ n: 0, value: browser.version() }));
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('line', async (line) => {
    const { n, name, tab, args } = JSON.parse(line);
    try {
      const value = await commands[name](tabs.get(tab), args || {});
      console.log(JSON.stringify({ n, value: value === undefined ? null : value }));
    } catch (e) {
      console.log(JSON.stringify({ n, error: String(e.message || e) }));
    }
  });
  lines.on('close', async () => {
    await browser.close();
    process.exit(0);
  });
})().catch((e) => { console.error(e); process.exit(1); });
