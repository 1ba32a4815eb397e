// Keeps the live part of a page up to date, and runs the studio without a reload. Every page works without it.
'use strict';

(() => {
  // The live parts of the page: one, or several with names.
  const parts = [...document.querySelectorAll('main:not([data-still]) :is(#live, [data-part])')];
  const link = document.getElementById('link');
  const fragment = { headers: { 'Spate-Fragment': '1' }, credentials: 'same-origin' };

  const say = (text) => {
    if (link) {
      link.textContent = text;
      link.hidden = text === '';
    }
  };

  // What somebody is doing in the live part stays: what is unfolded, the focus, and where tables are scrolled to.
  const place = (live, el) => {
    const path = [];
    for (; el && el !== live; el = el.parentElement) {
      path.unshift([...el.parentElement.children].indexOf(el));
    }
    return path;
  };
  const find = (live, path) => path.reduce((el, i) => el && el.children[i], live);

  const replace = (live, html) => {
    const focus = live.contains(document.activeElement) ? place(live, document.activeElement) : null;
    const open = [...live.querySelectorAll('details[open]')].map((el) => place(live, el));
    const scrolled = [...live.querySelectorAll('.scroll')].filter((el) => el.scrollLeft || el.scrollTop).map((el) => [place(live, el), el.scrollLeft, el.scrollTop]);
    live.innerHTML = html;
    open.forEach((path) => { const el = find(live, path); if (el && el.tagName === 'DETAILS') el.open = true; });
    scrolled.forEach(([path, left, top]) => { const el = find(live, path); if (el) { el.scrollLeft = left; el.scrollTop = top; } });
    const el = focus && find(live, focus);
    if (el && el.focus) el.focus({ preventScroll: true });
  };

  const show = (html) => {
    if (parts.length === 1 && parts[0].id === 'live') { replace(parts[0], html); return; }
    const fresh = new DOMParser().parseFromString(html, 'text/html');
    for (const part of parts) {
      const el = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
      if (el && el.innerHTML !== part.innerHTML) replace(part, el.innerHTML);
    }
  };

  // An answer about a window that is still open is fetched again with the whole page, at most every three seconds, until the window is closed.
  let renewal;
  let missed = false; // something changed meanwhile
  const renew = () => {
    const answer = document.querySelector('.answer[data-provisional]');
    if (renewal) missed = true;
    if (!answer || renewal) return;
    renewal = setTimeout(async () => {
      try {
        const page = await fetch(location.href, { credentials: 'same-origin' });
        const fresh = new DOMParser().parseFromString(await page.text(), 'text/html').querySelector('.answer');
        if (page.ok && fresh) {
          replace(answer, fresh.innerHTML);
          answer.toggleAttribute('data-provisional', fresh.hasAttribute('data-provisional'));
        }
      } catch (e) { /* the next change tries again */ }
      renewal = null;
      if (missed) { missed = false; renew(); }
    }, 3000);
  };

  let shown = '';
  let busy = false;
  let again = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, fragment);
      if (answer.status === 401) { location.reload(); return; }
      const html = await answer.text();
      const selecting = document.getSelection() && !document.getSelection().isCollapsed && parts.some((part) => part.contains(document.getSelection().anchorNode));
      if (html !== shown && !selecting) { show(html); shown = html; }
      renew();
      say('');
    } catch (e) {
      say('not connected');
    } finally {
      busy = false;
      if (again) { again = false; setTimeout(refresh, 100); }
    }
  };

  if (parts.some((part) => part.innerHTML.trim() !== '') && window.EventSource) {
    let source;
    const leave = () => { if (source) source.close(); };
    const connect = () => {
      leave();
      source = new EventSource('/api/stream');
      source.addEventListener('changed', refresh);
      source.onopen = () => say('');
      source.onerror = () => say('not connected');
    };
    // A browser has six connections for a site: tabs that nobody sees must not keep them all, or the next one would not even load.
    if (!document.hidden) connect();
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) { leave(); return; }
      connect();
      refresh();
    });
    addEventListener('pagehide', leave);
    addEventListener('pageshow', (e) => { if (e.persisted) connect(); });
  }

  // The keys / and g move as in other programs of this kind.
  addEventListener('keydown', (e) => {
    if (e.key === '/' && !e.ctrlKey && !e.metaKey && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) {
      const box = document.querySelector('.search input');
      if (box) { e.preventDefault(); box.focus(); }
    }
  });

  // A text of rules is checked as it is written.
  for (const text of document.querySelectorAll('textarea[data-check]')) {
    const faults = document.getElementById(text.dataset.check);
    let timer;
    let asked = 0;
    const check = async () => {
      const n = ++asked;
      try {
        const answer = await fetch('/api/check', { method: 'POST', body: new URLSearchParams({ statement: text.value }), credentials: 'same-origin' });
        const body = await answer.json();
        if (n !== asked || !body.faults) return;
        faults.textContent = body.faults.map((f) => f.shown).join('\n');
        text.setAttribute('aria-invalid', body.faults.length > 0);
      } catch (e) { /* the next key tries again */ }
    };
    text.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(check, 300); });
  }

  const studio = document.getElementById('studio');
  if (!studio) return;
  const result = document.getElementById('result');

  let running;
  studio.addEventListener('submit', async (e) => {
    if (!e.submitter || !['run', 'live'].includes(e.submitter.value)) return;
    e.preventDefault();
    if (running) { running.abort(); return; }
    running = new AbortController();
    const button = e.submitter;
    const label = button.textContent;
    const live = button.value === 'live';
    button.textContent = live ? 'Stop' : 'Cancel';
    if (!live) result.setAttribute('aria-busy', 'true');
    try {
      const form = new URLSearchParams(new FormData(studio));
      form.set('do', button.value);
      const answer = await fetch('/studio', { method: 'POST', body: form, headers: fragment.headers, credentials: 'same-origin', signal: running.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let html = '';
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        html += value;
        if (live) result.innerHTML = html;
      }
      result.innerHTML = html;
    } catch (err) {
      const text = err.name === 'AbortError' ? (live ? 'Stopped.' : 'Canceled.') : 'The console cannot be reached.';
      (live && document.getElementById('runs') || result).textContent = text;
    } finally {
      running = null;
      button.textContent = label;
      result.removeAttribute('aria-busy');
    }
  });
})();
